"""XenAPI as a client sees it: sessions, storage repositories (SR) and their disks (VDI).

The client is poolkit's own, over ``http.client``. The module XenAPI of PyPI has no time limits, speaks XML-RPC alone (in which
ten thousand records take many times as long to read as in JSON, which all but old hosts have), cannot name a socket with ``_`` in
its path, and logs in anew by itself any number of times; wrapping all that would be more than this. Tests check the peer with it.
"""
