"""The dashboard: one page at `/` of a node's API address, for people.

`pages` serves what is in `static/`: plain HTML, CSS and ES modules, as they stand there. They ask the node's API like any client.
"""
