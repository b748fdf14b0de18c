"""The command line: a front on the typed client of a node, and the command that runs a node.

`main` runs a command, `arguments` has the commands and their flags, `connection` the node that is asked, `output` prints. The other
modules have the commands of a subject: a function `show_...` makes the view of an answer, and the function of the command does the
rest. Rule: only `main`, `arguments` and `errors` are loaded before the command is known, since `--help` has to answer at once.
"""
