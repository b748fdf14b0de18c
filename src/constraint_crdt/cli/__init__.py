"""The command line: a thin front on a node's HTTP API, and the command that runs a node.

`main` runs a command, `arguments` has the flags, `client` speaks to a node, `tables` prints; every other file has the commands that
its name says. Only `main`, `arguments` and `failures` are loaded before it is known which command is asked for: `--help` has to
answer at once.
"""
