"""One file per pool type."""
