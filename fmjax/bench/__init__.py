"""How fast a backbone is on a device: what is timed there, what it is given, and how it is timed."""
