"""What pools of type netfs run, for every verb that does not touch the mounted directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors, registry, xmlmap
from poolkit.backends.netfs import NetfsBackend
from poolkit.documents import FoundSource
from poolkit.engine import Engine
from poolkit.families import away
from poolkit.host import Host, Result, worker
from poolkit.host.mounts import Mount, MountTable
from poolkit.model import SourceHost
from poolkit.testing import Answer, transcript, undone

from .scripted import MountingHost

TARGET = "/nonexistent/pool"
MKDIR = [f"! mkdir {Path(TARGET).parent}", f"! mkdir {TARGET}"]
UNMADE = [f"< rmdir {TARGET}", f"< rmdir {Path(TARGET).parent}"]
PROBE = f"? stat --file-system --format=%T -- {TARGET}"
UMOUNT = f"! umount -- {TARGET}"
FORCE = f"! umount --internal-only --force --lazy -- {TARGET}"


def xml(
    kind: str = "nfs",
    hosts: Sequence[str] = ("nas",),
    dir: str = "/srv/vols",
    options: str = "",
    more: str = "",
    port: str = "",
) -> str:
    given = "".join(f"<fs:option name='{option}'/>" for option in options.split())
    servers = "".join(f"<host name='{host}'{port}/>" for host in hosts)
    return (
        "<pool type='netfs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>net</name>"
        f"<source>{servers}<dir path='{dir}'/><format type='{kind}'/>{more}</source>"
        f"<target><path>{TARGET}</path></target><fs:mount_opts>{given}</fs:mount_opts></pool>"
    )


def run(
    verb: Callable[[Any], Any], document: str | None = None, host: MountingHost | None = None, **how: Any
) -> list[str]:
    return transcript(document or xml(), verb, host or MountingHost(**how))


def start(backend: Any) -> Any:
    return backend.start()


def stop(backend: Any) -> Any:
    return backend.stop()


def ours(kind: str = "nfs4", source: str = "nas:/srv/vols") -> Mount:
    return Mount("0:99", "/", TARGET, kind, source, "rw")


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (xml(), "-t nfs -o retry=0,nosuid,nodev,noexec -- nas:/srv/vols"),
        (xml("auto"), "-t nfs -o retry=0,nosuid,nodev,noexec -- nas:/srv/vols"),
        (
            xml(options="soft retry=1 nosuid", more="<protocol ver='4.2'/>"),
            "-t nfs -o soft,retry=1,nosuid,nfsvers=4.2,nosuid,nodev,noexec -- nas:/srv/vols",
        ),
        (xml(port=" port='2050'"), "-t nfs -o port=2050,retry=0,nosuid,nodev,noexec -- nas:/srv/vols"),
        (xml(hosts=["2001:db8::1"]), "-t nfs -o retry=0,nosuid,nodev,noexec -- '[2001:db8::1]:/srv/vols'"),
        (
            xml("cifs", dir="/isos"),
            "-t cifs -o guest,file_mode=0600,dir_mode=0700,nobrl,nosuid,nodev,noexec -- //nas/isos",
        ),
        (
            xml("cifs", dir="isos", options="sec=krb5 file_mode=0644"),
            "-t cifs -o sec=krb5,file_mode=0644,dir_mode=0700,nobrl,nosuid,nodev,noexec -- //nas/isos",
        ),
        (xml("glusterfs", dir="vol"), "-t glusterfs -o nosuid,nodev,noexec -- nas:vol"),
        (
            xml("glusterfs", ["a", "b", "c"], dir="vol"),
            "-t glusterfs -o backup-volfile-servers=b:c,nosuid,nodev,noexec -- a:vol",
        ),
    ],
)
def test_start(document: str, line: str) -> None:
    assert run(start, document) == [*MKDIR, f"! mount {line} {TARGET}"]


LOGIN = "<auth type='smb' username='ann lee'><secret usage='nas'/></auth>"


def with_secret(value: bytes, **how: Any) -> MountingHost:
    host = MountingHost(**how)
    host.on_secret = lambda type, uuid, usage: {("smb", None, "nas"): value}[type, uuid, usage]
    return host


def test_a_login_is_handed_over_in_memory() -> None:
    seen = []

    class Listening(MountingHost):
        def change(self, argv: Sequence[str], **how: Any) -> Result:
            seen.extend(os.pread(fd, 1000, 0) for fd in how.get("pass_fds", ()))
            named = [fd for fd in how.get("pass_fds", ()) if f"credentials=/proc/self/fd/{fd}," in argv[4]]
            assert argv[0] != "mount" or len(named) == 1
            return super().change(argv, **how)

    host = Listening()
    host.on_secret = lambda *_: b"pa,ss=w%rd\n"
    lines = run(start, xml("cifs", dir="/isos", more=LOGIN, options="sec=ntlmssp domain=HOME"), host)
    assert seen == [b"username=ann lee\npassword=pa,ss=w%rd\n"]
    assert "pa,ss" not in str(lines) and "guest" not in lines[-1]
    assert lines[-1].endswith(
        ",sec=ntlmssp,domain=HOME,file_mode=0600,dir_mode=0700,nobrl,nosuid,nodev,noexec -- //nas/isos /nonexistent/pool"
    )


@pytest.mark.parametrize("value", [b"", b"\n", b"a\nuid=0", b"a\0b", b"x" * 513])
def test_what_is_no_password_of_smb_is_refused(value: bytes) -> None:
    lines = run(start, xml("cifs", dir="x", more=LOGIN), with_secret(value))
    assert lines[-1].startswith("error: pool 'net': the secret of user 'ann lee' is no password of SMB")
    assert not any("mount" in line for line in lines[:-1])


def test_a_refused_login_says_so() -> None:
    refused = Answer("", 32, "mount error(13): Permission denied\nRefer to the mount.cifs(8) manual page")
    lines = run(start, xml("cifs", dir="x", more=LOGIN), with_secret(b"pw", answers={"mount": refused}))
    assert lines[-1] == "error: pool 'net': '//nas/x' lets user 'ann lee' not in"


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ("sec=ntlmssp", "", "is a login with a password, and the source has no <auth>"),
        ("sec=krb5", LOGIN, "say that no password is used, and the source has <auth>"),
        ("guest", LOGIN, "say that no password is used, and the source has <auth>"),
        ("", LOGIN.replace("ann lee", "ann%pw"), "cannot be a user of SMB: mount.cifs would split it"),
        ("", LOGIN.replace("ann lee", "HOME\\ann"), "cannot be a user of SMB"),
    ],
)
def test_logins_that_contradict_themselves(engine: Engine, options: str, more: str, words: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=words):
        engine.define(xml("cifs", dir="x", options=options, more=more))


def test_a_login_is_for_smb_alone(engine: Engine) -> None:
    for kind in ("nfs", "auto"):
        with pytest.raises(errors.InvalidArgument, match="a login by <auth> is for the format cifs, not nfs"):
            engine.define(xml(kind, more=LOGIN))


def test_start_of_what_is_up_changes_nothing() -> None:
    assert run(start, answers={"stat": "nfs"}, mounts=[ours()]) == [PROBE]
    assert run(start, xml(hosts=["first", "nas"]), answers={"stat": "nfs"}, mounts=[ours()]) == [PROBE], (
        "any of the servers will do"
    )
    assert run(start, xml("cifs", dir="x"), answers={"stat": "nfs"}, mounts=[ours("cifs", "//nas/x")]) == [PROBE]


def test_start_mounts_anew_when_the_gluster_client_has_died() -> None:
    document, mount = xml("glusterfs", dir="v"), ours("fuse.glusterfs", "nas:v")
    dead = Answer(
        "", 1, f"stat: cannot read file system information for '{TARGET}': Transport endpoint is not connected"
    )
    assert run(start, document, answers={"stat": "fuseblk"}, mounts=[mount]) == [PROBE]
    assert run(start, document, answers={"stat": dead}, mounts=[mount]) == [
        PROBE, f"! umount --internal-only --lazy -- {TARGET}", *MKDIR,
        f"! mount -t glusterfs -o nosuid,nodev,noexec -- nas:v {TARGET}",
    ]  # fmt: skip


def test_start_mounts_anew_when_the_handle_is_stale() -> None:
    stale = Answer("", 1, f"stat: cannot read file system information for '{TARGET}': Stale file handle")
    assert run(start, answers={"stat": stale}, mounts=[ours()]) == [
        PROBE, f"! umount --internal-only --lazy -- {TARGET}", *MKDIR,
        f"! mount -t nfs -o retry=0,nosuid,nodev,noexec -- nas:/srv/vols {TARGET}",
    ]  # fmt: skip


def test_start_tries_the_servers_in_order() -> None:
    answers: dict[str, Any] = {"mount": [Answer("", 32, "mount.nfs: Connection refused"), ""]}
    document = xml(hosts=["one", "two"])
    assert run(start, document, answers=answers) == [
        *MKDIR,
        f"! mount -t nfs -o retry=0,nosuid,nodev,noexec -- one:/srv/vols {TARGET}",
        f"! mount -t nfs -o retry=0,nosuid,nodev,noexec -- two:/srv/vols {TARGET}",
    ]


class NoAnswer(MountingHost):
    """A host on which the given programs never end."""

    hangs: tuple[str, ...] = ()

    def change(self, argv: Sequence[str], **how: Any) -> Result:
        if argv[0] in self.hangs:
            self._step(argv[0], how.get("undo"))
            self.lines.append(f"! {' '.join(argv)} ... killed")
            raise errors.ToolTimeout(f"'{argv[0]}' did not end", argv=argv)
        return super().change(argv, **how)

    def query(self, argv: Sequence[str], **how: Any) -> Result:
        if argv[0] in self.hangs:
            self.lines.append(f"? {' '.join(argv)} ... killed")
            raise errors.ToolTimeout(f"'{argv[0]}' did not end", argv=argv)
        return super().query(argv, **how)


def test_start_that_nobody_answers() -> None:
    host = NoAnswer()
    host.hangs = ("mount",)
    lines = run(start, xml(hosts=["one", "two"]), host)
    assert lines[-1] == (
        "error: pool 'net': could not mount 'one:/srv/vols': no answer within 30 seconds, "
        "nor 'two:/srv/vols': no answer within 30 seconds"
    )
    assert lines[-5:-1] == [f"< unmount {TARGET} two:/srv/vols", f"< unmount {TARGET} one:/srv/vols", *UNMADE]


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("mount.nfs: Connection refused", errors.Unreachable),
        ("mount.nfs: Connection timed out", errors.Unreachable),
        ("mount error(113): No route to host", errors.Unreachable),
        ("mount.nfs: access denied by server while mounting nas:/srv/vols", errors.ToolFailed),
    ],
)
def test_the_kind_of_a_refusal(stderr: str, kind: type[errors.PoolkitError]) -> None:
    definition: Any = xmlmap.read(xml(), registry.definitions())
    with pytest.raises(kind) as caught:
        NetfsBackend(definition, MountingHost({"mount": Answer("", 32, stderr)})).start()
    assert str(caught.value) == f"pool 'net': could not mount 'nas:/srv/vols': {stderr}"


@pytest.mark.parametrize(("type", "package"), [("nfs", "nfs-common"), ("odd", None)])
def test_a_program_that_mount_lacks_is_named_with_its_package(type: str, package: str | None) -> None:
    definition: Any = xmlmap.read(xml(), registry.definitions())
    answer = Answer("", 32, f"mount: /srv: unknown filesystem type '{type}'.")
    with pytest.raises(errors.ToolFailed, match=f"no program mount.{type} is installed") as caught:
        NetfsBackend(definition, MountingHost({"mount": answer})).start()
    assert caught.value.hint == (f"on Debian: apt install {package}" if package else None)


def test_undo_unmounts_only_what_was_mounted_and_by_force() -> None:
    host = MountingHost()
    run(start, host=host)
    assert undone(host) == [f"< umount --internal-only --force --lazy -- {TARGET}"]
    host.mount_table = [ours(source="10.0.0.5:/srv/other")]
    assert undone(host) == []
    host.mount_table = [ours(source="10.0.0.5:/srv/vols")]
    assert undone(host) == [f"< umount --internal-only --force --lazy -- {TARGET}"], (
        "shown as an earlier mount was named"
    )


def test_an_export_that_is_mounted_elsewhere_under_another_name() -> None:
    shown = ours(source="10.0.0.5:/srv/vols")._replace(options="rw,nosuid,rw,vers=4.2,addr=10.0.0.5")
    asked = "? getent --no-addrconfig ahosts -- nas"
    answers: dict[str, Any] = {"getent": "10.0.0.5        STREAM nas\n", "stat": "nfs"}
    assert run(stop, answers=answers, mounts=[shown]) == [asked, PROBE, UMOUNT]
    assert run(stop, answers={"getent": "10.0.0.6        STREAM nas\n"}, mounts=[shown]) == [asked]
    assert (
        run(stop, xml(hosts=["10.0.0.5"]), answers=answers, mounts=[shown._replace(source="x:/srv/vols")])[-1] == UMOUNT
    )

    class Renaming(MountingHost):
        def _mounting(self, argv: list[str]) -> None:
            if argv[0] == "mount":
                self.mount_table.append(shown)

    assert "error" not in str(run(start, host=Renaming()))


def test_a_chain_opens_nothing_on_a_dead_server(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "images"
    pool = engine.define(f"<pool type='dir'><name>on</name><target><path>{place}</path></target></pool>")
    pool.start(build=True)
    made = pool.create_volume("<volume><name>v</name><capacity>4096</capacity></volume>")
    nas = Mount("0:50", "/", str(place), "nfs4", "nas:/x", "rw")
    monkeypatch.setattr(Host, "mounts", lambda self: MountTable([nas]))
    monkeypatch.setattr(worker, "answers", lambda host, path: False)
    (link,) = made.chain()
    assert link.problem == f"the server of '{place}' does not answer; it was not opened"
    monkeypatch.setattr(worker, "answers", lambda host, path: True)
    (link,) = made.chain()
    assert link.problem == ""


class Stale(NetfsBackend):
    def live(self) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")


class Gone(NetfsBackend):
    def live(self) -> Any:
        raise errors.HostError(f"it is gone, in process {os.getpid()}")


@pytest.mark.parametrize("kind", [Stale, Gone])
def test_the_definition_can_be_shown_whatever_the_mount_says(kind: type[NetfsBackend]) -> None:
    host = Host()
    backend = kind(xmlmap.read(xml(), registry.definitions()), host)
    try:
        assert away.Away(backend).live() is backend.pool
        with pytest.raises((OSError, errors.HostError)):
            backend.live()  # else nothing was shown
        assert len(host.children) == 1  # it was asked for where it may hang
    finally:
        host.close()


def test_stop_under_what_another_one_put_on_top() -> None:
    other = Mount("0:30", "/", TARGET, "tmpfs", "tmpfs", "rw")
    assert run(stop, mounts=[ours(), other]) == [
        f"error: pool 'net': 'tmpfs' (tmpfs) is mounted at '{TARGET}' on top of the pool's own mount"
    ]


def test_stop() -> None:
    assert run(stop, answers={"stat": "nfs"}, mounts=[ours()]) == [PROBE, UMOUNT]
    assert run(stop) == []
    assert run(stop, mounts=[ours(source="other:/x")]) == []


def test_stop_when_the_server_is_dead() -> None:
    host = NoAnswer(mounts=[ours()])
    host.hangs = ("stat",)
    assert run(stop, host=host) == [f"{PROBE} ... killed", FORCE]
    assert host.warnings == [
        f"pool 'net': its server does not answer, so '{TARGET}' was unmounted by force; "
        "what had not been written there is lost"
    ]


def test_stop_when_the_server_dies_meanwhile() -> None:
    class Dying(NoAnswer):
        def change(self, argv: Sequence[str], **how: Any) -> Result:
            if argv == ["umount", "--", TARGET]:
                self.hangs = ("stat",)
                self.lines.append(f"{UMOUNT} ... killed")
                raise errors.ToolTimeout("'umount' did not end", argv=argv)
            return super().change(argv, **how)

    host = Dying({"stat": "nfs"}, mounts=[ours()])
    assert run(stop, host=host) == [PROBE, f"{UMOUNT} ... killed", f"{PROBE} ... killed", FORCE]
    assert host.mount_table == []


def test_build_makes_a_directory_and_nothing_else() -> None:
    assert run(lambda backend: backend.build(overwrite=True)) == MKDIR
    assert run(lambda backend: backend.build(), mounts=[ours()]) == []


def test_state_and_its_reasons() -> None:
    def state(backend: Any) -> Any:
        backend.host.lines.append(f"{backend.state().up} {backend.state().why}".strip())

    assert run(state) == [f"False nothing is mounted at '{TARGET}'"]
    assert run(state, mounts=[ours()]) == ["True"]
    assert run(state, mounts=[ours(source="nas:/other")]) == [
        f"False 'nas:/other' (nfs4) is mounted at '{TARGET}', not 'nas:/srv/vols'"
    ]
    assert run(state, mounts=[ours("ext4", "nas:/srv/vols")])[0].startswith("False"), "a name alone proves nothing"
    assert run(state, xml("glusterfs", dir="v"), mounts=[ours("fuse.glusterfs", "nas:v")]) == ["True"]


def test_claims_and_refusals() -> None:
    claims = lambda backend: backend.host.lines.extend(backend.claims())  # noqa: E731
    assert run(claims, xml(hosts=["a", "b"])) == [f"target {TARGET}", "export a:/srv/vols", "export b:/srv/vols"]
    assert run(claims, xml(hosts=["-oexec"])) == ["error: pool 'net': '-oexec' is not a host name or address"]
    assert run(claims, xml(options="bg")) == [
        "error: pool 'net': the mount option 'bg' is not allowed: mount would end before anything is mounted"
    ]
    assert run(claims, xml(more="<protocol ver='4.2 suid'/>"))[0].startswith("error: pool 'net': the mount option")
    assert run(claims, xml(dir="srv")) == [
        "error: pool 'net': the source directory 'srv' cannot be used: it is not an absolute path"
    ]


@pytest.mark.parametrize("target", ["/srv/y --volfile=/home/u/e.vol", "/srv/*", "/srv/$x", "/srv/a;b"])
def test_gluster_gets_no_target_that_its_script_would_split(target: str) -> None:
    document = xml("glusterfs", dir="v").replace(TARGET, target)
    for verb in (lambda backend: list(backend.claims()), start):
        (line,) = run(verb, document)
        assert line.startswith("error: pool 'net': mount.glusterfs cannot mount at '/srv/")
    assert "error" not in run(lambda backend: list(backend.claims()), xml(dir="/v").replace(TARGET, target)), (
        "but NFS does"
    )


def test_gluster_servers_with_colons_in_their_names() -> None:
    claims = lambda backend: backend.host.lines.extend(backend.claims())  # noqa: E731
    assert run(claims, xml("glusterfs", ["fe80::1", "b"], dir="v")) == [
        f"target {TARGET}", "export fe80::1:v", "export b:v",
    ]  # fmt: skip
    assert run(claims, xml("glusterfs", ["a", "fe80::1"], dir="v")) == [
        "error: pool 'net': 'fe80::1' cannot be a further gluster server: mount.glusterfs cuts their list at each colon"
    ]


def found(host: MountingHost, **source: Any) -> list[tuple[str, str]]:
    sources = NetfsBackend.discover(host, FoundSource(hosts=(SourceHost(name="nas"),), **source))
    return [(one.format, one.dir) for one in sources]


def test_discovery() -> None:
    answers: dict[str, Any] = {
        "showmount": "/srv/vols      10.0.0.0/8,nas2\n/srv/two words (everyone)\n\n",
        "gluster": "images\nNo volumes present in cluster\nother\n",
    }
    host = MountingHost(answers)
    assert found(host) == [
        ("nfs", "/srv/vols"), ("nfs", "/srv/two words"), ("glusterfs", "images"), ("glusterfs", "other"),
    ]  # fmt: skip
    assert host.lines == [
        "? showmount --no-headers --exports -- nas",
        "? gluster --mode=script --log-file=/dev/null --remote-host=nas volume list",
    ]
    assert found(MountingHost(answers), format="nfs") == [("nfs", "/srv/vols"), ("nfs", "/srv/two words")]
    with pytest.raises(errors.InvalidArgument, match="one host must be named"):
        list(NetfsBackend.discover(MountingHost(), None))


def test_discovery_of_a_server_that_is_no_gluster_or_does_not_answer() -> None:
    answers: dict[str, Any] = {"showmount": "/srv *\n", "gluster": Answer("", 1, "Connection failed.")}
    assert found(MountingHost(answers)) == [("nfs", "/srv")]
    with pytest.raises(errors.ToolFailed, match=r"Connection failed\."):
        found(MountingHost(answers), format="glusterfs")
    host = NoAnswer()
    host.hangs = ("showmount", "gluster")
    answers = {"showmount": Answer("", 1, "clnt_create: RPC: Program not registered"), "gluster": "images\n"}
    assert found(MountingHost(answers)) == [("glusterfs", "images")]
    lone = MountingHost({"showmount": Answer("", 1, "clnt_create: RPC: Program not registered")})
    lone.has_program = lambda name: False  # type: ignore[method-assign]
    with pytest.raises(errors.ToolFailed, match="Program not registered"):
        found(lone)
    with pytest.raises(errors.Unreachable, match="the server 'nas' did not answer within 30 seconds"):
        found(host)
