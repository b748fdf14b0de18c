"""Data shared by all layers above, without I/O: events, notices and histograms."""
