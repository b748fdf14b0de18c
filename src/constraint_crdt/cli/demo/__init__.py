"""`demo`: a fleet of node processes on this machine, and what becomes of the changes made on it.

`fleet` starts and ends the processes, `story` is what happens and how long it took, `screen` shows it, `summary` adds it up.
"""
