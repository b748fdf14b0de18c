"""`python -m constraint_crdt`: the command line."""

import sys

from constraint_crdt.cli import main

if __name__ == "__main__":
    sys.exit(main())
