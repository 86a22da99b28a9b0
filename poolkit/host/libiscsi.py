"""iSCSI without the kernel's initiator: sessions of this process with a target, through the library libiscsi.

Only what a pool needs is here: logging in, the lists of targets and of logical units, INQUIRY, capacity, reading and writing
of whole blocks. The library is Debian's ``libiscsi7``; its structures are those of ``scsi-lowlevel.h`` of libiscsi 1.17 to
1.20, which share that number. Everything waits for the target, ``TIMEOUT`` seconds at most for each command.
"""

from __future__ import annotations

import ctypes
import functools
import re
from typing import Any, NamedTuple, Self

from poolkit import errors

LIBRARY = "libiscsi.so.7"
PACKAGE = "libiscsi7"
TIMEOUT = 10
"""Seconds that a target has for each answer."""

_SYN_TRIES = 2  # of a connection, after the first: 1 + 2 + 4 seconds (tcp(7), TCP_SYNCNT)
_DISCOVERY, _NORMAL = 1, 2  # enum iscsi_session_type
_DIGEST_EITHER = 1  # ISCSI_HEADER_DIGEST_NONE_CRC32C
_GOOD, _CHECK, _BUSY, _RESERVED, _FULL = 0x00, 0x02, 0x08, 0x18, 0x28  # enum scsi_status
_CANCELLED, _ERROR, _TIMED_OUT = 0x0F000000, 0x0F000001, 0x0F000002
_NOT_READY, _ILLEGAL, _ATTENTION, _PROTECTED = 0x02, 0x05, 0x06, 0x07  # sense keys
_NO_UNIT = 0x25  # additional sense code LOGICAL UNIT NOT SUPPORTED
_TRIES = 8  # of a command that the unit puts off: after a reset, or because its queue is full
_REFUSED, _UNKNOWN = (0x0201, 0x0202), (0x0203, 0x0204)  # login status (RFC 7143, 11.13.5): class and detail


class _Sense(ctypes.Structure):
    """struct scsi_sense; its three bits share a byte."""

    _fields_ = (
        ("error_type", ctypes.c_ubyte), ("key", ctypes.c_int), ("ascq", ctypes.c_int), ("bits", ctypes.c_ubyte),
        ("bit_pointer", ctypes.c_ubyte), ("field_pointer", ctypes.c_uint16),
    )  # fmt: skip


class _Task(ctypes.Structure):
    """struct scsi_task, as far as its data."""

    _fields_ = (
        ("status", ctypes.c_int), ("cdb_size", ctypes.c_int), ("xfer_dir", ctypes.c_int), ("expxferlen", ctypes.c_int),
        ("cdb", ctypes.c_ubyte * 16), ("residual_status", ctypes.c_int), ("residual", ctypes.c_size_t), ("sense", _Sense),
        ("size", ctypes.c_int), ("data", ctypes.c_void_p),
    )  # fmt: skip


class _Found(ctypes.Structure):
    """struct iscsi_discovery_address."""


_Found._fields_ = (
    ("next", ctypes.POINTER(_Found)), ("name", ctypes.c_char_p), ("portals", ctypes.c_void_p),
)  # fmt: skip


class Capacity(NamedTuple):
    """How many blocks a unit has, how many bytes each, and whether it gets its space as it is written."""

    blocks: int
    block: int
    thin: bool


class Refused(errors.HostError):
    """The unit does not know the command, or not with these values."""


class Gone(errors.HostError):
    """The target has no such unit any more."""


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise errors.ToolMissing(
            f"the library {LIBRARY} is not installed", argv=[LIBRARY], hint=f"on Debian: apt install {PACKAGE}"
        ) from error
    library.iscsi_create_context.restype = ctypes.c_void_p
    library.iscsi_get_error.restype = ctypes.c_char_p
    library.iscsi_discovery_sync.restype = ctypes.POINTER(_Found)
    for name in ("reportluns", "inquiry", "readcapacity16", "read16", "write16", "writesame16", "synchronizecache16"):
        getattr(library, f"iscsi_{name}_sync").restype = ctypes.POINTER(_Task)
    return library


class Session:
    """A session with a target; without a target's name, one in which a portal is asked for its targets.

    ``portal`` is address and port, ``login`` what we say and what the target has to say (two names and two passwords, empty for
    none), ``start`` how errors begin (``pool 'luns': ``). Use as a context manager: ``Unreachable``, ``LoginRefused`` or
    ``NotFound`` when it begins.
    """

    def __init__(
        self, portal: str, initiator: str, target: str | None, *, login: tuple[str, str, str, str] = ("",) * 4, start: str = ""
    ) -> None:  # fmt: skip
        self._library = _library()
        self._portal, self._initiator, self._target = portal, initiator, target
        self._login, self._start = login, start
        self._context: Any = None
        self._silent = False

    def __enter__(self) -> Self:
        """Connect and log in."""
        library = self._library
        context = library.iscsi_create_context(self._initiator.encode())
        if not context:
            raise errors.HostError(f"{self._start}no memory for a session with the portal {self._portal}")
        self._context = ctypes.c_void_p(context)
        try:
            library.iscsi_set_timeout(self._context, TIMEOUT)
            library.iscsi_set_tcp_syncnt(self._context, _SYN_TRIES)
            library.iscsi_set_noautoreconnect(self._context, 1)
            library.iscsi_set_session_type(self._context, _NORMAL if self._target else _DISCOVERY)
            library.iscsi_set_header_digest(self._context, _DIGEST_EITHER)
            if self._target:
                library.iscsi_set_targetname(self._context, self._target.encode())
            name, secret, name_in, secret_in = (text.encode() for text in self._login)
            if name:
                library.iscsi_set_initiator_username_pwd(self._context, name, secret)
            if name_in:
                library.iscsi_set_target_username_pwd(self._context, name_in, secret_in)
            if library.iscsi_connect_sync(self._context, self._portal.encode()):
                raise self._unreachable()
            if library.iscsi_login_sync(self._context):
                raise self._refused()
        except BaseException:
            self._destroy()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Log out; a target that does not answer is left."""
        if not self._silent:
            self._library.iscsi_logout_sync(self._context)
        self._destroy()

    def _destroy(self) -> None:
        if self._context is not None:
            self._library.iscsi_destroy_context(self._context)
            self._context = None

    # -- errors -------------------------------------------------------------------------------------------------------

    def _words(self) -> str:
        said = (self._library.iscsi_get_error(self._context) or b"").decode("utf-8", "backslashreplace").strip()
        for word in filter(None, (self._login[1], self._login[3])):
            said = said.replace(word, "***")
        return " ".join(word for word in said.split() if word.isprintable())

    def _unreachable(self) -> errors.Unreachable:
        self._silent = True
        return errors.Unreachable(
            f"{self._start}the portal {self._portal} does not answer",
            hint="is a target up there, and does a firewall let it answer?",
        )

    def _refused(self) -> errors.PoolkitError:
        words = self._words()
        target = f"the target '{self._target}'" if self._target else "its list of targets"
        status = int(found[1]) if (found := re.search(r"\((\d+)\)", words)) else 0
        if status in _REFUSED or "uthentication" in words or "CHAP" in words:
            who = f" as '{self._login[0]}'" if self._login[0] else " without a password"
            return errors.LoginRefused(f"{self._start}the portal {self._portal} refused the login{who} to {target}")
        if status in _UNKNOWN:
            return errors.NotFound(f"{self._start}the portal {self._portal} does not have {target} for this initiator")
        if status:
            return errors.HostError(f"{self._start}the portal {self._portal} refused the login to {target}: {words}")
        return self._unreachable()

    # -- commands -----------------------------------------------------------------------------------------------------

    def targets(self) -> list[str]:
        """The names of the portal's targets, each once; one that cannot be printed is left out."""
        first = self._library.iscsi_discovery_sync(self._context)
        if not first and self._words():
            raise self._unreachable()
        names, here = [], first
        while here:
            names.append((here.contents.name or b"").decode("utf-8", "backslashreplace"))
            here = here.contents.next
        if first:
            self._library.iscsi_free_discovery_data(self._context, first)
        return [name for name in dict.fromkeys(names) if name.isprintable()]

    def units(self) -> list[int]:
        """The logical units that the target reports: the first two bytes of each number, as the commands take them."""
        size = 16 + 8 * 256
        while True:
            data = self._command("reportluns", 0, size)
            needed = 8 + int.from_bytes(data[:4], "big")
            if needed <= size:
                return [int.from_bytes(data[at : at + 2], "big") for at in range(8, min(needed, len(data)) - 7, 8)]
            size = needed

    def inquiry(self, unit: int, page: int | None = None) -> bytes:
        """The standard inquiry data, or a page of the vital product data. ``Refused`` for a page that the unit does not have."""
        return self._command("inquiry", unit, int(page is not None), page or 0, 255 if page is None else 4096)

    def capacity(self, unit: int) -> Capacity:
        """The unit's size, by READ CAPACITY (16)."""
        data = self._command("readcapacity16", unit)
        last, block = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:12], "big")
        return Capacity(last + 1, block, bool(data[14] & 0x80))  # LBPME

    def read(self, unit: int, first: int, count: int, block: int) -> bytes:
        """So many blocks from number ``first`` on."""
        data = self._command(
            "read16", unit, ctypes.c_uint64(first), ctypes.c_uint32(count * block), block, 0, 0, 0, 0, 0
        )
        if len(data) != count * block:
            raise errors.HostError(f"{self._start}the target sent {len(data)} of {count * block} bytes")
        return data

    def write(self, unit: int, first: int, data: bytes, block: int) -> None:
        """Whole blocks from number ``first`` on."""
        length = ctypes.c_uint32(len(data))
        self._command("write16", unit, ctypes.c_uint64(first), ctypes.c_char_p(data), length, block, 0, 0, 0, 0, 0)

    def zero(self, unit: int, first: int, count: int, block: int, *, unmap: bool = False) -> None:
        """Make blocks read as zeros, giving their space back with ``unmap``. ``Refused`` by units that cannot (WRITE SAME)."""
        zeros = bytes(block)
        self._command(
            "writesame16", unit, ctypes.c_uint64(first), ctypes.c_char_p(zeros), ctypes.c_uint32(block),
            ctypes.c_uint32(count), 0, int(unmap), 0, 0,
        )  # fmt: skip

    def flush(self, unit: int) -> None:
        """Have the unit write what it keeps in a cache; one that has none may not know the command."""
        try:
            self._command("synchronizecache16", unit, ctypes.c_uint64(0), ctypes.c_uint32(0), 0, 0)
        except Refused:
            pass

    def _command(self, name: str, *arguments: Any) -> bytes:
        for _ in range(_TRIES):
            task = getattr(self._library, f"iscsi_{name}_sync")(self._context, *arguments)
            if not task:
                raise self._unreachable()
            try:
                found = task.contents
                if found.status == _GOOD:
                    return ctypes.string_at(found.data, found.size) if found.data and found.size > 0 else b""
                status, key, code = found.status, found.sense.key, found.sense.ascq >> 8
            finally:
                self._library.scsi_free_scsi_task(task)
            put_off = status in (_BUSY, _FULL) or (status == _CHECK and key == _ATTENTION)
            if not put_off:
                break
        raise self._failure(name, status, key, code)

    def _failure(self, name: str, status: int, key: int, code: int) -> errors.PoolkitError:
        if status in (_CANCELLED, _ERROR, _TIMED_OUT):
            return self._unreachable()
        if status == _RESERVED:
            return errors.Busy(f"{self._start}another initiator has reserved the logical unit")
        if status == _CHECK and code == _NO_UNIT:
            return Gone(f"{self._start}the target has no such logical unit any more")
        if status == _CHECK and key == _ILLEGAL:
            return Refused(f"{self._start}the logical unit does not know the command {name}")
        if status == _CHECK and key == _PROTECTED:
            return errors.Unsafe(f"{self._start}the logical unit is read-only, as its target has it")
        return errors.HostError(
            f"{self._start}the logical unit failed ({name}: {self._words() or f'status {status:#x}, sense {key:#x}/{code:#x}'})"
        )
