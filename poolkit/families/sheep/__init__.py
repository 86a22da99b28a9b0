"""A client for Sheepdog's own protocol: virtual disks (VDIs), their snapshots and their data, without any program of Sheepdog's.

What a cluster answers is not trusted: every length, number and name in it is bounded or checked before it is used.
"""
