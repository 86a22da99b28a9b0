"""Giving an image another name, also while others give the same one.

``rbd_rename`` of Ceph 16 looks whether the new name is free and then writes the object that has its identity, so that of two at
the same moment the second one's identity stands under the first one's name. Here that object is made exclusively, as
``rbd_create`` makes it, and the directory of images refuses a name that it has: a taken name, and the image that has it, are
never touched. The objects are those of src/cls/rbd of Ceph, and have not changed since images of format 2 came.
"""

from __future__ import annotations

from poolkit.families.ceph.interface import CephError, Images


def rename(images: Images, name: str, new: str, ident: str) -> None:
    """Call the image ``name``, whose identity is ``ident``, ``new``. ``CephError`` EEXIST for a name that is taken."""
    claim = f"rbd_id.{new}"
    images.put(claim, _encoded(ident))
    try:
        images.call("rbd_directory", "rbd", "dir_rename_image", _encoded(name) + _encoded(new) + _encoded(ident))
    except CephError:
        images.drop(claim)
        raise
    images.drop(f"rbd_id.{name}")


def _encoded(text: str) -> bytes:
    """A text as Ceph encodes it: its length in 32 bits, the lowest first, and its bytes."""
    data = text.encode()
    return len(data).to_bytes(4, "little") + data
