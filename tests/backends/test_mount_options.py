"""Which mount options a definition may give, and how servers and directories may be named."""

from __future__ import annotations

import re

import pytest

from poolkit import errors
from poolkit.families import mounting, mountoptions, servers

ALLOWED = [
    ("ext4", "noatime"), ("ext4", "commit=10"), ("ext4", "data=writeback"), ("ext4", "errors=remount-ro"), ("xfs", "inode64"),
    ("xfs", "allocsize=64k"), ("btrfs", "compress=zstd:3"), ("btrfs", "subvol=/pools/one"), ("vfat", "uid=64055"),
    ("vfat", "umask=0077"), ("udf", "uid=forget"), ("iso9660", "ro"), ("hfs+", "gid=7"), ("nfs", "soft"), ("nfs", "sec=krb5p"),
    ("nfs", "vers=4.2"), ("nfs", "proto=tcp6"), ("cifs", "sec=krb5i"), ("cifs", "vers=3.1.1"), ("cifs", "file_mode=0600"),
    ("glusterfs", "log-level=WARNING"), ("auto", "ro"), ("vmfs", "sync"),
    # libvirt's own for every gluster mount, and what hosts have in their fstab and mount table
    ("glusterfs", "direct-io-mode=1"), ("glusterfs", "reader-thread-count=4"), ("glusterfs", "fopen-keep-cache=1"),
    ("glusterfs", "fopen-keep-cache"), ("glusterfs", "server-port=24007"), ("glusterfs", "transport=tcp"),
    ("ext4", "nosymfollow"), ("nfs", "addr=10.0.0.1"), ("cifs", "ip=10.0.0.1"), ("cifs", "addr=fe80::1"),
    ("ext4", "context=system_u:object_r:virt_image_t:s0"), ("auto", "fscontext=system_u:object_r:x_t:s0"),
    # what no table knows is for the file system to judge
    ("auto", "commit=10"), ("ext4", "mb_optimize_scan=1"), ("xfs", "newer-option"), ("cifs", "sec=ntlmssp"),
    ("nfs", "lookupcache=newword"), ("ext4", "NOATIME"), ("vmfs", "anything=1:2"),
]  # fmt: skip

UNSAFE = [
    "suid", "dev", "exec", "SUID", "remount", "bind", "rbind", "move", "shared", "rprivate", "unbindable", "loop",
    "loop=/dev/loop0", "offset=512", "sizelimit=1", "user", "users", "owner", "group", "user=root", "source=/dev/sda",
    "credentials=/etc/shadow",
    "cred=/etc/shadow", "credfile=/x", "CREDENTIALS=/x", "password=x", "password2=x", "pass=x", "username=root", "cruid=1000",
    "X-mount.mkdir", "x-mount.mkdir", "x-systemd.automount", "X-mount.owner=1000", "X-mount.subdir=x", "verity.hashdevice=/x",
    "helper=evil", "uhelper=evil", "bg", "noatime,suid", "errors=remount-ro,exec", ",", "log-file=/x", "dump-fuse=/x",
    "fuse-mountopts=suid", "xlator-option=x", "fd=3", "errors=panic", "onerror=panic", "fatal_errors=panic", "errors=PANIC",
    "journal_path=/dev/sdb", "journal_dev=2049", "logdev=/dev/sdb", "rtdev=/dev/sdb", "device=/dev/sdb", "mounthost=evil",
    "mountaddr=10.0.0.1", "prefixpath=x", "unc=//other/share", "target=//other/share", "path=x", "subdir-mount=x", "meta",
    "privkey_serial=1", "newer-option=/etc/shadow", "newer-option=../x", "newer-option=a/../../b",
]  # fmt: skip

REFUSED = [
    ("btrfs", "subvol=../x=y"), ("nfs", "vers=4.2 suid"), ("ext4", "noatime=1"), ("ext4", "commit"), ("ext4", "commit="),
    ("ext4", "commit=soon"), ("ext4", ""), ("ext4", "=x"), ("ext4", "--bind"), ("ext4", "commit=1\nsuid"), ("ext4", "new option"),
    ("ext4", "new=a b"), ("ext4", 'context="a'), ("ext4", "new=a\\b"), ("glusterfs", "new=$(id)"), ("glusterfs", "new=`id`"),
    ("glusterfs", "new;id"), ("ext4", "new=é"), ("ext4", "new=" + 256 * "x"), ("glusterfs", "server-port=x"),
    ("cifs", "uid=root"), ("nfs", "nofail=1 2"),
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
def test_what_cannot_be_meant_is_refused(kind: str, option: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        mountoptions.check("p", kind, [option])


@pytest.mark.parametrize("option", ["nofail", "noauto", "auto"])
def test_what_only_fstab_means_is_taken_and_left_out(option: str) -> None:
    assert mountoptions.check("p", "ext4", ["noatime", option]) == ["noatime"]


@pytest.mark.parametrize("option", sorted(mountoptions.dangerous()))
def test_every_reason_is_a_sentence_that_is_said(option: str) -> None:
    with pytest.raises(errors.Unsafe, match=re.escape(f"is not allowed: {mountoptions.dangerous()[option]}")):
        mountoptions.check("p", "auto", [option.replace("*", "thing")])


def test_the_sentences() -> None:
    def said(kind: str, option: str) -> tuple[str, str | None]:
        with pytest.raises(errors.PoolkitError) as caught:
            mountoptions.check("p", kind, [option])
        return str(caught.value), caught.value.hint

    assert said("ext4", "suid") == (
        "pool 'p': the mount option 'suid' is not allowed: it lets files of the storage become root", None
    )  # fmt: skip
    assert said("cifs", "password=x")[1] == "name the user and the secret by <auth type='smb'> in the source"
    assert said("ext4", "errors=panic")[0].endswith(
        "is not allowed: it stops the whole machine when the storage has an error"
    )
    assert said("ext4", "new option")[0] == (
        "pool 'p': 'new option' cannot be a mount option: it has characters that none has"
    )
    assert (
        said("ext4", "commit=soon")[0] == "pool 'p': the mount option 'commit' does not take that value: 'commit=soon'"
    )
    assert said("ext4", "noatime=1")[0] == "pool 'p': the mount option 'noatime' takes no value: 'noatime=1'"
    assert said("ext4", "commit")[0] == "pool 'p': the mount option 'commit' needs a value: 'commit'"
    assert said("nfs", "soft,exec")[1] == "give each option an <fs:option> of its own"


def test_no_allowed_option_undoes_the_safe_ones() -> None:
    for names in mountoptions.reference().values():
        assert not [name for name in names if mountoptions.danger(name)]
    assert mounting.SAFE == ("nosuid", "nodev", "noexec")


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
