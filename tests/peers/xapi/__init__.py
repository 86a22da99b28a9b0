"""A XenAPI pool in a process of its own: see README.md."""
