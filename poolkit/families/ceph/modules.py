"""librados and librbd by the distribution's modules ``rados`` and ``rbd``, which are made for one version of Python alone."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from poolkit.families.ceph.interface import CephError, Facts, ImageName, ImageOptions, Progress, Snapshot

try:
    import rados
    import rbd
except ImportError:  # of another Python, or not installed
    rados = rbd = None

PRESENT = rados is not None
"""Whether this Python has them; nothing else here can be used without."""
_KINDS: tuple[Any, ...] = (rados.Error, rbd.Error) if PRESENT else ()
_THREADS = 8  # that ask for versions: more gain nothing


@contextmanager
def _asked(what: str) -> Iterator[None]:
    try:
        yield
    except _KINDS as error:
        # A closed image and a wrong argument have no number.
        raise CephError(abs(int(getattr(error, "errno", None) or errno.EINVAL)), what) from None


class Connection:
    """A cluster, through the module ``rados``."""

    def __init__(self, user: str, settings: Mapping[str, str]) -> None:
        with _asked("make a client"):
            self._cluster = rados.Rados(rados_id=user, conffile=None, conf=dict(settings))
        try:
            with _asked("connect"):
                self._cluster.connect()
        except BaseException:
            self._cluster.shutdown()
            raise

    def close(self) -> None:
        """Disconnect."""
        self._cluster.shutdown()

    def space(self) -> tuple[int, int]:
        """Bytes of the cluster: all, and those that are free."""
        with _asked("ask for the sizes of the cluster"):
            found = self._cluster.get_cluster_stats()
        return found["kb"] * 1024, found["kb_avail"] * 1024

    @contextmanager
    def images(self, pool: str, namespace: str) -> Iterator[ModuleImages]:
        """The images of a pool."""
        with _asked(f"open the pool '{pool}'"):
            context = self._context(pool, namespace)
        try:
            if namespace:
                _require(context, namespace)
            yield ModuleImages(context, lambda: self._context(pool, namespace))
        finally:
            context.close()

    def _context(self, pool: str, namespace: str) -> Any:
        context = self._cluster.open_ioctx(pool)
        context.set_osdmap_full_try()  # as in poolkit.families.ceph.libraries
        context.set_namespace(namespace)
        return context


def _require(context: Any, namespace: str) -> None:
    """ENOENT for a namespace that is not there: its images would be listed as none. Who may not ask does not."""
    try:
        there = rbd.RBD().namespace_exists(context, namespace)
    except _KINDS as error:
        if getattr(error, "errno", None) not in (errno.EPERM, errno.EACCES):
            raise CephError(abs(int(error.errno or errno.EINVAL)), f"look for the namespace '{namespace}'") from None
        return
    if not there:
        raise CephError(errno.ENOENT, f"open the namespace '{namespace}'")


class ModuleImages:
    """Images of a pool, through the module ``rbd``."""

    def __init__(self, context: Any, another: Callable[[], Any]) -> None:
        self.context = context
        self._another = another
        self._rbd = rbd.RBD()

    def bytes_used(self) -> int:
        """Bytes that the pool's objects hold."""
        with _asked("ask for the size of the pool"):
            return int(self.context.get_stats()["num_bytes"])

    def names(self) -> dict[str, str]:
        """All images: name and identity."""
        with _asked("list the images"):
            return {one["name"]: one["id"] for one in self._rbd.list2(self.context)}

    def versions(self, objects: Sequence[str]) -> list[int]:
        """A number for each object that grows with every change of it."""
        from concurrent.futures import ThreadPoolExecutor

        pieces = [objects[start::_THREADS] for start in range(min(_THREADS, len(objects)))]
        found = [0] * len(objects)
        with ThreadPoolExecutor(_THREADS) as threads:
            for start, numbers in enumerate(threads.map(self._versions, pieces)):
                found[start::_THREADS] = numbers
        return found

    def _versions(self, objects: Sequence[str]) -> list[int]:
        """One after the other: the version of the last answer belongs to a context, so each thread has its own."""
        found = []
        with _asked("ask for versions"), self._another() as context:
            for name in objects:
                try:
                    context.stat(name)
                    found.append(int(context.get_last_version()))
                except rados.ObjectNotFound:
                    found.append(0)
        return found

    def create(self, name: str, size: int, options: ImageOptions) -> None:
        """Make an image of zeros."""
        with _asked(f"create '{name}'"):
            self._rbd.create(self.context, name, size, old_format=False, **options)

    def clone(self, name: str, snapshot: str, target: ModuleImages, new: str, options: ImageOptions) -> None:
        """Make an image that shares the data of a snapshot."""
        with _asked(f"clone '{name}@{snapshot}'"):
            self._rbd.clone(self.context, name, snapshot, target.context, new, **options)

    def put(self, name: str, data: bytes) -> None:
        """Make an object."""
        with _asked(f"make the object '{name}'"), rados.WriteOpCtx() as change:
            change.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            change.write_full(data)
            self.context.operate_write_op(change, name)

    def call(self, name: str, kind: str, method: str, data: bytes) -> None:
        """Call a method of an object's class."""
        with _asked(f"call '{method}'"):
            self.context.execute(name, kind, method, data)

    def drop(self, name: str) -> None:
        """Remove an object."""
        with _asked(f"remove the object '{name}'"):
            self.context.remove_object(name)

    def remove(self, name: str, progress: Progress) -> None:
        """Remove an image."""
        with _asked(f"remove '{name}'"):
            self._rbd.remove(self.context, name, on_progress=_told(progress))

    @contextmanager
    def open(self, name: str, *, snapshot: str | None = None, write: bool = False) -> Iterator[ModuleImage]:
        """An image, open as long as the body."""
        with _asked(f"open '{name}'"):
            image = rbd.Image(self.context, name, snapshot=snapshot, read_only=not write)
        try:
            yield ModuleImage(image, name)
        finally:
            image.close()


def _told(progress: Progress) -> Any:
    def tell(done: int, total: int) -> int:
        progress(done, total)
        return 0

    return tell


class ModuleImage:
    """An open image, through the module ``rbd``."""

    def __init__(self, image: Any, name: str) -> None:
        self._image = image
        self._name = name

    def facts(self) -> Facts:
        """What it is now."""
        with _asked(f"look at '{self._name}'"):
            image, stat = self._image, self._image.stat()
            ident = "" if image.old_format() else image.id()
            parent: tuple[ImageName, str] | None = None
            try:
                spec = image.get_parent_image_spec()
                parent = ImageName(spec["pool_name"], spec["pool_namespace"], spec["image_name"]), spec["snap_name"]
            except rbd.ImageNotFound:
                pass
            return Facts(ident, stat["size"], stat["order"], stat["num_objs"], image.features(), image.flags(), parent)

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, the oldest first."""
        with _asked(f"list the snapshots of '{self._name}'"):
            found = []
            for one in self._image.list_snaps():
                user = self._image.snap_get_namespace_type(one["id"]) == rbd.RBD_SNAP_NAMESPACE_TYPE_USER
                protected = user and self._image.is_protected_snap(one["name"])
                found.append(Snapshot(one["id"], one["name"], protected, user))
            return found

    def extents(self, offset: int, length: int, since: str | None = None) -> list[tuple[int, int, bool]]:
        """Ranges that hold data, or that changed, as whole objects."""
        return self._diff(offset, length, since, include_parent=False, whole_object=True)

    def data(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        """Ranges that hold data, the parent's included."""
        return self._diff(offset, length, None, include_parent=True, whole_object=False)

    def _diff(self, offset: int, length: int, since: str | None, **how: bool) -> list[tuple[int, int, bool]]:
        found: list[tuple[int, int, bool]] = []
        with _asked(f"ask what '{self._name}' holds"):
            self._image.diff_iterate(
                offset, length, since, lambda start, size, exists: found.append((start, size, bool(exists))), **how
            )
        return sorted(found)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes; fewer at the end of the image."""
        with _asked(f"read '{self._name}'"):
            return bytes(self._image.read(offset, length))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``."""
        with _asked(f"write to '{self._name}'"):
            self._image.write(bytes(data), offset)

    def discard(self, offset: int, length: int) -> None:
        """Give a range back."""
        with _asked(f"discard in '{self._name}'"):
            self._image.discard(offset, length)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        with _asked(f"write zeros to '{self._name}'"):
            self._image.write_zeroes(offset, length)

    def flush(self) -> None:
        """Return when what was written is in the cluster."""
        with _asked(f"flush '{self._name}'"):
            self._image.flush()

    def resize(self, size: int, shrink: bool, progress: Progress) -> None:
        """Set the size; these modules do not tell its progress."""
        with _asked(f"resize '{self._name}'"):
            self._image.resize(size, allow_shrink=shrink)

    def snapshot(self, name: str) -> None:
        """Make a snapshot."""
        with _asked(f"make the snapshot '{self._name}@{name}'"):
            self._image.create_snap(name)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot."""
        with _asked(f"remove the snapshot '{self._name}@{name}'"):
            self._image.remove_snap(name)

    def protect(self, name: str) -> None:
        """Protect a snapshot."""
        with _asked(f"protect the snapshot '{self._name}@{name}'"):
            self._image.protect_snap(name)

    def unprotect(self, name: str) -> None:
        """Take the protection away."""
        with _asked(f"unprotect the snapshot '{self._name}@{name}'"):
            self._image.unprotect_snap(name)

    def flatten(self, progress: Progress) -> None:
        """Copy what the clone has from its parent."""
        with _asked(f"flatten '{self._name}'"):
            self._image.flatten(on_progress=_told(progress))

    def children(self) -> list[ImageName]:
        """Clones of its snapshots."""
        with _asked(f"list the clones of '{self._name}'"):
            return [ImageName(one["pool"], one["pool_namespace"], one["image"]) for one in self._image.list_children2()]

    def watchers(self) -> list[str]:
        """Addresses of the clients that have it open to write."""
        with _asked(f"list the watchers of '{self._name}'"):
            return [one["addr"] for one in self._image.watchers_list()]

    def copy(self, target: ModuleImages, name: str, options: ImageOptions, progress: Progress) -> None:
        """Make an image with the same bytes; these modules do not tell its progress."""
        with _asked(f"copy '{self._name}'"):
            self._image.copy(target.context, name, **options)
