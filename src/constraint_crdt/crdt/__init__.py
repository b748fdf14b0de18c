"""The merge rule and its foundations: replicas, clocks, cells, kinds, rows, runs, digests. Pure: no I/O, no time, no randomness."""
