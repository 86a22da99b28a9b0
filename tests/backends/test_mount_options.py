"""Which mount options a definition may give, and how servers and directories may be named."""

from __future__ import annotations

import pytest

from poolkit import errors
from poolkit.families import mountoptions, servers

ALLOWED = [
    ("ext4", "noatime"), ("ext4", "commit=10"), ("ext4", "data=writeback"), ("ext4", "errors=remount-ro"), ("xfs", "inode64"),
    ("xfs", "allocsize=64k"), ("btrfs", "compress=zstd:3"), ("btrfs", "subvol=/pools/one"), ("vfat", "uid=64055"),
    ("vfat", "umask=0077"), ("udf", "uid=forget"), ("iso9660", "ro"), ("hfs+", "gid=7"), ("nfs", "soft"), ("nfs", "sec=krb5p"),
    ("nfs", "vers=4.2"), ("nfs", "proto=tcp6"), ("cifs", "sec=krb5i"), ("cifs", "vers=3.1.1"), ("cifs", "file_mode=0600"),
    ("glusterfs", "log-level=WARNING"), ("auto", "ro"), ("vmfs", "sync"),
]  # fmt: skip

UNSAFE = [
    "suid", "dev", "exec", "remount", "bind", "rbind", "move", "loop", "loop=/dev/loop0", "offset=512", "user", "users", "owner",
    "context=system_u:object_r:etc_t:s0", "credentials=/etc/shadow", "password=x", "username=root", "X-mount.mkdir",
    "x-systemd.automount", "X-mount.owner=1000", "helper=evil", "bg", "noatime,suid", "errors=remount-ro,exec", ",",
    "log-file=/x", "cruid=1000",
]  # fmt: skip

REFUSED = [
    ("ext4", "errors=panic"), ("ext4", "journal_path=/dev/sdb"), ("ext4", "journal_dev=2049"), ("xfs", "logdev=/dev/sdb"),
    ("xfs", "rtdev=/dev/sdb"), ("btrfs", "device=/dev/sdb"), ("btrfs", "subvol=../x=y"), ("nfs", "mounthost=evil"),
    ("nfs", "vers=4.2 suid"), ("cifs", "ip=10.0.0.1"), ("cifs", "prefixpath=x"), ("cifs", "unc=//other/share"),
    ("glusterfs", "transport=tcp"), ("cifs", "sec=ntlmssp"), ("cifs", "sec=ntlmv2"),
    ("nfs", "commit=10"), ("ext4", "noatime=1"), ("ext4", "commit"), ("ext4", "commit="), ("ext4", ""), ("ext4", "=x"),
    ("ext4", "--bind"), ("auto", "noac"), ("ext4", "commit=1\nsuid"), ("ext4", "NOATIME"), ("btrfs", "device=/dev/x"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "option"), ALLOWED)
def test_an_ordinary_option_is_taken(kind: str, option: str) -> None:
    assert mountoptions.check("p", kind, [option]) == [option]


@pytest.mark.parametrize("kind", ["auto", "ext4", "nfs", "cifs", "glusterfs"])
@pytest.mark.parametrize("option", UNSAFE)
def test_a_dangerous_option_is_unsafe_everywhere(kind: str, option: str) -> None:
    with pytest.raises(errors.Unsafe, match=r"^pool 'p': the mount option '"):
        mountoptions.check("p", kind, ["noatime", option])


@pytest.mark.parametrize(("kind", "option"), REFUSED)
def test_what_is_not_listed_is_refused(kind: str, option: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        mountoptions.check("p", kind, [option])


def test_the_sentences() -> None:
    def said(kind: str, option: str) -> tuple[str, str | None]:
        with pytest.raises(errors.PoolkitError) as caught:
            mountoptions.check("p", kind, [option])
        return str(caught.value), caught.value.hint

    assert said("ext4", "suid") == (
        "pool 'p': the mount option 'suid' is not allowed: it lets files of the storage become root", None
    )  # fmt: skip
    assert said("auto", "commit=5") == (
        "pool 'p': 'commit=5' is not among the mount options allowed for a file system that is not named",
        "name it: <format type='ext4'/>",
    )
    assert "a login needs a password" in (said("cifs", "sec=ntlmssp")[1] or "")
    assert said("ext4", "noatme") == (
        "pool 'p': 'noatme' is not among the mount options allowed for ext4", "did you mean 'noatime'?"
    )  # fmt: skip
    assert (
        said("ext4", "commit=soon")[0] == "pool 'p': the mount option 'commit' does not take that value: 'commit=soon'"
    )
    assert said("ext4", "noatime=1")[0] == "pool 'p': the mount option 'noatime' takes no value: 'noatime=1'"
    assert said("ext4", "commit")[0] == "pool 'p': the mount option 'commit' needs a value: 'commit'"
    assert said("nfs", "soft,exec")[1] == "give each option an <fs:option> of its own"


def test_no_allowed_option_undoes_the_safe_ones() -> None:
    for names in mountoptions.reference().values():
        assert not {"suid", "dev", "exec", "remount", "bind", "user", "loop"} & set(names)
    assert mountoptions.SAFE == ("nosuid", "nodev", "noexec")


@pytest.mark.parametrize(
    ("name", "bare"),
    [("nas", "nas"), ("nas-1.example.com", "nas-1.example.com"), ("192.0.2.7", "192.0.2.7"), ("[2001:DB8::1]", "2001:db8::1"),
     ("fe80::1%eth0", "fe80::1%eth0")],
)  # fmt: skip
def test_hosts(name: str, bare: str) -> None:
    assert servers.check_host("p", name) == bare


@pytest.mark.parametrize(
    "name",
    [
        "fe80::1%eth0,suid",
        "fe80::1%eth0 suid",
        "fe80::1%$(id)",
        "-oexec",
        "a b",
        "a,b",
        "a/b",
        "[::1",
        "1::2::3",
        "a:b",
        "$(id)",
        "é",
        "",
        "a" * 260,
        "x;y",
    ],
)
def test_bad_hosts(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is not a host name or address"):
        servers.check_host("p", name)


def test_directories() -> None:
    assert servers.spell("nfs", "nas", servers.check_dir("p", "nfs", "/srv/a, b")) == "nas:/srv/a, b"
    assert servers.spell("nfs", "2001:db8::1", "/srv") == "[2001:db8::1]:/srv"
    assert servers.spell("glusterfs", "fe80::1", "/vol") == "fe80::1:/vol"
    assert servers.spell("cifs", "nas", servers.check_dir("p", "cifs", "/isos/linux")) == "//nas/isos/linux"
    assert servers.spell("glusterfs", "nas", servers.check_dir("p", "glusterfs", "vol-1")) == "nas:vol-1"
    for kind, dir in [
        ("nfs", "srv"), ("nfs", "/a/../etc"), ("cifs", "a,user=root"), ("cifs", "a\\b"), ("cifs", "/"), ("cifs", ".."),
        ("glusterfs", "a b"), ("glusterfs", "-x,y"), ("glusterfs", "/"),
        ("glusterfs", "vol/a:b"), ("glusterfs", "vol/a b"), ("glusterfs", "vol/*"), ("glusterfs", "vol/$x"),
    ]:  # fmt: skip
        with pytest.raises(errors.InvalidArgument, match="cannot be used"):
            servers.check_dir("p", kind, dir)
