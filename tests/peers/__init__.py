"""Stand-ins for servers that no package registry carries, each in a process of its own."""
