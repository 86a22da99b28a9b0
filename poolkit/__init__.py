"""libvirt's storage management as a library: pool and volume XML in, working storage out, with no daemon."""

__version__ = "0.1.0"
