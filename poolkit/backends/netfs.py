"""Pools of type ``netfs``: an exported directory of a server, mounted at a directory whose files are the volumes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from poolkit import errors
from poolkit.backend import DiskSource, Erased, State, VolumeInfo
from poolkit.backends.fs import FS_NAMESPACE, MountOption
from poolkit.families import mounting, mountoptions, servers
from poolkit.families.filepool import FileBackend
from poolkit.host import worker
from poolkit.host.mounts import Mount, export
from poolkit.host.port import Host
from poolkit.host.toolwords import sentence
from poolkit.model import AuthSecret, Permissions, Pool, PoolTarget, SourceHost, product, vendor
from poolkit.xmlmap import Element, simple, xml
from poolkit.xmlmap.rules import only_with


class SmbAuth(Element):
    """How to log in to a server of SMB."""

    type: Literal["smb"] = xml("@type", effect="acted", doc="smb.")
    username: str = xml("@username", type=simple.Text, effect="acted", doc="User name; the domain is a mount option.")
    secret: AuthSecret = xml("secret", doc="Where the password is: a secret whose usage is of type smb.")


class NetfsSource(Element):
    """The servers, the exported directory and the protocol."""

    rules = (
        only_with(
            "protocol_version",
            "format",
            ("auto", "nfs"),
            ("glusterfs", "cifs"),
            paths=("protocol/@ver", "format/@type"),
        ),
    )
    hosts: tuple[SourceHost, ...] = xml("host", min=1, since="0.4.1", doc="Servers that export the directory.")
    dir: str = xml(
        "dir/@path",
        type=simple.Path,
        since="0.4.1",
        effect="acted",
        doc="The exported directory, share or gluster volume.",
    )
    format: Literal["auto", "nfs", "glusterfs", "cifs"] = xml(
        "format/@type", default="auto", since="0.4.1", effect="acted", doc="Protocol; auto means nfs."
    )
    protocol_version: str | None = xml(
        "protocol/@ver",
        type=simple.NfsVersion,
        default=None,
        since="5.1.0",
        effect="acted",
        doc="NFS version, such as 4.2; nfs and auto only.",
    )
    auth: SmbAuth | None = xml("auth", default=None, doc="Login; cifs only. As guest without it.")
    vendor: str | None = vendor()
    product: str | None = product()


class NetfsPool(Pool):
    """A directory that a server exports."""

    type: ClassVar[str] = "netfs"
    first: ClassVar[str | None] = "0.4.1"
    namespaces: ClassVar[dict[str, str]] = {"fs": FS_NAMESPACE}
    # libvirt reads the logins of other pool types, and does nothing with them here.
    spare_types: ClassVar[dict[str, tuple[str, ...]]] = {"source/auth": ("chap", "ceph")}
    source: NetfsSource = xml("source", doc="The server and its directory.")
    target: PoolTarget = xml("target", doc="The mount point.")
    mount_options: tuple[MountOption, ...] = xml(
        "fs:mount_opts/fs:option", default=(), since="5.1.0", doc="Further options of mount(8)."
    )
    volume_defaults: Permissions | None = xml(
        "pk:volumes/pk:permissions", default=None, doc="Mode, owner and group of new volumes that do not say their own."
    )


_FSTYPES = {"nfs": ("nfs", "nfs4"), "cifs": ("cifs", "smb3"), "glusterfs": ("fuse.glusterfs",)}
MOUNT_TIMEOUT = 30.0
"""Seconds for mount(8), which may try several protocols one after another."""


class NetfsBackend(FileBackend):
    """Files of a server's directory that the pool mounts.

    Whatever touches the mounted directory may hang: nothing in this process can be given up when the server stops answering.
    What only asks the kernel's table of mounts cannot.
    """

    type = "netfs"
    offers = ("thin", "encryption", "shared")
    needs_root = ("start",)
    definition = NetfsPool
    usual_target = "/mnt/{name}"
    tools = bytewise = ("mount", "umount")
    packages: ClassVar[Mapping[str, str]] = {
        "mount.nfs": "nfs-common", "showmount": "nfs-common", "mount.cifs": "cifs-utils", "mount.glusterfs": "glusterfs-client",
        "gluster": "glusterfs-cli",
    }  # fmt: skip
    source_formats = ("auto", "nfs", "glusterfs", "cifs")
    trust_blocks = False
    may_hang = (
        "live", "volumes", "usage", "look", "create", "clone", "resize", "permit", "delete", "wipe", "upload", "download",
        "open_volume",
    )  # fmt: skip

    @property
    def kind(self) -> str:
        """The protocol; ``auto`` means nfs."""
        format: str = self.pool.source.format
        return "nfs" if format == "auto" else format

    def disk_source(self, info: VolumeInfo) -> DiskSource:
        """As any file; the page cache of this host is left out, so that a machine can move to another one that mounts it."""
        return super().disk_source(info)._replace(cache="none")

    def claims(self) -> Iterable[str]:
        """The target, and the directory on each of its servers. Refuses what could never be mounted."""
        self.options(None)
        return (*super().claims(), *(f"export {source}" for source in self.sources()))

    def sources(self) -> list[str]:
        """What mount(8) is told to mount, from each of the servers in order."""
        dir = servers.check_dir(self.pool.name, self.kind, self.pool.source.dir)
        return [
            servers.spell(self.kind, servers.check_host(self.pool.name, host.name), dir)
            for host in self.pool.source.hosts
        ]

    def options(self, host: SourceHost | None) -> list[str]:
        """The definition's mount options, checked, with what the definition says elsewhere and the protocol needs."""
        given = mountoptions.check(self.pool.name, self.kind, (option.name for option in self.pool.mount_options))
        names = {option.partition("=")[0] for option in given}
        if self.kind == "glusterfs":
            self._check_gluster()
        if self.kind != "cifs" and self.pool.source.auth is not None:
            raise errors.InvalidArgument(
                f"pool '{self.pool.name}': a login by <auth> is for the format cifs, not {self.kind}", pool=self.pool.name,
                hint="leave it out, or name the format: <format type='cifs'/>",
            )  # fmt: skip
        version = self.pool.source.protocol_version
        if version:
            mountoptions.check(self.pool.name, "nfs", [f"nfsvers={version}"])
            given.append(f"nfsvers={version}")
        if host is not None and host.port:
            given.append(f"port={host.port}" if self.kind != "glusterfs" else f"server-port={host.port}")
        if self.kind == "nfs" and "retry" not in names:
            given.append("retry=0")  # mount.nfs would try for two minutes
        if self.kind == "cifs":
            self._check_login(given)
            if self.pool.source.auth is None and not names & {"guest", "sec"}:
                given.append("guest")  # or mount.cifs asks for a password
            # Modes are not stored: what is shown is what new volumes get elsewhere, and not 0755.
            given += [o for o in ("file_mode=0600", "dir_mode=0700") if o.partition("=")[0] not in names]
            if "brl" not in names and "nobrl" not in names:
                # A server of SMB refuses writes to bytes that another handle has locked; QEMU locks bytes within the header.
                given.append("nobrl")
        if self.kind == "glusterfs" and len(self.pool.source.hosts) > 1 and not any("volfile" in n for n in names):
            others = (servers.check_host(self.pool.name, other.name) for other in self.pool.source.hosts[1:])
            given.append(f"backup-volfile-servers={':'.join(others)}")
        return given

    def _check_login(self, given: Sequence[str]) -> None:
        """``InvalidArgument`` for options that contradict the login, and for a user that mount.cifs would split or cut."""
        name, auth = self.pool.name, self.pool.source.auth
        without = {"guest", "sec=none"} & set(given)
        if auth is None:
            if any(option.startswith("sec=ntlm") for option in given):
                raise errors.InvalidArgument(
                    f"pool '{name}': this 'sec' is a login with a password, and the source has no <auth>", pool=name,
                    hint="name the user and the secret by <auth type='smb'>, or use krb5 or none",
                )  # fmt: skip
            return
        if without or any(option.startswith("sec=krb5") for option in given):
            raise errors.InvalidArgument(
                f"pool '{name}': the mount options say that no password is used, and the source has <auth>", pool=name,
                hint="leave out one of the two",
            )  # fmt: skip
        if not re.fullmatch(r"[^\x00-\x1f\x7f%/\\]{1,127}", auth.username):
            raise errors.InvalidArgument(
                f"pool '{name}': '{auth.username[:80]}' cannot be a user of SMB: mount.cifs would split it", pool=name,
                hint="the domain of a user is the mount option domain=NAME",
            )  # fmt: skip

    @contextlib.contextmanager
    def _login(self) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """The options that log in, and the descriptors that they name: what is in memory alone leaves nothing when we die."""
        auth = self.pool.source.auth
        if auth is None or self.host.dry_run:
            yield [] if auth is None else ["credentials=MEMORY"], ()
            return
        value = self.host.secret("smb", uuid=auth.secret.uuid, usage=auth.secret.usage)
        password = value.removesuffix(b"\n")
        # mount.cifs(8): a line per fact; 512 bytes is the most that it keeps of a password.
        if not 0 < len(password) <= 512 or b"\n" in password or b"\0" in password:
            raise errors.InvalidArgument(
                f"pool '{self.pool.name}': the secret of user '{auth.username}' is no password of SMB: it is one line of 1 to "
                "512 bytes", pool=self.pool.name,
            )  # fmt: skip
        self.host.hide(password.decode("utf-8", "backslashreplace"))
        lines = b"username=%s\npassword=%s\n" % (auth.username.encode(), password)
        with self.host.secret_file(lines) as (path, fd):
            yield [f"credentials={path}"], (fd,)

    def _check_gluster(self) -> None:
        """``InvalidArgument`` for what the shell script mount.glusterfs would split or cut."""
        name = self.pool.name
        if not re.fullmatch(r"[A-Za-z0-9_./:@+-]+", self.place):
            raise errors.InvalidArgument(
                f"pool '{name}': mount.glusterfs cannot mount at '{self.place[:200]}'", pool=name,
                hint="a target of letters, digits and _ . / : @ + - is safe with it; a blank would begin another option",
            )  # fmt: skip
        for host in self.pool.source.hosts[1:]:
            if ":" in host.name:
                raise errors.InvalidArgument(
                    f"pool '{name}': '{host.name[:80]}' cannot be a further gluster server: mount.glusterfs cuts their list "
                    "at each colon",
                    pool=name, hint="give its name instead of the address, or make it the first",
                )  # fmt: skip

    # -- state --------------------------------------------------------------------------------------------------------

    def mounted(self) -> Mount | None:
        """Our mount, or None. Asks no server."""
        return self._mounted()[0]

    def _mounted(self) -> tuple[Mount | None, str]:
        """Our mount, or None with the reason."""
        return mounting.seen(self.host, self.place, self._ours, lambda: self.sources()[0])

    def _ours(self, mount: Mount) -> bool:
        if mount.fstype not in _FSTYPES[self.kind]:
            return False
        if mount.source in self.sources():
            return True
        # Of one export mounted twice the kernel shows both by the name of the first.
        address = re.search(r"(?:^|,)addr=([^,]+)", mount.options)
        if self.kind != "nfs" or address is None or export(mount.source) != export(self.sources()[0]):
            return False
        return any(address[1] in self._addresses(host.name) for host in self.pool.source.hosts)

    def _addresses(self, name: str) -> set[str]:
        bare = servers.check_host(self.pool.name, name)
        if ":" in bare or re.fullmatch(r"[0-9.]+", bare):
            return {bare}
        try:
            asked = ["getent", "--no-addrconfig", "ahosts", "--", bare]
            said = self.host.query(asked, ok=(0, 2), timeout=3, shared=True).stdout
        except errors.ToolError:
            return set()
        return {line.split()[0] for line in said.splitlines() if line.strip()}

    def state(self, *, closely: bool = False) -> State:
        """Whether the server's directory is mounted at the target. A server that is down does not change that.

        Lame is a FUSE mount whose process (Gluster's client) has died, and one whose handle is stale.
        """
        mount, why = self._mounted()
        if mount is None:
            return State(False, why=why)
        return State(
            True,
            whole=not mount.fstype.startswith("fuse.") and mounting.is_safe(mount),
            lame=closely and _is_dead(self.host, mount.target),
        )

    def storage(self) -> str | None:
        """Nothing: that the mount is the pool's own is told by the servers it may be of."""
        return None

    def start(self) -> None:
        """Make the target directory if need be, and mount the first server that lets us, with nosuid, nodev and noexec.

        A FUSE mount whose client has died, or one whose handle is stale, is mounted anew.
        """
        if (there := self.mounted()) is not None:
            if not self.state(closely=True).lame:
                mounting.warn_unsafe(self.host, self.pool.name, there)
                return
            self.host.change(["umount", "--internal-only", "--lazy", "--", there.target])
        sources = self.sources()
        mounting.require_free(self.host, self.pool.name, self.place, f"'{sources[0]}'")
        self.options(None)
        self.build_directory(only_new=True)
        failures: list[tuple[str, errors.ToolError]] = []
        for host, source in zip(self.pool.source.hosts, sources, strict=True):
            try:
                with self._login() as (login, fds):
                    mounting.mount(
                        self.host, source, self.place, kind=self.kind, options=[*login, *self.options(host)],
                        timeout=MOUNT_TIMEOUT, pass_fds=fds,
                    )  # fmt: skip
                break
            except (errors.ToolFailed, errors.ToolTimeout) as error:
                failures.append((source, error))
        else:
            raise self._refused(failures)
        top = mounting.at(self.host, self.place)
        if not self.host.dry_run and (top is None or top.fstype not in _FSTYPES[self.kind]):
            raise errors.HostError(
                f"pool '{self.pool.name}': mount ended well, but {self._mounted()[1]}", pool=self.pool.name
            )

    def _refused(self, failures: Sequence[tuple[str, errors.ToolError]]) -> errors.PoolkitError:
        """One error for all servers that were tried: ``Unreachable`` if none of them answered."""
        parts = []
        for source, error in failures:
            late = f"no answer within {MOUNT_TIMEOUT:g} seconds"
            parts.append(
                f"'{source}': {late if isinstance(error, errors.ToolTimeout) else sentence(error.stderr) or error.message}"
            )
        message = f"pool '{self.pool.name}': could not mount " + ", nor ".join(parts)
        if all(isinstance(e, errors.ToolTimeout) or _SILENT.search(e.stderr) for _, e in failures):
            return errors.Unreachable(
                message, pool=self.pool.name, hint="is the server up, and does a firewall let it answer?"
            )
        last, auth = failures[-1][1], self.pool.source.auth
        if auth is not None and _REFUSED.search(last.stderr):
            return errors.PermissionDenied(
                f"pool '{self.pool.name}': '{failures[-1][0]}' lets user '{auth.username}' not in", pool=self.pool.name,
                hint=errors.Hint(
                    "the password, the user or its rights on the share are not right; to set the password: ",
                    errors.remedy("secret-set-value", auth.secret.uuid or auth.secret.usage),
                ),
            )  # fmt: skip
        unknown = re.search(r"unknown filesystem type '([^']*)'", last.stderr)
        package = self.packages.get(f"mount.{unknown[1]}") if unknown is not None else None
        return errors.ToolFailed(
            message, argv=last.argv, status=last.status, stdout=last.stdout, stderr=last.stderr, pool=self.pool.name,
            hint=None if package is None else f"on Debian: apt install {package}",
        )  # fmt: skip

    def stop(self) -> None:
        """Unmount; by force, with a warning, when the server does not answer. ``Busy`` with who uses it."""
        mount = self.mounted()
        if mount is None:
            mounting.require_uncovered(self.host, self.pool.name, self.place, self._ours)
            return
        if self.host.dry_run or worker.answers(self.host, mount.target):
            try:
                mounting.unmount(self.host, self.pool.name, mount, timeout=120)
                return
            except errors.ToolTimeout:
                if worker.answers(self.host, mount.target):
                    raise
        mounting.force(self.host, self.pool.name, mount, timeout=worker.DEADLINE)

    def build(self, *, overwrite: bool = False) -> bool:
        """Make the target directory; on the server nothing is made."""
        return mounting.at(self.host, self.place) is None and self.build_directory()

    def erase(self) -> bool:
        """Remove the target directory, which must be empty; what is on the server stays."""
        return mounting.erase_target(self)

    def erased(self) -> Erased:
        """The target directory and nothing of the server's."""
        return Erased(f"the mount directory '{self.place}'", f"'{self.sources()[0]}' with all files")

    @classmethod
    def discover(cls, host: Host, source: Any) -> Iterable[Any]:
        """What the server named in ``source`` exports by nfs and, where the program gluster is installed, its volumes."""
        return servers.discover(host, source)

    def answers(self) -> bool:
        """Whether the server answers."""
        return worker.answers(self.host, self.place)


_REFUSED = re.compile(r"mount error\((13|126|127|128|129)\)")  # EACCES; ENOKEY, EKEYEXPIRED, EKEYREVOKED, EKEYREJECTED
_SILENT = re.compile("timed out|No route to host|Network is unreachable|Host is down|Connection refused", re.IGNORECASE)


_DEAD = ("Transport endpoint is not connected", "Stale file handle")  # strerror(3) of ENOTCONN and ESTALE


def _is_dead(host: Host, path: str) -> bool:
    """Whether the mount at ``path`` never recovers: its FUSE client is gone, or the server does not know the directory."""
    said = worker.asked(host, path)
    return said is not None and any(words in said.stderr for words in _DEAD)
