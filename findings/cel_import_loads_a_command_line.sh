#!/usr/bin/env bash
# common-expression-language 0.10.0: importing the library imports its command line.
#
# One would guess: `import cel` loads the extension module and little else; the command-line interface, which the distribution
# also has, loads its own dependencies when it is run.
# It does: `import cel` imports `cel.cli`, and with it typer, rich and prompt_toolkit. Most modules of a process that only
# evaluates expressions belong to terminals, and all three packages are required dependencies of the library.
# It printed (Python 3.11, Linux x86-64):
#   modules loaded by `import cel`: typer yes, rich yes, prompt_toolkit yes
#   modules of terminal packages: over a third of all new modules
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'common-expression-language==0.10.0'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

before = set(sys.modules)
import cel  # noqa: F401

new = set(sys.modules) - before
terminals = ("typer", "rich", "prompt_toolkit")
loaded = {name: any(module.partition(".")[0] == name for module in new) for name in terminals}
share = sum(module.partition(".")[0] in terminals for module in new) / len(new)
print("modules loaded by `import cel`:", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in loaded.items()))
print(f"modules of terminal packages: {share:.0%} of {len(new)} new modules")
sys.exit(0 if all(loaded.values()) and "cel.cli" in new and share > 1 / 3 else 1)
PYTHON
