"""The types, each standing alone."""
