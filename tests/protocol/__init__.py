"""The exchange and its wire form."""
