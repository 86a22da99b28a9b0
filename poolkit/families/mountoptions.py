"""Which options of mount(8) a definition may give, by file system.

A list of what is allowed, not of what is forbidden: an option can name files, read secrets, run helpers, cancel ``nosuid``
or bring the machine down (``errors=panic``), and new kernels bring new ones. Names and meanings are those of mount(8),
nfs(5), mount.cifs(8) and the kernel's documentation of each file system.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from poolkit import errors

# They come last, because a later option cancels an earlier one.
SAFE = ("nosuid", "nodev", "noexec")

_N = r"\d{1,10}"
_SIZE = r"\d{1,10}[kKmMgG]?"
_WORD = r"[A-Za-z0-9_.:+-]{1,64}"
_OCTAL = r"0?[0-7]{1,4}"
_ADDRESS = r"[0-9A-Fa-f.:]{2,45}"
_ID = r"[0-9]{1,10}"
_FLAG = ""  # takes no value

_GENERAL = {
    _FLAG: "ro rw sync async dirsync atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime "
    "nolazytime iversion noiversion silent loud defaults _netdev nosuid nodev noexec"
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
        _ADDRESS: "clientaddr",
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
    },
    "glusterfs": {
        _FLAG: "acl selinux worm fopen-keep-cache enable-ino32 mem-accounting thin-client",
        "CRITICAL|ERROR|WARNING|INFO|DEBUG|TRACE|NONE": "log-level",
        "enable|disable|yes|no|on|off": "direct-io-mode use-readdirp root-squash reader-thread-count kernel-writeback-cache",
        r"\d{1,6}(\.\d{1,6})?": "attribute-timeout entry-timeout negative-timeout background-qlen congestion-threshold "
        "event-history",
        r"[A-Za-z0-9_.:-]{1,255}": "backup-volfile-servers backupvolfile-server",
    },
}

# Why the better known of those that are not allowed are not.
_WHY = {
    "suid": "it lets files of the storage become root", "dev": "it lets the storage hold device nodes",
    "exec": "it lets files of the storage be run", "user": "it implies others that poolkit sets",
    "users": "it implies others that poolkit sets", "owner": "it implies others that poolkit sets",
    "group": "it implies others that poolkit sets", "remount": "it changes a mount that is there already",
    "bind": "it mounts something else than the source", "rbind": "it mounts something else than the source",
    "move": "it moves a mount that is there already", "loop": "the source must be a device",
    "offset": "the source must be a device", "encryption": "the source must be a device",
    "context": "labels are the machine's own affair", "fscontext": "labels are the machine's own affair",
    "defcontext": "labels are the machine's own affair", "rootcontext": "labels are the machine's own affair",
    "credentials": "it reads a file of the host", "cred": "it reads a file of the host",
    "username": "logins have no place in a definition", "user_id": "logins have no place in a definition",
    "password": "secrets have no place in a definition", "pass": "secrets have no place in a definition",
    "password2": "secrets have no place in a definition", "bg": "mount would end before anything is mounted",
    "cruid": "it takes the tickets of another user",
    "helper": "it runs another program", "log-file": "it writes a file of the host",
}  # fmt: skip


@functools.cache
def _table(kind: str) -> dict[str, list[str]]:
    """From the name of each allowed option to the patterns of its values; an empty pattern means no value."""
    table: dict[str, list[str]] = {}
    for group in (_GENERAL, _KINDS.get(kind, {})):
        for pattern, names in group.items():
            for name in names.split():
                table.setdefault(name, []).append(pattern)
    return table


def check(pool: str, kind: str, given: Iterable[str]) -> list[str]:
    """The options if all are allowed for file systems of ``kind`` (a ``<format>`` value; others: the general options).

    Raises ``Unsafe`` for one that is known to be dangerous, ``InvalidArgument`` for any other.
    """
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
        if name in _WHY or name.lower().startswith("x-"):
            why = _WHY.get(name, "it is meant for mount(8) itself and may run or make things")
            raise errors.Unsafe(f"pool '{pool}': the mount option '{shown}' is not allowed: {why}", pool=pool)
        patterns = table.get(name)
        if patterns is None:
            raise errors.InvalidArgument(
                f"pool '{pool}': '{shown}' is not among the mount options allowed for "
                + ("a file system that is not named" if kind == "auto" else kind), pool=pool,
                hint="name it: <format type='ext4'/>" if kind == "auto" else _near(name, list(table)),
            )  # fmt: skip
        if not any(re.fullmatch(p, value) if p and equals else not (p or equals) for p in patterns):
            lacks = "takes no value" if patterns == [_FLAG] else "does not take that value"
            raise errors.InvalidArgument(
                f"pool '{pool}': the mount option '{name}' {lacks if equals else 'needs a value'}: '{shown}'", pool=pool,
                hint="a login needs a password, which no definition can give: use krb5 or none, or leave it out for a guest"
                if (kind, name) == ("cifs", "sec") else None,
            )  # fmt: skip
        found.append(option)
    return found


def _near(name: str, names: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean '{near[0]}'?" if near else "the list is in the manual's page on the pool type"


def reference() -> dict[str, tuple[str, ...]]:
    """The names of all allowed options by file system, for the manual; ``all`` has those that every one of them takes."""
    return {"all": tuple(sorted(_table(""))), **{
        kind: tuple(sorted(name for names in groups.values() for name in names.split()))
        for kind, groups in _KINDS.items()
    }}  # fmt: skip
