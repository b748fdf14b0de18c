"""What all rooms above share as data, without I/O: events and notices."""
