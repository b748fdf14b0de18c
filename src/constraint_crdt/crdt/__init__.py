"""The one merge rule and what it stands on: replicas, clocks, cells, rows, runs, digests. Pure: no I/O, no time, no chance."""
