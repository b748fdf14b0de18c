"""The CRDT types: views over cells, kept up to date as cells change. Each stands alone or shares the rows of a state."""
