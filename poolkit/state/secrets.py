"""Secrets: what opens an encrypted volume or proves who we are to a server, found by uuid or by what they are for.

The description of a secret is a document (:class:`poolkit.documents.Secret`); its value is in a file of its own, mode 0600 in
a folder of mode 0700. An *ephemeral* secret is kept in memory (tmpfs) alone. The value of
a *private* secret is used by poolkit and given to nobody. A description may instead say where the value is
(:mod:`poolkit.state.references`); then nothing of it is kept here.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from poolkit import errors
from poolkit.host import private
from poolkit.host.descriptors import read_at, sync_directory
from poolkit.state import references
from poolkit.state.locks import Locks

if TYPE_CHECKING:
    from poolkit import documents
    from poolkit.host.port import Host
    from poolkit.state.store import Locations

LARGEST = 65536
"""Bytes of a value, as in libvirt's protocol (VIR_SECRET_VALUE_MAX)."""


class Passphrase:
    """A value that never prints itself: not in messages, not in tracebacks, not pickled. ``reveal`` gives the bytes."""

    __slots__ = ("__value",)

    def __init__(self, value: bytes) -> None:
        self.__value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes."""
        return self.__value

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Passphrase) and hmac.compare_digest(self.__value, other.__value)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class Secret:
    """One defined secret; every call looks at the files as they are."""

    __slots__ = ("_store", "changed", "definition")

    def __init__(self, store: Secrets, definition: Any, changed: bool = False) -> None:
        self._store = store
        self.definition = definition
        self.changed = changed

    def __repr__(self) -> str:
        return f"<Secret {self.uuid}>"

    @property
    def uuid(self) -> str:
        """The identity, in canonical form."""
        return str(self.definition.uuid)

    @property
    def usage(self) -> tuple[str, str] | None:
        """What it is for: (type, name), such as ("volume", "/srv/a.img"); None for nothing in particular."""
        usage = self.definition.usage
        return None if usage is None else (usage.type, usage.id)

    @property
    def has_value(self) -> bool:
        """Whether a value was set, or is where the description says."""
        if self.definition.value is not None:
            return references.there(self.definition.value)
        return os.path.exists(self._store.value_path(self.definition))

    def xml(self) -> str:
        """The description as libvirt prints it, without the value."""
        from poolkit import xmlmap

        return xmlmap.write(self.definition)

    def set_value(self, value: bytes | Passphrase) -> bool:
        """Set the value, 1 to 65536 bytes. Returns whether it differs from what was there. Durable; repeatable.

        ``InvalidState`` for a secret whose value is elsewhere.
        """
        if self.definition.value is not None:
            raise errors.InvalidState(
                f"the value of secret {self.uuid} is not kept here: its description says where it is",
                hint="change it there, or undefine the secret and define it without <pks:value>",
            )
        data = value.reveal() if isinstance(value, Passphrase) else value
        if not 0 < len(data) <= LARGEST:
            raise errors.InvalidArgument(f"the value of a secret has 1 to {LARGEST} bytes, not {len(data)}")
        with self._store._changing():
            return self._store.write(self.definition, data)

    def refer_to(self, *, file: str | None = None, credential: str | None = None) -> bool:
        """Have the value read from a file (absolute path) or a credential of systemd from now on. Returns whether that is new.

        ``InvalidState`` while a value is kept here: it is not thrown away. Repeatable.
        """
        import dataclasses

        from poolkit import documents, xmlmap

        source = documents.ValueSource(file=file, credential=credential)
        text = xmlmap.write(dataclasses.replace(self.definition, value=source))
        made = self._store.define(text)  # as a document, so that it is checked as one
        self.definition = made.definition
        return made.changed

    def value(self) -> Passphrase:
        """The value; ``SecretNotFound`` if none was set, ``Unsafe`` for a private secret."""
        if self.definition.private:
            raise errors.Unsafe(f"secret {self.uuid} is private: its value is not given out")
        return Passphrase(self._store.read(self.definition))

    def undefine(self) -> bool:
        """Delete the value and the description. False if it was gone already."""
        with self._store._changing():
            return self._store.remove(self.definition)


class Secrets:
    """The store of secrets of one engine."""

    def __init__(self, locations: Locations, host: Host) -> None:
        self.directory = locations.secrets
        self.memory = _memory(locations.run)
        self._locks = Locks(f"{locations.run}/work")
        self.host = host
        self.damaged: list[str] = []
        """After ``list``: what is wrong with files that were passed over."""

    @contextlib.contextmanager
    def _changing(self, swept: list[str] | None = None) -> Iterator[None]:
        """One change at a time, over all processes; ``swept`` gets what dead ones had left."""
        if self.host.dry_run:
            yield
            return
        with self._locks.secrets():
            try:
                lines = self._sweep()
                if swept is not None:
                    swept += lines
                yield
            except OSError as error:
                raise errors.from_os_error(error, "change a secret") from error

    def left_over(self) -> list[str]:
        """The unfinished files of whoever works on secrets now or died in it; they may hold values."""
        return [path for folder in (self.directory, self.memory) for path in temporaries(folder)]

    def recover(self) -> list[str]:
        """Remove what processes left that died while they changed a secret; a line for each file. Every change does so, too."""
        if self.host.dry_run or not self.left_over():
            return []
        swept: list[str] = []
        with self._changing(swept):
            return swept

    def _sweep(self) -> list[str]:
        # Whoever holds the lock has not begun, and nobody else is at work: these are of the dead.
        lines = []
        for path in self.left_over():
            os.unlink(path)
            sync_directory(os.path.dirname(path))
            lines.append(f"removed: '{path}', left by a process that died while it changed a secret")
        return lines

    def define(
        self,
        source: str | bytes | os.PathLike[str] | documents.Secret,
        *,
        filename: str = "<string>",
        strict: bool = True,
    ) -> Secret:
        """Store a description; a uuid is made where none is given. ``changed`` tells whether anything did.

        Repeatable. Raises ``InvalidDefinition``, and ``SecretExists`` when uuid or usage belong to another secret.
        """
        from poolkit import documents, xmlmap

        definition = xmlmap.definition_alone(xmlmap.given(source, documents.Secret, filename=filename, strict=strict))
        with self._changing():
            return self._define(definition)

    def _define(self, definition: Any) -> Secret:
        import dataclasses
        import uuid

        known = self.list()
        usage = definition.usage
        same_usage = next((s for s in known if usage is not None and s.definition.usage == usage), None)
        if definition.uuid is None:
            made = same_usage.uuid if same_usage is not None else str(uuid.uuid4())
            definition = dataclasses.replace(definition, uuid=made)
        old = next((s for s in known if s.uuid == definition.uuid), None)
        if same_usage is not None and same_usage.uuid != definition.uuid:
            raise errors.SecretExists(
                f"secret {same_usage.uuid} is for {usage.type} '{usage.id}' already", hint="undefine that one first"
            )
        if old is not None:
            if old.definition.usage != usage:
                raise errors.SecretExists(
                    f"secret {old.uuid} exists and is for something else",
                    hint="undefine it first, or leave out the uuid",
                )
            if old.definition.private and not definition.private:
                raise errors.Unsafe(f"secret {old.uuid} is private and stays so", hint="undefine it first")
            if old.definition.ephemeral != definition.ephemeral:
                raise errors.SecretExists(f"secret {old.uuid} exists and is kept elsewhere", hint="undefine it first")
            if old.definition == definition:
                return old
            if definition.value is not None and old.definition.value is None and old.has_value:
                raise errors.InvalidState(
                    f"secret {old.uuid} has a value that is kept here, and is to get one from elsewhere",
                    hint=errors.Hint("to give up the one that is kept: ", errors.remedy("secret-undefine", old.uuid)),
                )
        from poolkit import xmlmap

        host = self.host.operation()
        self._make_folder(definition, host)
        host.files.write(self._path(definition, "xml"), xmlmap.write(definition).encode(), 0o600)
        return Secret(self, definition, True)

    def list(self) -> list[Secret]:
        """All secrets, by uuid."""
        from poolkit import documents, xmlmap

        found = []
        self.damaged.clear()
        private.check(self.directory)
        for folder in (self.directory, self.memory):
            try:
                if folder == self.memory and os.stat(folder, follow_symlinks=False).st_uid != os.geteuid():
                    continue  # anybody may make a folder in shared memory
                names = sorted(os.listdir(folder))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise errors.from_os_error(error, f"read the folder '{folder}'") from error
            for name in names:
                if not name.endswith(".xml") or name[0] == ".":
                    continue
                path = f"{folder}/{name}"
                try:
                    with open(private.open_ours(path), "rb") as file:
                        data = file.read(1 << 20)
                    definition = xmlmap.read(data, [documents.Secret], filename=path, strict=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self.damaged.append(str(errors.from_os_error(error, f"read '{path}'")))
                except (errors.InvalidDefinition, errors.Unsafe) as error:
                    # One that was damaged by hand must not hide the others.
                    self.damaged.append(str(error))
                else:
                    found.append(Secret(self, definition))
        return sorted(found, key=lambda s: s.uuid)

    def find(self, key: str, type: str | None = None) -> Secret:
        """A secret by uuid, or by the name of its usage; ``SecretNotFound``.

        ``type`` is what it must be for: a name may stand for a volume and for a Ceph user at once, and a uuid of the wrong kind
        is ``Unsafe``, since its value would be given to a program that it was not meant for. Without a type a name that
        several secrets have is an ``InvalidArgument``.
        """
        import uuid

        try:
            canonical = str(uuid.UUID(key))
        except ValueError:
            canonical = ""
        known = self.list()
        for secret in known:
            if secret.uuid == canonical:
                if type is not None and secret.usage is not None and secret.usage[0] != type:
                    raise errors.Unsafe(
                        f"secret {secret.uuid} is of type '{secret.usage[0]}', not '{type}'",
                        hint=f"define one with <usage type='{type}'>",
                    )
                return secret
        named = [s for s in known if s.usage is not None and s.usage[1] == key and type in (None, s.usage[0])]
        if len(named) == 1:
            return named[0]
        if named:
            raise errors.InvalidArgument(
                f"'{errors.shown(key)}' is the name of {len(named)} secrets",
                hint="name one by its uuid: " + ", ".join(f"{s.uuid} ({s.usage[0]})" for s in named if s.usage),
            )
        import difflib

        names = {s.usage[1] for s in known if s.usage is not None and type in (None, s.usage[0])} | {
            s.uuid for s in known
        }
        near = difflib.get_close_matches(key[:255], names, 1)
        raise errors.SecretNotFound(
            f"there is no secret '{errors.shown(key)}'",
            hint=f"did you mean '{near[0]}'?"
            if near
            else errors.Hint("define it: ", errors.remedy("secret-define", ...)),
        )

    def lookup(self, type: str, uuid: str | None, usage: str | None) -> bytes:
        """The value, for a backend at work; private ones as well. Found and refused as :meth:`find` does."""
        return self.read(self.find(uuid or usage or "", type).definition)

    # -- files --------------------------------------------------------------------------------------------------------

    def _folder(self, definition: Any) -> str:
        return self.memory if definition.ephemeral else self.directory

    def _path(self, definition: Any, kind: str) -> str:
        return f"{self._folder(definition)}/{definition.uuid}.{kind}"

    def _make_folder(self, definition: Any, host: Host) -> None:
        folder = self._folder(definition)
        try:
            host.files.mkdir(folder, 0o700, keep=True)
            private.check(folder)
            if not definition.ephemeral or host.dry_run:
                return
            facts = os.stat(folder, follow_symlinks=False)
        except OSError as error:
            raise errors.from_os_error(error, f"make the folder '{folder}'") from error
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise errors.Unsafe(f"'{folder}' is not for this user alone; the secret was not stored")
        if not _in_memory(folder):
            raise errors.Unsupported(
                "this system has no place in memory (tmpfs) for an ephemeral secret",
                hint="define it without ephemeral='yes', or mount a tmpfs on /dev/shm",
            )

    def value_path(self, definition: Any) -> str:
        """The file of the value, whether or not it exists."""
        return self._path(definition, "value")

    def read(self, definition: Any) -> bytes:
        """The value; ``SecretNotFound`` without one, ``Unsafe`` if others than the owner could read or replace it."""
        if definition.value is not None:
            return references.read(definition.value, str(definition.uuid), LARGEST)
        path = self.value_path(definition)
        try:
            fd = private.open_ours(path)
        except FileNotFoundError:
            raise errors.SecretNotFound(
                f"secret {definition.uuid} has no value",
                hint=errors.Hint("set it: ", errors.remedy("secret-set-value", definition.uuid)),
            ) from None
        except OSError as error:
            raise errors.from_os_error(error, f"read the value of secret {definition.uuid}") from error
        try:
            facts = os.fstat(fd)
            if stat.S_IMODE(facts.st_mode) & 0o077:
                raise errors.Unsafe(
                    f"the value of secret {definition.uuid} can be read by others", hint=f"chmod 600 '{path}'"
                )
            return read_at(fd, LARGEST, 0)
        finally:
            os.close(fd)

    def write(self, definition: Any, data: bytes) -> bool:
        """Store a value durably; False if it is that already."""
        try:
            if hmac.compare_digest(self.read(definition), data):
                return False
        except (errors.SecretNotFound, errors.Unsafe):
            pass
        host = self.host.operation()
        self._make_folder(definition, host)
        host.files.write(self.value_path(definition), data, 0o600)
        return True

    def remove(self, definition: Any) -> bool:
        """Remove value and description; False if there was no description any more."""
        host = self.host.operation()
        try:
            folder = host.directory(self._folder(definition))
        except FileNotFoundError:
            return False
        with folder:
            # For good: a value that could be put back would still be there. The value first, so that none is left behind.
            host.files.remove(folder, f"{definition.uuid}.value")
            return host.files.remove(folder, f"{definition.uuid}.xml")


def temporaries(folder: str) -> list[str]:
    """The unfinished files in one of poolkit's own folders. ``HostError``."""
    from poolkit.host.directory import TEMPORARY

    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.startswith(TEMPORARY)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise errors.from_os_error(error, f"read the folder '{folder}'") from error


def _memory(run: str) -> str:
    """Where ephemeral secrets are kept: with the run state if that is in memory, else in shared memory."""
    if _in_memory(run):
        return f"{run}/secrets"
    import hashlib

    return f"/dev/shm/poolkit-{os.geteuid()}-{hashlib.sha256(run.encode()).hexdigest()[:16]}"  # noqa: S108 - checked on use


def _in_memory(path: str) -> bool:
    from poolkit.host.mounts import locate
    from poolkit.host.port import Host

    mount = locate(path, Host().mounts())[1]
    return mount is not None and mount.fstype in ("tmpfs", "ramfs")
