"""Which options of mount(8) a definition may give, by file system.

What is dangerous is refused with the reason: an option can name files, read secrets, run helpers, mount something else, or
bring the machine down (``errors=panic``). What a table knows is checked, so that a slip is found when the pool is defined and
not at the next boot. The rest passes if it is made of letters that no parser could split: kernels bring new options, and
other tools write some that mean nothing here. Names and meanings are those of mount(8), nfs(5), mount.cifs(8), mount.glusterfs
and the kernel's documentation of each file system.
"""

from __future__ import annotations

from functools import cache

from poolkit import errors
from poolkit.lean import TYPE_CHECKING, pattern

if TYPE_CHECKING:
    from collections.abc import Iterable


# They come last, because a later option cancels an earlier one.

_N = r"\d{1,10}"
_SIZE = r"\d{1,10}[kKmMgG]?"
_WORD = r"[A-Za-z0-9_.:+-]{1,64}"
_OCTAL = r"0?[0-7]{1,4}"
_ADDRESS = r"[0-9A-Fa-f.:]{2,45}"
_ID = r"[0-9]{1,10}"
_FLAG = ""  # takes no value

_GENERAL = {
    _FLAG: "ro rw sync async dirsync atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime "
    "nolazytime iversion noiversion silent loud defaults _netdev nosuid nodev noexec nosymfollow"
}
_EXT = {
    _FLAG: "acl noacl user_xattr nouser_xattr barrier nobarrier discard nodiscard delalloc nodelalloc norecovery noload "
    "journal_checksum journal_async_commit auto_da_alloc noauto_da_alloc block_validity noblock_validity dioread_lock "
    "dioread_nolock init_itable noinit_itable bsddf minixdf grpid nogrpid bsdgroups sysvgroups usrquota grpquota prjquota "
    "noquota quota",
    _N: "commit barrier stripe inode_readahead_blks max_batch_time min_batch_time init_itable max_dir_size_kb",
    "ordered|journal|writeback": "data",
    "continue|remount-ro": "errors",
}
_IDS = {_ID: "uid gid", _OCTAL: "umask"}

_KINDS: dict[str, dict[str, str]] = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": {
        _FLAG: "attr2 noattr2 discard nodiscard inode32 inode64 largeio nolargeio noalign norecovery nouuid swalloc wsync "
        "ikeep noikeep filestreams grpid nogrpid uquota gquota pquota uqnoenforce gqnoenforce pqnoenforce usrquota grpquota "
        "prjquota quota noquota",
        _SIZE: "allocsize logbsize",
        _N: "logbufs sunit swidth",
    },
    "btrfs": {
        _FLAG: "acl noacl autodefrag noautodefrag barrier nobarrier clear_cache compress compress-force datacow nodatacow "
        "datasum nodatasum degraded discard nodiscard enospc_debug noenospc_debug flushoncommit noflushoncommit "
        "space_cache nospace_cache ssd nossd ssd_spread nossd_spread skip_balance treelog notreelog norecovery",
        "(zlib|lzo|zstd|no|none)(:\\d{1,2})?": "compress compress-force",
        "sync|async": "discard",
        "v1|v2": "space_cache",
        _N: "commit thread_pool subvolid metadata_ratio",
        _SIZE: "max_inline",
        r"/?[A-Za-z0-9_.@+-]+(/[A-Za-z0-9_.@+-]+)*": "subvol",
    },
    "vfat": {
        **_IDS,
        _FLAG: "quiet flush discard utf8 dos1xfloppy usefree nonumtail rodir uni_xlate",
        _OCTAL: "umask dmask fmask allow_utime",
        _N: "codepage time_offset",
        _WORD: "iocharset",
        "lower|win95|winnt|mixed": "shortname",
        "strict|normal|relaxed": "check",
        "continue|remount-ro": "errors",
        "UTC": "tz",
        "0|1|true|false|yes|no": "utf8",
    },
    "udf": {
        **_IDS,
        _FLAG: "adinicb noadinicb longad shortad undelete unhide nostrict utf8",
        _OCTAL: "umask mode dmode",
        _N + "|forget|ignore": "uid gid",
        _N: "bs session anchor lastblock",
        _WORD: "iocharset",
    },
    "iso9660": {
        _FLAG: "norock nojoliet cruft hide unhide showassoc utf8 overriderockperm",
        _ID: "uid gid session sbsector block",
        _OCTAL: "mode dmode",
        _WORD: "iocharset",
        "normal|off|acorn": "map",
        "strict|relaxed": "check",
    },
    "hfs+": {**_IDS, _FLAG: "decompose nodecompose nobarrier barrier", _N: "part session", _WORD: "nls"},
    "ocfs2": {
        _FLAG: "acl noacl intr nointr inode64 user_xattr nouser_xattr usrquota grpquota",
        _N: "commit localalloc preferred_slot atime_quantum barrier resv_level dir_resv_level",
        "ordered|writeback": "data",
        "continue|remount-ro": "errors",
        "full|buffered": "coherency",
    },
    "gfs2": {
        _FLAG: "acl noacl discard nodiscard barrier nobarrier rgrplvb norgrplvb suiddir nosuiddir localflocks",
        "lock_nolock|lock_dlm": "lockproto",
        r"[A-Za-z0-9_-]{1,32}:[A-Za-z0-9_-]{1,32}": "locktable",
        _N: "commit statfs_quantum statfs_percent quota_quantum",
        "ordered|writeback": "data",
        "on|off|account": "quota",
        "withdraw": "errors",
    },
    "ufs": {
        "old|44bsd|ufs2|5xbsd|sun|sunx86|hp|nextstep|nextstep-cd|openstep": "ufstype",
        "lock|umount|repair": "onerror",
    },
    "nfs": {
        _FLAG: "hard soft softerr softreval nosoftreval intr nointr fg ac noac cto nocto lock nolock acl noacl "
        "rdirplus nordirplus resvport noresvport sharecache nosharecache fsc nofsc tcp udp rdma migration "
        "nomigration trunkdiscovery notrunkdiscovery",
        r"[234](\.\d)?": "vers nfsvers",
        _N: "minorversion port mountport mountvers timeo retrans retry rsize wsize bsize namlen acregmin acregmax acdirmin "
        "acdirmax actimeo nconnect max_connect",
        "tcp6?|udp6?|rdma6?": "proto mountproto",
        "none|sys|krb5[ip]?(:(sys|krb5[ip]?))*": "sec",
        "none|flock|posix|all": "local_lock",
        "all|none|pos|positive": "lookupcache",
        "none|tls|mtls": "xprtsec",
        "lazy|eager|wait": "write",
        _ADDRESS: "clientaddr addr",
    },
    "cifs": {
        _FLAG: "guest hard soft forceuid noforceuid forcegid noforcegid perm noperm serverino noserverino mapchars nomapchars "
        "mapposix nomapposix nobrl brl nolease seal strictsync nostrictsync persistenthandles resilienthandles "
        "nopersistenthandles noresilienthandles multichannel nomultichannel posix noposix unix nounix nodfs nosharesock "
        "fsc cifsacl idsfromsid modefromsid multiuser sign",
        "none|krb5i?": "sec",
        r"default|[123](\.\d(\.\d)?)?": "vers",
        _ID: "uid gid",
        _OCTAL: "file_mode dir_mode",
        "none|strict|loose|ro|singleclient": "cache",
        _N: "port rsize wsize bsize rasize actimeo acregmax acdirmax echo_interval max_channels max_credits "
        "handletimeout closetimeo retrans esize min_enc_offload",
        r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}": "domain workgroup netbiosname servern",
        _WORD: "iocharset",
        _ADDRESS: "addr ip srcaddr",
    },
    "glusterfs": {
        _FLAG: "acl selinux worm fopen-keep-cache enable-ino32 mem-accounting thin-client",
        "CRITICAL|ERROR|WARNING|INFO|DEBUG|TRACE|NONE": "log-level",
        # libvirt mounts every gluster pool with direct-io-mode=1
        "enable|disable|yes|no|on|off|true|false|0|1": "direct-io-mode use-readdirp root-squash kernel-writeback-cache "
        "fopen-keep-cache auto-invalidation global-threading",
        _N: "reader-thread-count server-port volfile-server-port lru-limit invalidate-limit fetch-attempts",
        r"\d{1,6}(\.\d{1,6})?": "attribute-timeout entry-timeout negative-timeout background-qlen congestion-threshold "
        "event-history",
        r"[A-Za-z0-9_.:-]{1,255}": "backup-volfile-servers backupvolfile-server",
    },
}

# What only those have a use for who read /etc/fstab. Taken, and not given to mount(8): with `nofail` it would end well although
# nothing is mounted, and whether a pool is up is told by the pool.
FSTAB = frozenset({"nofail", "noauto", "auto"})

_VALUE = pattern(r"[A-Za-z0-9_.:+@%~/=-]{0,255}")  # of an option that no table has: nothing that a parser could split
_NAME = pattern(r"[A-Za-z_][A-Za-z0-9_.+-]{0,63}")
_CHOICES = "[A-Za-z]{3}"  # in a table's pattern: words, of which a new kernel may know more

_OTHER_MOUNT = "it changes how a mount is shared, or one that is there already"
_OTHER_SOURCE = "it mounts something else than the source"
_OTHER_DEVICE = "it uses another device than the source"
_IMPLIES = "it implies others that poolkit sets, and lets users unmount it"
_LOOP = "the source must be a device"
_LOGIN = "logins have no place in an option"
_FILE = "it names a file of the host"
_PROGRAM = "it runs another program, or gives it options that nobody has looked at"
_FUSE = "it is between the kernel and the program that serves the mount"

# Dangerous in the hands of who writes a definition that root starts, whatever the file system. Names in lower case: helpers
# of mount(8) compare some without regard to case, and by their beginning.
_WHY: dict[str, str] = {
    "suid": "it lets files of the storage become root",
    "dev": "it lets the storage hold device nodes",
    "exec": "it lets files of the storage be run",
    **dict.fromkeys(("user", "users", "owner", "group"), _IMPLIES),
    **dict.fromkeys(
        ("remount", "move", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"),
        _OTHER_MOUNT,
    ),
    **dict.fromkeys(("bind", "rbind", "source", "unc", "target", "path", "prefixpath", "meta"), _OTHER_SOURCE),
    **dict.fromkeys(("volume-name", "volume-id", "subdir-mount", "volfile"), _OTHER_SOURCE),
    **dict.fromkeys(("loop", "offset", "sizelimit", "encryption"), _LOOP),
    **dict.fromkeys(("journal_path", "journal_dev", "logdev", "rtdev", "device"), _OTHER_DEVICE),
    **dict.fromkeys(("username", "password", "password2", "pass", "pass2"), _LOGIN),
    **dict.fromkeys(("log-file", "dump-fuse", "pid-file"), _FILE),
    **dict.fromkeys(("helper", "uhelper", "fuse-mountopts", "fuse-opt", "xlator-option"), _PROGRAM),
    **dict.fromkeys(("fd", "rootmode", "user_id", "group_id"), _FUSE),
    "cruid": "it takes the tickets of another user",
    "privkey_serial": "it takes a key of the host",
    "mounthost": "it asks another server than the source's",
    "mountaddr": "it asks another server than the source's",
    "bg": "mount would end before anything is mounted",
}
_WHY_BEGINNING = {
    "cred": "it reads a file of the host",  # mount.cifs takes any word that begins so for `credentials`
    "x-": "it is meant for mount(8) itself, or for readers of fstab, and may run or make things",
    "verity.": "it names files and devices of the host",
}


@cache
def _table(kind: str) -> dict[str, list[str]]:
    """From the name of each option that is known to the patterns of its values; an empty pattern means no value."""
    table: dict[str, list[str]] = {}
    for group in (_GENERAL, _KINDS.get(kind, {})):
        for values, names in group.items():
            for name in names.split():
                table.setdefault(name, []).append(values)
    return table


def danger(name: str, value: str = "") -> str | None:
    """Why an option may not be given, whatever the file system; None if nothing speaks against it."""
    name = name.lower()
    if value.lower() in ("panic", "bug"):
        return "it stops the whole machine when the storage has an error"
    begins = next((why for beginning, why in _WHY_BEGINNING.items() if name.startswith(beginning)), None)
    return begins or _WHY.get(name)


def check(pool: str, kind: str, given: Iterable[str]) -> list[str]:
    """The options that mount(8) is to be given, for a file system of ``kind`` (a ``<format>`` value).

    Raises ``Unsafe`` for one that is dangerous, ``InvalidArgument`` for one that cannot be meant: no word of letters, or a
    known one with a value that it does not take. What is not known is for the file system to judge, and passes.
    """
    import re

    table = _table(kind)
    found = []
    for option in given:
        name, equals, value = option.partition("=")
        shown = option[:80]
        if "," in option:
            raise errors.Unsafe(
                f"pool '{pool}': the mount option '{shown}' contains a comma, which would begin another option",
                pool=pool, hint="give each option an <fs:option> of its own",
            )  # fmt: skip
        if why := danger(name, value):
            raise errors.Unsafe(
                f"pool '{pool}': the mount option '{shown}' is not allowed: {why}", pool=pool,
                hint="name the user and the secret by <auth type='smb'> in the source" if why == _LOGIN else None,
            )  # fmt: skip
        if name in FSTAB and not equals:
            continue
        patterns = table.get(name)
        if patterns is None:
            _check_unknown(pool, shown, name, value)
        elif not any(re.fullmatch(p, value) if p and equals else not (p or equals) for p in patterns) and not (
            equals and any(re.search(_CHOICES, p) for p in patterns) and _plain(value)
        ):
            lacks = "takes no value" if patterns == [_FLAG] else "does not take that value"
            raise errors.InvalidArgument(
                f"pool '{pool}': the mount option '{name}' {lacks if equals else 'needs a value'}: '{shown}'", pool=pool
            )
        found.append(option)
    return found


def _plain(value: str) -> bool:
    return bool(_VALUE.fullmatch(value)) and value[:1] != "/" and ".." not in value.split("/")


def _check_unknown(pool: str, shown: str, name: str, value: str) -> None:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise errors.InvalidArgument(
            f"pool '{pool}': '{shown}' cannot be a mount option: it has characters that none has", pool=pool
        )
    if not _plain(value):
        raise errors.Unsafe(f"pool '{pool}': the mount option '{shown}' is not allowed: {_FILE}", pool=pool)


def dangerous() -> dict[str, str]:
    """The options that are refused, with the reason, for the manual; a name that ends in ``*`` is a beginning."""
    return {**_WHY, **{f"{beginning}*": why for beginning, why in _WHY_BEGINNING.items()}}


def reference() -> dict[str, tuple[str, ...]]:
    """The names of the options that are known by file system; ``all`` has those that every one of them takes."""
    return {"all": tuple(sorted(_table(""))), **{
        kind: tuple(sorted({name for names in groups.values() for name in names.split()}))
        for kind, groups in _KINDS.items()
    }}  # fmt: skip
