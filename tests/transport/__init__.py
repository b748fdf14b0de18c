"""The engine: one contract for every transport, and what is particular to each."""
