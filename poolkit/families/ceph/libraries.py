"""librados and librbd by ctypes, for a Python that the distribution has no modules for.

Signatures and structures are those of librados.h and librbd.h of Ceph 16, which have not changed up to 20. ctypes gives other
threads their turn during each call.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import Structure, byref, c_char, c_char_p, c_int, c_int64, c_size_t, c_uint8, c_uint64, c_void_p
from typing import Any

from poolkit.families.ceph.interface import CephError, Facts, ImageName, ImageOptions, Progress, Snapshot


def _loaded(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


_RADOS = _loaded("librados.so.2")
_RBD = _loaded("librbd.so.1")
PRESENT = _RADOS is not None and _RBD is not None
"""Whether this machine has them; nothing else here can be used without."""
_PROGRESS = ctypes.CFUNCTYPE(c_int, c_uint64, c_uint64, c_void_p)
_EXTENT = ctypes.CFUNCTYPE(c_int, c_uint64, c_size_t, c_int, c_void_p)
# rbd/librbd.h: the values of RBD_IMAGE_OPTION_*
_OPTIONS = {"features": 1, "order": 2, "stripe_unit": 3, "stripe_count": 4, "data_pool": 10, "clone_format": 12}
_EXCLUSIVE = 1  # LIBRADOS_CREATE_EXCLUSIVE
_AT_ONCE = (
    256  # requests that wait for their answers at the same time; the client's own limit is 1024 (objecter_inflight_ops)
)


class _ClusterStat(Structure):
    _fields_ = [(name, c_uint64) for name in ("kb", "kb_used", "kb_avail", "num_objects")]


class _ImageSpec(Structure):
    _fields_ = [("id", c_char_p), ("name", c_char_p)]


class _ImageInfo(Structure):
    _fields_ = [
        ("size", c_uint64), ("obj_size", c_uint64), ("num_objs", c_uint64), ("order", c_int),
        ("block_name_prefix", c_char * 24), ("parent_pool", c_int64), ("parent_name", c_char * 96),
    ]  # fmt: skip


class _LinkedImage(Structure):
    _fields_ = [
        ("pool_id", c_int64), ("pool_name", c_char_p), ("pool_namespace", c_char_p), ("image_id", c_char_p),
        ("image_name", c_char_p), ("trash", ctypes.c_bool),
    ]  # fmt: skip

    def name(self) -> ImageName:
        return ImageName(*(_text(word) for word in (self.pool_name, self.pool_namespace, self.image_name)))


class _SnapSpec(Structure):
    _fields_ = [("id", c_uint64), ("namespace_type", c_int), ("name", c_char_p)]


class _SnapInfo(Structure):
    _fields_ = [("id", c_uint64), ("size", c_uint64), ("name", c_char_p)]


class _Watcher(Structure):
    _fields_ = [("addr", c_char_p), ("id", c_int64), ("cookie", c_uint64)]


def _text(word: bytes | None) -> str:
    return (word or b"").decode("utf-8", "backslashreplace")


def _declare() -> None:
    """Say what the functions take and answer: a size or an offset would be cut to an int otherwise."""
    _U, _P, _S = c_uint64, c_void_p, c_char_p
    for library, name, *types in (
        (_RADOS, "rados_create", _P, _S), (_RADOS, "rados_conf_set", _P, _S, _S), (_RADOS, "rados_connect", _P),
        (_RADOS, "rados_cluster_stat", _P, _P), (_RADOS, "rados_ioctx_create", _P, _S, _P),
        (_RADOS, "rados_ioctx_pool_stat", _P, _P), (_RADOS, "rados_aio_create_completion2", _P, _P, _P),
        (_RADOS, "rados_aio_stat", _P, _S, _P, _P, _P), (_RADOS, "rados_aio_wait_for_complete", _P),
        (_RADOS, "rados_aio_get_return_value", _P), (_RBD, "rbd_list2", _P, _P, _P), (_RBD, "rbd_create4", _P, _S, _U, _P),
        (_RBD, "rbd_clone3", _P, _S, _S, _P, _S, _P), (_RADOS, "rados_remove", _P, _S),
        (_RADOS, "rados_write_op_operate", _P, _P, _S, _P, c_int),
        (_RADOS, "rados_exec", _P, _S, _S, _S, _S, c_size_t, _P, c_size_t),
        (_RBD, "rbd_remove_with_progress", _P, _S, _PROGRESS, _P), (_RBD, "rbd_open", _P, _S, _P, _S),
        (_RBD, "rbd_open_read_only", _P, _S, _P, _S), (_RBD, "rbd_close", _P), (_RBD, "rbd_stat", _P, _P, c_size_t),
        (_RBD, "rbd_get_features", _P, _P), (_RBD, "rbd_get_flags", _P, _P), (_RBD, "rbd_get_id", _P, _P, c_size_t),
        (_RBD, "rbd_get_parent", _P, _P, _P), (_RBD, "rbd_snap_list", _P, _P, _P),
        (_RBD, "rbd_snap_is_protected", _P, _S, _P), (_RBD, "rbd_snap_get_namespace_type", _P, _U, _P),
        (_RBD, "rbd_diff_iterate2", _P, _S, _U, _U, c_uint8, c_uint8, _EXTENT, _P), (_RBD, "rbd_discard", _P, _U, _U),
        (_RBD, "rbd_flush", _P), (_RBD, "rbd_resize2", _P, _U, ctypes.c_bool, _PROGRESS, _P),
        (_RBD, "rbd_snap_create", _P, _S), (_RBD, "rbd_snap_remove", _P, _S), (_RBD, "rbd_snap_protect", _P, _S),
        (_RBD, "rbd_snap_unprotect", _P, _S), (_RBD, "rbd_flatten_with_progress", _P, _PROGRESS, _P),
        (_RBD, "rbd_list_children3", _P, _P, _P), (_RBD, "rbd_watchers_list", _P, _P, _P),
        (_RBD, "rbd_copy_with_progress3", _P, _P, _S, _P, _PROGRESS, _P),
        (_RBD, "rbd_namespace_exists", _P, _S, _P),
        (_RBD, "rbd_image_options_set_uint64", _P, c_int, _U), (_RBD, "rbd_image_options_set_string", _P, c_int, _S),
    ):  # fmt: skip
        function: Any = getattr(library, name)
        function.argtypes, function.restype = list(types), c_int
    for library, name, answer, *types in (
        (_RADOS, "rados_shutdown", None, _P), (_RADOS, "rados_ioctx_destroy", None, _P),
        (_RADOS, "rados_ioctx_set_namespace", None, _P, _S), (_RADOS, "rados_set_osdmap_full_try", None, _P),
        (_RADOS, "rados_aio_get_version", _U, _P), (_RADOS, "rados_create_write_op", _P),
        (_RADOS, "rados_release_write_op", None, _P), (_RADOS, "rados_write_op_create", None, _P, c_int, _S),
        (_RADOS, "rados_write_op_write_full", None, _P, _S, c_size_t),
        (_RADOS, "rados_aio_release", None, _P), (_RBD, "rbd_image_spec_list_cleanup", None, _P, c_size_t),
        (_RBD, "rbd_linked_image_spec_cleanup", None, _P), (_RBD, "rbd_snap_spec_cleanup", None, _P),
        (_RBD, "rbd_linked_image_spec_list_cleanup", None, _P, c_size_t), (_RBD, "rbd_snap_list_end", None, _P),
        (_RBD, "rbd_watchers_list_cleanup", None, _P, c_size_t), (_RBD, "rbd_image_options_create", None, _P),
        (_RBD, "rbd_image_options_destroy", None, _P), (_RBD, "rbd_read2", ctypes.c_ssize_t, _P, _U, c_size_t, _P, c_int),
        (_RBD, "rbd_write2", ctypes.c_ssize_t, _P, _U, c_size_t, _P, c_int),
        (_RBD, "rbd_write_zeroes", ctypes.c_ssize_t, _P, _U, c_size_t, c_int, c_int),
    ):  # fmt: skip
        function = getattr(library, name)
        function.argtypes, function.restype = list(types), answer


if PRESENT:
    _declare()


def _did(answer: int, what: str) -> int:
    if answer < 0:
        raise CephError(-answer, what)
    return answer


def _listed(call: Callable[[Any, Any], int], kind: type[Structure], count: Any, what: str) -> tuple[Any, int]:
    """An array of what ``call`` lists: it answers ERANGE, and how many there are, until the array has room for all."""
    room = 0
    while True:
        count.value = room
        found = (kind * max(room, 1))()
        answer = call(found, byref(count))
        if answer != -errno.ERANGE:
            # Some say how many there are by their answer, and others in the count.
            return found, _did(answer, what) or count.value
        room = max(count.value, 2 * room, 16)


def _progress(progress: Progress) -> Any:
    def tell(done: int, total: int, _: Any) -> int:
        progress(done, total)
        return 0

    return _PROGRESS(tell)


class Connection:
    """A cluster, through librados."""

    def __init__(self, user: str, settings: Mapping[str, str]) -> None:
        self._handle = c_void_p()
        _did(_RADOS.rados_create(byref(self._handle), user.encode()), "make a client")
        try:
            for name, value in settings.items():
                _did(_RADOS.rados_conf_set(self._handle, name.encode(), value.encode()), f"set the option '{name}'")
            _did(_RADOS.rados_connect(self._handle), "connect")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect."""
        if self._handle:
            _RADOS.rados_shutdown(self._handle)
            self._handle = c_void_p()

    def space(self) -> tuple[int, int]:
        """Bytes of the cluster: all, and those that are free."""
        found = _ClusterStat()
        _did(_RADOS.rados_cluster_stat(self._handle, byref(found)), "ask for the sizes of the cluster")
        return found.kb * 1024, found.kb_avail * 1024

    @contextmanager
    def images(self, pool: str, namespace: str) -> Iterator[LibraryImages]:
        """The images of a pool."""
        handle = c_void_p()
        _did(_RADOS.rados_ioctx_create(self._handle, pool.encode(), byref(handle)), f"open the pool '{pool}'")
        try:
            # Else what finds the pool full waits for room: with it there is an answer at once.
            _RADOS.rados_set_osdmap_full_try(handle)
            _RADOS.rados_ioctx_set_namespace(handle, namespace.encode())
            images = LibraryImages(handle)
            if namespace:
                images.require(namespace)
            yield images
        finally:
            _RADOS.rados_ioctx_destroy(handle)


class LibraryImages:
    """Images of a pool, through librbd."""

    def __init__(self, handle: c_void_p) -> None:
        self.handle = handle

    def require(self, namespace: str) -> None:
        """ENOENT for a namespace that is not there: its images would be listed as none. Who may not ask does not."""
        there = ctypes.c_bool()
        answer = _RBD.rbd_namespace_exists(self.handle, namespace.encode(), byref(there))
        if answer not in (-errno.EPERM, -errno.EACCES):
            _did(answer, f"look for the namespace '{namespace}'")
            if not there:
                raise CephError(errno.ENOENT, f"open the namespace '{namespace}'")

    def bytes_used(self) -> int:
        """Bytes that the pool's objects hold."""
        found = (c_uint64 * 16)()  # rados_pool_stat_t
        _did(_RADOS.rados_ioctx_pool_stat(self.handle, byref(found)), "ask for the size of the pool")
        return int(found[0])

    def names(self) -> dict[str, str]:
        """All images: name and identity."""
        found, count = _listed(
            lambda array, n: _RBD.rbd_list2(self.handle, array, n), _ImageSpec, c_size_t(), "list the images"
        )
        try:
            return {_text(one.name): _text(one.id) for one in found[:count]}
        finally:
            _RBD.rbd_image_spec_list_cleanup(found, count)

    def versions(self, objects: Sequence[str]) -> list[int]:
        """A number for each object that grows with every change of it."""
        found: list[int] = []
        for start in range(0, len(objects), _AT_ONCE):
            found += self._versions(objects[start : start + _AT_ONCE])
        return found

    def _versions(self, objects: Sequence[str]) -> list[int]:
        waiting = []
        size, time = c_uint64(), c_int64()
        try:
            for name in objects:
                one = c_void_p()
                _did(_RADOS.rados_aio_create_completion2(None, None, byref(one)), "ask for versions")
                waiting.append(one)
                asked = _RADOS.rados_aio_stat(self.handle, name.encode(), one, byref(size), byref(time))
                _did(asked, f"ask for the version of '{name}'")
            return [self._answer(one) for one in waiting]
        finally:
            for one in waiting:
                _RADOS.rados_aio_wait_for_complete(one)
                _RADOS.rados_aio_release(one)

    @staticmethod
    def _answer(one: c_void_p) -> int:
        _RADOS.rados_aio_wait_for_complete(one)
        answer = _RADOS.rados_aio_get_return_value(one)
        if answer == -errno.ENOENT:
            return 0
        _did(answer, "ask for versions")
        return int(_RADOS.rados_aio_get_version(one))

    def create(self, name: str, size: int, options: ImageOptions) -> None:
        """Make an image of zeros."""
        with _options(options) as given:
            _did(_RBD.rbd_create4(self.handle, name.encode(), size, given), f"create '{name}'")

    def clone(self, name: str, snapshot: str, target: LibraryImages, new: str, options: ImageOptions) -> None:
        """Make an image that shares the data of a snapshot."""
        with _options(options) as given:
            words = name.encode(), snapshot.encode(), target.handle, new.encode()
            _did(_RBD.rbd_clone3(self.handle, *words, given), f"clone '{name}@{snapshot}'")

    def put(self, name: str, data: bytes) -> None:
        """Make an object."""
        change = _RADOS.rados_create_write_op()
        try:
            _RADOS.rados_write_op_create(change, _EXCLUSIVE, None)
            _RADOS.rados_write_op_write_full(change, data, len(data))
            done = _RADOS.rados_write_op_operate(change, self.handle, name.encode(), None, 0)
            _did(done, f"make the object '{name}'")
        finally:
            _RADOS.rados_release_write_op(change)

    def call(self, name: str, kind: str, method: str, data: bytes) -> None:
        """Call a method of an object's class."""
        words = name.encode(), kind.encode(), method.encode()
        _did(_RADOS.rados_exec(self.handle, *words, data, len(data), None, 0), f"call '{method}'")

    def drop(self, name: str) -> None:
        """Remove an object."""
        _did(_RADOS.rados_remove(self.handle, name.encode()), f"remove the object '{name}'")

    def remove(self, name: str, progress: Progress) -> None:
        """Remove an image."""
        _did(_RBD.rbd_remove_with_progress(self.handle, name.encode(), _progress(progress), None), f"remove '{name}'")

    @contextmanager
    def open(self, name: str, *, snapshot: str | None = None, write: bool = False) -> Iterator[LibraryImage]:
        """An image, open as long as the body."""
        handle = c_void_p()
        call = _RBD.rbd_open if write else _RBD.rbd_open_read_only
        at = None if snapshot is None else snapshot.encode()
        _did(call(self.handle, name.encode(), byref(handle), at), f"open '{name}'")
        try:
            yield LibraryImage(handle, name)
        finally:
            _RBD.rbd_close(handle)


@contextmanager
def _options(options: ImageOptions) -> Iterator[c_void_p]:
    handle = c_void_p()
    _RBD.rbd_image_options_create(byref(handle))
    try:
        for name, value in options.items():
            number = _OPTIONS[name]
            if isinstance(value, str):
                _did(_RBD.rbd_image_options_set_string(handle, number, value.encode()), f"set {name}")
            else:
                _did(_RBD.rbd_image_options_set_uint64(handle, number, value), f"set {name}")
        yield handle
    finally:
        _RBD.rbd_image_options_destroy(handle)


class LibraryImage:
    """An open image, through librbd."""

    def __init__(self, handle: c_void_p, name: str) -> None:
        self._handle = handle
        self._name = name

    def _asked(self, function: Any, what: str) -> int:
        value = c_uint64()
        _did(function(self._handle, byref(value)), f"ask for the {what} of '{self._name}'")
        return value.value

    def facts(self) -> Facts:
        """What it is now."""
        info = _ImageInfo()
        _did(_RBD.rbd_stat(self._handle, byref(info), ctypes.sizeof(info)), f"look at '{self._name}'")
        ident = ctypes.create_string_buffer(64)
        old = _RBD.rbd_get_id(self._handle, ident, len(ident)) < 0  # an image of format 1 has none
        return Facts(
            "" if old else _text(ident.value), info.size, info.order, info.num_objs,
            self._asked(_RBD.rbd_get_features, "features"), self._asked(_RBD.rbd_get_flags, "flags"), self._parent(),
        )  # fmt: skip

    def _parent(self) -> tuple[ImageName, str] | None:
        image, snapshot = _LinkedImage(), _SnapSpec()
        answer = _RBD.rbd_get_parent(self._handle, byref(image), byref(snapshot))
        if answer == -errno.ENOENT:
            return None
        _did(answer, f"ask for the parent of '{self._name}'")
        found = image.name(), _text(snapshot.name)
        _RBD.rbd_linked_image_spec_cleanup(byref(image))
        _RBD.rbd_snap_spec_cleanup(byref(snapshot))
        return found

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, the oldest first."""
        found, count = _listed(
            lambda array, n: _RBD.rbd_snap_list(self._handle, array, n), _SnapInfo, c_int(), "list the snapshots"
        )
        try:
            return [self._snapshot(one) for one in found[:count] if one.name is not None]
        finally:
            _RBD.rbd_snap_list_end(found)

    def _snapshot(self, one: _SnapInfo) -> Snapshot:
        kind, protected = c_int(), c_int()
        _did(_RBD.rbd_snap_get_namespace_type(self._handle, one.id, byref(kind)), "look at a snapshot")
        if kind.value == 0:
            _did(_RBD.rbd_snap_is_protected(self._handle, one.name, byref(protected)), "look at a snapshot")
        return Snapshot(one.id, _text(one.name), bool(protected.value), kind.value == 0)

    def extents(self, offset: int, length: int, since: str | None = None) -> list[tuple[int, int, bool]]:
        """Ranges that hold data, or that changed, as whole objects."""
        return self._diff(offset, length, since, parent=0, whole=1)

    def data(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        """Ranges that hold data, the parent's included."""
        return self._diff(offset, length, None, parent=1, whole=0)

    def _diff(
        self, offset: int, length: int, since: str | None, *, parent: int, whole: int
    ) -> list[tuple[int, int, bool]]:
        found: list[tuple[int, int, bool]] = []

        def add(start: int, size: int, exists: int, _: Any) -> int:
            found.append((start, size, bool(exists)))
            return 0

        at = None if since is None else since.encode()
        call = _EXTENT(add)
        answer = _RBD.rbd_diff_iterate2(self._handle, at, offset, length, parent, whole, call, None)
        _did(answer, f"ask what '{self._name}' holds")
        return sorted(found)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes; fewer at the end of the image."""
        buffer = ctypes.create_string_buffer(length)
        count = _did(_RBD.rbd_read2(self._handle, offset, length, buffer, 0), f"read '{self._name}'")
        return buffer.raw if count == length else buffer.raw[:count]

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``."""
        size = len(data)
        buffer = (c_char * size).from_buffer(data) if _writable(data) else c_char_p(bytes(data))
        _did(_RBD.rbd_write2(self._handle, offset, size, ctypes.cast(buffer, c_void_p), 0), f"write to '{self._name}'")

    def discard(self, offset: int, length: int) -> None:
        """Give a range back."""
        _did(_RBD.rbd_discard(self._handle, offset, length), f"discard in '{self._name}'")

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        _did(_RBD.rbd_write_zeroes(self._handle, offset, length, 0, 0), f"write zeros to '{self._name}'")

    def flush(self) -> None:
        """Return when what was written is in the cluster."""
        _did(_RBD.rbd_flush(self._handle), f"flush '{self._name}'")

    def resize(self, size: int, shrink: bool, progress: Progress) -> None:
        """Set the size."""
        _did(_RBD.rbd_resize2(self._handle, size, shrink, _progress(progress), None), f"resize '{self._name}'")

    def snapshot(self, name: str) -> None:
        """Make a snapshot."""
        _did(_RBD.rbd_snap_create(self._handle, name.encode()), f"make the snapshot '{self._name}@{name}'")

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot."""
        _did(_RBD.rbd_snap_remove(self._handle, name.encode()), f"remove the snapshot '{self._name}@{name}'")

    def protect(self, name: str) -> None:
        """Protect a snapshot."""
        _did(_RBD.rbd_snap_protect(self._handle, name.encode()), f"protect the snapshot '{self._name}@{name}'")

    def unprotect(self, name: str) -> None:
        """Take the protection away."""
        _did(_RBD.rbd_snap_unprotect(self._handle, name.encode()), f"unprotect the snapshot '{self._name}@{name}'")

    def flatten(self, progress: Progress) -> None:
        """Copy what the clone has from its parent."""
        _did(_RBD.rbd_flatten_with_progress(self._handle, _progress(progress), None), f"flatten '{self._name}'")

    def children(self) -> list[ImageName]:
        """Clones of its snapshots."""
        found, count = _listed(
            lambda array, n: _RBD.rbd_list_children3(self._handle, array, n),
            _LinkedImage,
            c_size_t(),
            "list the clones",
        )
        try:
            return [one.name() for one in found[:count]]
        finally:
            _RBD.rbd_linked_image_spec_list_cleanup(found, count)

    def watchers(self) -> list[str]:
        """Addresses of the clients that have it open to write."""
        found, count = _listed(
            lambda array, n: _RBD.rbd_watchers_list(self._handle, array, n), _Watcher, c_size_t(), "list the watchers"
        )
        try:
            return [_text(one.addr) for one in found[:count]]
        finally:
            _RBD.rbd_watchers_list_cleanup(found, count)

    def copy(self, target: LibraryImages, name: str, options: ImageOptions, progress: Progress) -> None:
        """Make an image with the same bytes."""
        with _options(options) as given:
            words = target.handle, name.encode(), given, _progress(progress), None
            _did(_RBD.rbd_copy_with_progress3(self._handle, *words), f"copy '{self._name}'")


def _writable(data: bytes | bytearray | memoryview) -> bool:
    return isinstance(data, bytearray) or (isinstance(data, memoryview) and not data.readonly)
