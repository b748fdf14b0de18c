"""Data that all rooms above share, without I/O: events and notices, durations, views."""
