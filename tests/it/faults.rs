//! What goes wrong around a server: its peers, its clock, its disk, its own end.

