"""Every verb of the command, as data. The parser, ``--help``, shell completion and the reference page read this table.

To add a verb, add an entry here and the function it names (``module:function`` below ``poolkit.cli``). The function gets
the :class:`~poolkit.cli.session.Session` and the parsed values, and reports through the session alone.
"""

from __future__ import annotations

from typing import NamedTuple

from poolkit.cli.arguments import Argument, data, flag, option


class Verb(NamedTuple):
    """One verb. ``aliases`` has virsh's name first; ``json`` says what ``--json`` prints, ``more`` ends the long help."""

    name: str
    run: str
    help: str
    arguments: tuple[Argument, ...] = ()
    aliases: tuple[str, ...] = ()
    group: str = "pools"
    json: str = "outcome"
    more: str = ""


GROUPS = {
    "pools": "Pools",
    "volumes": "Volumes",
    "flavors": "Flavors",
    "secrets": "Secrets",
    "documents": "Documents",
    "host": "This machine",
    "shell": "The command itself",
}
"""The sections of the help and of the reference page, in order."""

SHAPES = {
    "outcome": "object: verb, pool, changed, message; and where they apply uuid, volume (as vol-info prints it), pending "
    "(list of path, running, new), warnings (list), dry_run and plan (list of lines)",
    "outcomes": "list of objects: pool, result (started, unchanged, failed, timed-out, skipped), seconds; and changed, message, "
    "or error (an error object)",
    "pool": "object: name, uuid, type, state, active, persistent, autostart, target, capacity, allocation, available (bytes), "
    "refreshed (seconds since 1970 or null), reason",
    "pools": "list of the objects that info prints",
    "volume": "object: pool, name, key, path, type, format, capacity, allocation, physical (bytes), mode (octal text), owner, "
    "group, atime, mtime, ctime (seconds since 1970 as text), and rarer facts where known: backing, backing_format, "
    "backing_kind, data_file, encryption, compat, cluster_size, features, extents, content, also, ambiguous, looks_like, "
    "extent_files, missing (paths of what it stands on that are not there), half_written (what was broken off), link (where a "
    "symbolic link leads to), replaced, unread, unseen, warning, error, of "
    "Sheepdog vdi_id, lineage, object_size, copies, snapshot_of, snapshot_id, and of rbd id, order, parent, snapshots",
    "volumes": "list of the objects that vol-info prints",
    "links": "list of objects: path, format, pool, volume, capacity (null where unknown), kind, problem (empty if none)",
    "secrets": "list of objects: uuid, usage_type, usage, has_value, ephemeral, private, description",
    "flavors": "list of objects: name, description, policy, backends (list of names of pools)",
    "sm": "as the action: the object that flavor-define prints, a list of objects name, description; a list of objects, or one, "
    "number, flavor, pool, uuid, type, config (object); an object verb, changed, message",
    "flavor-outcome": "object: verb, flavor, changed, message; and where they apply warnings, dry_run and plan",
    "backends": "list of objects: pool, turn (from 1; 0 if it would not be tried), why, priority, total, free, provisioned, "
    "promised, reserved, ratio, room",
    "secret-outcome": "object: verb, changed, message, secret (as secret-list prints it)",
    "locks": "object: lock, node, role, attached (object: names of nodes by volume), and what the type tells",
    "document": "object: xml (text)",
    "documents": "list of objects: file, xml",
    "verdicts": "list of objects: file, valid, kind, problems (list of source, line, column, path, message), judges",
    "plan": "object: version, changed, entries (list of action add|change|remove|none, kind pool|volume|secret|flavor, name, "
    "pool, changes (list of field, old, new, when now|next-start|shrink|replace), steps, needs, after (lists), place, note, "
    "pending (as changes))",
    "applied": "object: changed, results (list of kind, name, pool, result done|unchanged|failed|skipped, messages, warnings, "
    "and error), remaining (entries as plan has them: what is different still)",
    "diff": "object: changed, diff (text)",
    "imported": "object: changed, results (list of kind, name, result taken|unchanged|different|failed, messages, warnings, and "
    "error), marks (list of commands that remove libvirt's marks for autostart), warnings",
    "exported": "object: files, left (lists)",
    "text": "object: the one value that was asked for, by its name",
    "types": "list of objects: type, supported, verbs, source_formats, volume_formats, tools, error",
    "sources": "list of objects: xml, and the fields of the source",
    "images": "list of objects: path, format, virtual_size, actual_size (bytes), backing_file, backing_format, backing_kind, "
    "data_file, encrypted, encryption, compat, cluster_size, also, ambiguous, error, and more; null where unknown",
    "health": "object: ok, checks (list of name, status ok|note|problem, message, hint)",
    "units": "list of objects: name, text",
    "recovered": "object: recovered (list of lines), failed (list of files)",
    "verbs": "list of objects: name, aliases, group, help, arguments, json",
    "none": "nothing",
}
"""What ``--json`` prints, by the name that a verb's ``json`` has."""

_POOL = data("pool", "name or uuid of the pool", "pool")
_VOLUME = data("vol", "the volume: its name with --pool, else its key or path", "volume")
_IN_POOL = option("--pool", "the pool (name or uuid) the volume is in", "pool", late=True)
_XPATH = (
    option("--xpath", "print only what an XPath expression finds", late=True),
    flag("--wrap", "put what --xpath finds into one element"),
)
_FILE = data("file", "the XML document; - is standard input", "file")
_LENIENT = flag("--lenient", "drop unknown elements with a warning instead of refusing them")
_VALIDATE = flag("--validate", "check the document with the RELAX NG and XSD grammars as well")
_BUILD = flag("--build", "build the pool's storage first")
_OVERWRITE = flag("--overwrite", "let build destroy what the source holds")
_NO_OVERWRITE = flag(
    "--no-overwrite", "let build refuse a source that holds anything (this is the rule without options, too)"
)
_PREALLOC = (
    option("--prealloc", "what to reserve: nothing, the metadata, the space, or space that is written", "word",
           ("off", "metadata", "falloc", "full")),
    flag("--prealloc-metadata", "the same as --prealloc metadata"),
)  # fmt: skip
_OWNED = (
    option("--owner", "user it belongs to, by name or number"), option("--group", "group it belongs to, by name or number"),
    option("--mode", "its permission bits, octal, such as 0640"),
)  # fmt: skip
_COPY = (
    flag("--linked", "make an overlay that stands on the source, instead of a copy"),
    flag("--reflink", "share blocks with the source, or fail"),
    flag("--no-reflink", "copy every block, even where blocks could be shared"),
    option("--secret", "uuid or usage of the secret that opens an encrypted source"),
)
_FORCE = flag(
    "--force",
    "even if other volumes or active pools stand on it, a machine has it open, or the file has several names (hard links), which "
    "all change",
)
_FORCE_POOL = flag("--force", "even if active pools, or volumes of them, stand on it")
_IN_FLAVOR = option("--flavor", "instead of POOL: the first pool of this flavor that takes the volume")._replace(
    instead="pool"
)
_FLAVOR = data("flavor", "name of the flavor")
_SECRET = data("secret", "uuid of the secret, or the name of its usage")
_FORM = option(
    "--form",
    "what the file is, where the pool's type knows it: a VHD, or a gzipped tar of the raw bytes",
    "word",
    ("vhd", "tar"),
)
_RANGE = (
    option("--offset", "first byte of the volume (0 by default)", "size", late=True),
    option("--length", "how many bytes (all by default)", "size", late=True),
    flag("--sparse", "keep holes as holes"),
)
_WATCH = (
    flag("--loop", "go on after the first"), option("--timeout", "give up after so long", "seconds"),
    flag("--list", "list the kinds of events"), flag("--timestamp", "print the time before each"),
)  # fmt: skip
_AS = (
    data("name", "name of the pool"), data("type", "type of the pool"), flag("--print-xml", "print the document, and do nothing"),
    *(
        option(f"--{name}", help, late=True)
        for name, help in (
            ("source-host", "server of the source"), ("source-path", "directory of the source on it"),
            ("source-dev", "device of the source"), ("source-name", "name of the source, such as a volume group"),
            ("target", "directory of the volumes"), ("source-format", "format of the source"),
            ("auth-type", "kind of the login"), ("auth-username", "user to log in as"),
            ("secret-usage", "usage of the secret for the login"), ("secret-uuid", "uuid of the secret for the login"),
            ("adapter-name", "SCSI adapter, such as host5"), ("adapter-wwnn", "node name of a virtual adapter"),
            ("adapter-wwpn", "port name of a virtual adapter"), ("adapter-parent", "parent of a virtual adapter"),
            ("adapter-parent-wwnn", "node name of its parent"), ("adapter-parent-wwpn", "port name of its parent"),
            ("adapter-parent-fabric-wwn", "fabric name of its parent"), ("source-protocol-ver", "version of NFS"),
            ("source-initiator", "iSCSI initiator name"),
        )
    ),
)  # fmt: skip
_FOLDERS = data("path", "folders of documents, or documents", "file", "+")
_PRUNE = flag("--prune", "remove what an earlier apply of the same paths made and no document describes any more")
_UNCHANGED = flag("--all", "name also what there is nothing to do for")
_BYTES = flag("--bytes", "print sizes in bytes")
_DEFINE = flag("--define", "print definitions of pools with these sources, ready to be defined")
_NAME_ONLY = flag("--name", "print names only, one per line")
_UUID_ONLY = flag("--uuid", "print uuids only, one per line")

VERBS: tuple[Verb, ...] = (
    # -- pools -------------------------------------------------------------------------------------------------
    Verb(
        "define", "pool_verbs:define", "store a pool's definition, or change it; its state stays",
        (_FILE, _VALIDATE, _LENIENT), ("pool-define",),
        more="Defining what is defined already changes nothing. For an active pool the answer lists the fields that wait for "
        "the next start.",
    ),
    Verb(
        "undefine", "pool_verbs:undefine", "forget a pool's definition; storage and data stay",
        (_POOL, flag("--force", "even if a flavor has it as a backend")), ("pool-undefine",),
    ),
    Verb(
        "build", "pool_verbs:build", "make the storage that the definition describes",
        (_POOL, _OVERWRITE, _NO_OVERWRITE), ("pool-build",),
    ),
    Verb(
        "start", "pool_verbs:start", "bring a pool up and list its volumes",
        (
            data("pool", "name or uuid of the pool", "pool", "?"), _BUILD, _OVERWRITE, _NO_OVERWRITE,
            flag("--autostart", "start every pool that is marked for autostart, instead of one"),
            option("--deadline", "with --autostart, give a pool up that is not up after so long (120 by default)", "seconds"),
        ),
        ("pool-start",), json="outcome; with --autostart outcomes",
        more="With --autostart pools are started side by side, each behind those it stands on. One that fails or hangs does not "
        "stop the others; one that stands on it is not tried. The exit status is that of the first failure. This is what a boot "
        "service runs.",
    ),
    Verb(
        "create", "pool_verbs:create", "start a pool from a document without storing it; it vanishes when it is stopped",
        (_FILE, _BUILD, _OVERWRITE, _NO_OVERWRITE, _VALIDATE, _LENIENT), ("pool-create",),
    ),
    Verb(
        "define-as", "as_verbs:define_as", "store a pool's definition made from arguments", _AS, ("pool-define-as",),
        more="In a place, a dash stands for nothing: define-as images dir - - - - /srv/images.",
    ),
    Verb(
        "create-as", "as_verbs:create_as", "start a pool made from arguments without storing it",
        (*_AS, _BUILD, _OVERWRITE, _NO_OVERWRITE), ("pool-create-as",),
    ),
    Verb(
        "refresh", "pool_verbs:refresh", "list the volumes of a pool anew",
        (
            _POOL, option("--vol", "look only at this volume (a name): new, changed or gone, it is listed as it is", "volume"),
            flag("--follow", "go on, and refresh whenever the storage tells of a change, for types that can (xensm)"),
        ),
        ("pool-refresh",),
    ),
    Verb("destroy", "pool_verbs:destroy", "take a pool down; no data changes", (_POOL, _FORCE_POOL), ("pool-destroy",)),
    Verb(
        "delete", "pool_verbs:delete", "delete the storage that build made; the definition stays",
        (_POOL, flag("--force", "even if active pools, or volumes of them, stand on it, or a flavor has it as a backend")),
        ("pool-delete",),
    ),
    Verb(
        "autostart", "pool_verbs:autostart", "mark a pool to be started at boot",
        (_POOL, flag("--disable", "clear the mark")), ("pool-autostart",),
    ),
    Verb(
        "list", "pool_verbs:list_pools", "list pools: the active ones, unless told otherwise",
        (
            flag("--inactive", "list inactive pools"), flag("--all", "list active and inactive pools"),
            flag("--transient", "only pools without a stored definition"), flag("--persistent", "only stored pools"),
            flag("--autostart", "only pools that are marked for autostart"),
            flag("--no-autostart", "only pools that are not marked for autostart"),
            option("--type", "only these types, with commas between", "words", late=True),
            flag("--details", "all facts, with sizes"), _BYTES, _NAME_ONLY, _UUID_ONLY,
        ),
        ("pool-list",), json="pools",
    ),
    Verb("info", "pool_verbs:info", "show the facts of a pool", (_POOL, _BYTES), ("pool-info",), json="pool"),
    Verb(
        "dumpxml", "pool_verbs:dumpxml", "print a pool's definition as libvirt prints it",
        (_POOL, flag("--inactive", "the stored definition, even of an active pool"), *_XPATH), ("pool-dumpxml",), json="document",
    ),
    Verb(
        "edit", "pool_verbs:edit", "change a pool's stored definition in an editor", (_POOL,), ("pool-edit",),
        more="The editor is $VISUAL, $EDITOR or vi. A document with errors is offered again, and is never lost.",
    ),
    Verb(
        "event", "watch:pool_event", "wait for changes of pools, made by whatever process", (
            option("--pool", "only this pool (name or uuid)", "pool"),
            option("--event", "which kind to wait for", "word", ("lifecycle", "refresh")), *_WATCH,
        ),
        ("pool-event",), json="none",
        more="There is no daemon that tells of changes: what is kept is looked at twice a second. Changes that were taken back "
        "between two looks are not seen. The exit status is 1 if nothing happened in time.",
    ),
    Verb("uuid", "pool_verbs:uuid", "print a pool's uuid", (_POOL,), ("pool-uuid",), json="text"),
    Verb("name", "pool_verbs:name", "print a pool's name", (_POOL,), ("pool-name",), json="text"),
    Verb(
        "lock-status", "pool_verbs:lock_status", "say what keeps the hosts of a shared storage apart, and who has what",
        (_POOL,), ("pool-lock-status",), json="locks",
    ),
    Verb(
        "take-control", "pool_verbs:take_control", "make this host the one that changes a shared storage",
        (_POOL,), ("pool-take-control",),
        more="Nothing asks the host that had control before: be sure that it does not work on the storage any more.",
    ),
    # -- volumes -----------------------------------------------------------------------------------------------
    Verb(
        "vol-create", "volume_verbs:create", "make a volume from a document",
        (_POOL, _FILE, *_PREALLOC, _VALIDATE, _LENIENT, _IN_FLAVOR),
        group="volumes",
        more="With --flavor a backend that is full, unreachable, busy or down is passed over. One that is there already or "
        "cannot be meant ends the search. If no backend takes the volume the error says of each why.",
    ),
    Verb(
        "vol-create-as", "volume_verbs:create_as", "make a volume from arguments",
        (
            _POOL, data("name", "name of the new volume"),
            data("capacity", "its size, such as 20GiB; bytes without a unit", "size"),
            option("--allocation", "how much of it to reserve: all by default, 0 for a sparse volume", "size", late=True),
            option("--format", "its format; the pool type's default otherwise", late=True),
            option("--backing-vol", "the volume or image to be an overlay of: its name, key or path", "volume", late=True),
            option("--backing-vol-format", "format of the backing image", late=True),
            *_OWNED, *_PREALLOC,
            option("--stripes", "spread a logical volume over so many devices", "number"),
            option("--mirrors", "keep so many further copies of a logical volume on other devices", "number"),
            flag("--print-xml", "print the document, and make nothing"), _IN_FLAVOR,
        ),
        group="volumes",
    ),
    Verb(
        "vol-list", "volume_verbs:list_volumes", "list the volumes of a pool",
        (_POOL, flag("--details", "more facts"), _BYTES, _NAME_ONLY), group="volumes", json="volumes",
    ),
    Verb(
        "vol-info", "volume_verbs:info", "show the facts of a volume as they are now",
        (_VOLUME, _IN_POOL, _BYTES, flag("--physical", "show the size on the host instead of the space in use")),
        group="volumes", json="volume",
    ),
    Verb(
        "vol-dumpxml", "volume_verbs:dumpxml", "print the facts of a volume as libvirt prints them",
        (_VOLUME, _IN_POOL, *_XPATH),
        group="volumes", json="document",
    ),
    Verb(
        "vol-disk-xml", "volume_verbs:disk_xml", "print the disk element with which a machine uses a volume",
        (
            _POOL, data("vol", "the volume: its name, key or path", "volume"),
            flag("--chain", "write down the images that it stands on, each a volume of an active pool"),
            flag("--pool-form", "name pool and volume instead of a place: libvirt must have a pool of that name"),
            flag("--qemu", "print the JSON of QEMU's -blockdev instead"),
            option("--target", "name of the disk in the machine, such as vdb, and of QEMU's node"),
            option("--cache", "use of the host's page cache; what suits the storage otherwise", "word",
                   ("none", "writeback", "writethrough", "directsync", "unsafe")),
        ),
        group="volumes", json="object: xml (text), or with --qemu blockdev (object); warnings (list)",
        more="The format is the one on record, and never guessed. An encrypted volume needs a secret whose usage is its path.",
    ),
    Verb(
        "vol-delete", "volume_verbs:delete", "delete a volume and its data",
        (
            _VOLUME, _IN_POOL, flag("--force", "even if other volumes or active pools stand on it, or a machine has it open"),
            flag("--delete-snapshots", "with its snapshots, where these are part of a volume (rbd)"),
        ),
        group="volumes",
    ),
    Verb(
        "vol-resize", "volume_verbs:resize", "change the capacity of a volume",
        (
            _VOLUME, data("capacity", "the new size, such as 30GiB; bytes without a unit", "change"), _IN_POOL,
            flag("--allocate", "reserve the space that is added, or all of it if none is"),
            flag("--delta", "change the size by so much, which may be negative"),
            flag("--shrink", "allow it to become smaller, which cuts off data"), _FORCE,
        ),
        group="volumes",
    ),
    Verb(
        "vol-permit", "volume_verbs:permit", "change the mode, owner and group of a volume that is a file",
        (_VOLUME, *_OWNED, _IN_POOL, _FORCE), group="volumes",
    ),
    Verb("vol-path", "volume_verbs:path", "print a volume's path", (_VOLUME, _IN_POOL), group="volumes", json="text"),
    Verb("vol-key", "volume_verbs:key", "print a volume's key", (_VOLUME, _IN_POOL), group="volumes", json="text"),
    Verb("vol-name", "volume_verbs:name", "print a volume's name", (_VOLUME, _IN_POOL), group="volumes", json="text"),
    Verb(
        "vol-pool", "volume_verbs:pool", "print the pool a volume is in",
        (_VOLUME, _IN_POOL, flag("--uuid", "print its uuid instead of its name")), group="volumes", json="text",
    ),
    Verb(
        "vol-clone", "content_verbs:clone", "make a volume with the content of another one",
        (
            _VOLUME, data("newname", "name of the new volume"), _IN_POOL,
            option("--to-pool", "the pool for the new volume; that of the source otherwise", "pool"),
            option("--format", "its format; that of the source otherwise"),
            option("--capacity", "its size, if larger than that of the source", "size"),
            *_OWNED, flag("--same-owner", "owner, group and mode of the source, where nothing else is said"),
            *_COPY, *_PREALLOC, flag("--print-xml", "print the document, and make nothing"),
            option("--flavor", "instead of --to-pool: the first pool of this flavor that takes the volume"),
            flag("--overwrite", "NEWNAME is there already, in a pool whose volumes are made elsewhere: replace its content"),
        ),
        group="volumes",
        more="In the same format the bytes are copied, with shared blocks where the file system can. Another format is a "
        "conversion, which reads a backing image only if it is a volume of an active pool.",
    ),
    Verb(
        "vol-create-from", "content_verbs:create_from", "make a volume from a document, with the content of another volume",
        (
            _POOL, _FILE, _VOLUME, option("--inputpool", "the pool (name or uuid) the source is in", "pool", late=True),
            *_COPY, *_PREALLOC, _VALIDATE, _LENIENT,
        ),
        group="volumes",
    ),
    Verb(
        "vol-import", "importing:import_volume", "make a volume of an image: a file, what a server has, or standard input",
        (
            _POOL, data("name", "name of the new volume"),
            data("file", "the image: a file, an http or https address, or - for standard input", "file"),
            option("--format", "format of the volume; that of the image otherwise, raw where volumes are devices"),
            option("--source-format", "format of the image, where its header must not decide"),
            option("--capacity", "its size, if larger than that of the image", "size"),
            option("--allocation", "how much of it to reserve; what its data takes otherwise", "size"),
            option("--checksum", "what the image's bytes must add up to: sha256:HEX or sha512:HEX"),
            *_OWNED, *_PREALLOC, option("--secret", "uuid or usage of the secret that opens an encrypted image"), _IN_FLAVOR,
        ),
        group="volumes",
        more="The volume is there when all bytes have arrived, the checksum is right and the image was found sound; until then, "
        "and if anything fails, there is nothing. Another format is a conversion. What comes from a server or standard input "
        "waits in the pool's directory, or for pools without one in $TMPDIR or /var/tmp. Redirects lead to http and https only, "
        "and never from https to http.",
    ),
    Verb(
        "vol-wipe", "content_verbs:wipe", "make the data of a volume unreadable; it stays, empty",
        (
            _VOLUME, _IN_POOL,
            option("--algorithm", "how; zero by default", "word",
                   ("zero", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random", "trim"), late=True),
            _FORCE,
        ),
        group="volumes",
        more="zero makes the volume read as zeros; its blocks may be freed instead of overwritten, and trim always frees "
        "them. The others write over the blocks. On copy-on-write file systems, SSDs and shared blocks old data may survive "
        "any of them.",
    ),
    Verb(
        "vol-upload", "content_verbs:upload", "write a file's bytes into a volume",
        (
            _VOLUME, data("file", "the file; - is standard input", "file"), _IN_POOL, *_RANGE, _FORM,
            flag("--allow-backing", "accept an image that stands on a backing image"), _FORCE,
        ),
        group="volumes",
        more="A raw volume is written in place and keeps its size and format, whatever the bytes look like. An image is replaced "
        "as a whole once all of it has arrived and its header is sound.",
    ),
    Verb(
        "vol-download", "content_verbs:download", "write a volume's bytes, as they are, into a file",
        (_VOLUME, data("file", "the file; - is standard output", "file"), _IN_POOL, *_RANGE, _FORM), group="volumes",
    ),
    Verb(
        "vol-chain", "content_verbs:chain", "show the images a volume stands on", (_VOLUME, _IN_POOL, _BYTES),
        group="volumes", json="links",
        more="Only regular files and block devices are opened. The exit status is 9 if the chain cannot be followed to its end.",
    ),
    Verb(
        "vol-adopt", "content_verbs:adopt", "record the format of a volume, so that it is never guessed again",
        (_VOLUME, _IN_POOL, option("--format", "the format; what the header says otherwise")), group="volumes",
        more="A volume that an interrupted upload or wipe left half-written is taken as it is, and not told of any more.",
    ),
    Verb(
        "vol-attach", "content_verbs:attach", "make a volume of shared storage usable on this host, and on no other",
        (
            _VOLUME, _IN_POOL, flag("--shared", "on this host as on others, at the same time"),
            option("--node", "allow another host to attach it, by its name"),
            option("--vm", "the virtual machine that gets it, by name or uuid, where the storage's own hosts run machines"),
        ),
        group="volumes",
    ),
    Verb(
        "vol-detach", "content_verbs:detach", "end the use of a volume of shared storage on this host",
        (
            _VOLUME, _IN_POOL, option("--node", "for another host, by its name; needs --force"),
            option("--vm", "take it from this virtual machine alone, by name or uuid"),
            flag("--force", "the other host is dead, or known to have let go: nothing can ask it"),
        ),
        group="volumes",
    ),
    # -- flavors -----------------------------------------------------------------------------------------------
    Verb(
        "flavor-define", "flavor_verbs:define", "store a flavor, or change it; volumes stay where they are",
        (_FILE, _VALIDATE, _LENIENT), group="flavors", json="flavor-outcome",
    ),
    Verb("flavor-list", "flavor_verbs:list_flavors", "list the flavors", group="flavors", json="flavors"),
    Verb("flavor-dumpxml", "flavor_verbs:dumpxml", "print a flavor's document", (_FLAVOR, *_XPATH), group="flavors",
         json="document"),
    Verb(
        "flavor-delete", "flavor_verbs:delete", "forget a flavor that has no volumes; its pools stay", (_FLAVOR,),
        ("flavor-undefine",), "flavors", "flavor-outcome",
    ),
    Verb(
        "flavor-explain", "flavor_verbs:explain", "say which backend would take a volume, and why the others would not",
        (
            _FLAVOR, data("capacity", "size of the volume (0 by default)", "size", "?"),
            option("--allocation", "how much of it to reserve: all by default", "size", late=True),
            option("--format", "its format", late=True), _BYTES,
        ),
        group="flavors", json="backends",
    ),
    Verb(
        "sm", "sm_verbs:run", "storage repositories of XenServer and XCP-ng as backends of flavors, by number",
        (
            data("action", "what to do", "word", "1", ("flavor-create", "flavor-delete", "flavor-list", "backend-add",
                                                        "backend-remove", "backend-list")),
            data("words", "what the action takes", times="*"), _OVERWRITE,
        ),
        group="flavors", json="sm",
        more="flavor-create FLAVOR [DESCRIPTION]; flavor-delete FLAVOR; flavor-list [FLAVOR]; backend-add FLAVOR TYPE KEY=VALUE "
        "...; backend-remove NUMBER; backend-list [FLAVOR]. Where the hosts are is said in host.toml, [xapi]. A password is "
        "given as KEY_secret=USAGE, with the usage of a secret.",
    ),
    # -- secrets -----------------------------------------------------------------------------------------------
    Verb("secret-define", "secret_verbs:define", "store the description of a secret", (_FILE, _VALIDATE, _LENIENT),
         group="secrets", json="secret-outcome"),
    Verb(
        "secret-set-value", "secret_verbs:set_value", "set the value of a secret: typed, from standard input, or from a file",
        (
            _SECRET, option("--file", "the file with the value, in base64 unless --plain; - is standard input", "file"),
            flag("--plain", "the file has the value itself, of which every byte counts"),
            flag("--interactive", "ask for the value on the terminal"),
            data("value", "not taken from the command line, where every user of the machine can read it: use --file or "
                 "standard input", "refused", "?"),
            flag("--base64", "what comes from standard input is base64, too"), flag("--exact", "keep a newline at the end"),
            option("--from-file", "keep no value, and read it from this file whenever it is needed", "directory"),
            option("--from-credential", "keep no value, and read it from this credential of systemd (LoadCredential=)"),
        ),
        group="secrets", json="secret-outcome",
    ),
    Verb(
        "secret-get-value", "secret_verbs:get_value", "print the value of a secret in base64",
        (_SECRET, flag("--show", "really print it"), flag("--plain", "as it is, instead of in base64")),
        group="secrets", json="text",
    ),
    Verb(
        "secret-list", "secret_verbs:list_secrets", "list the secrets, without their values",
        (
            flag("--ephemeral", "only those kept in memory"), flag("--no-ephemeral", "only those kept on disk"),
            flag("--private", "only those given to nobody"), flag("--no-private", "only those whose value can be read"),
        ),
        group="secrets", json="secrets",
    ),
    Verb(
        "secret-event", "watch:secret_event", "wait for changes of secrets", (
            option("--secret", "only this secret"),
            option("--event", "which kind to wait for", "word", ("lifecycle", "value-changed")),
            *_WATCH,
        ),
        group="secrets", json="none",
    ),
    Verb("secret-dumpxml", "secret_verbs:dumpxml", "print the description of a secret", (_SECRET, *_XPATH), group="secrets",
         json="document"),
    Verb("secret-undefine", "secret_verbs:undefine", "delete a secret and its value", (_SECRET,), group="secrets",
         json="secret-outcome"),
    # -- documents ---------------------------------------------------------------------------------------------
    Verb(
        "validate", "document_verbs:validate", "check documents: the reader's rules, the RELAX NG and the XSD grammar",
        (data("file", "XML documents; - is standard input", "file", "+"),), group="documents", json="verdicts",
    ),
    Verb(
        "normalize", "document_verbs:normalize", "print documents as poolkit and libvirt would dump them",
        (data("file", "XML documents; - is standard input", "file", "+"),
         option("--pool-type", "the type of the pool that volumes are for: it decides their type and default format"),
         _LENIENT), group="documents", json="documents",
    ),
    Verb(
        "schema", "document_verbs:schema", "print the grammar of documents, with all installed pool types",
        (
            flag("--rng", "RELAX NG (the default)"), flag("--xsd", "XML Schema 1.1"),
            option("--document", "which kind of document (pool by default); plan is the JSON Schema of plan --json", "word",
                   ("pool", "volume", "secret", "flavor", "documents", "sources", "capabilities", "plan")),
            flag("--catalog", "an XML catalog, by which editors and validators find the grammars that are installed"),
            option("--into", "write the grammars of all documents, and a catalog of them, into this folder", "directory"),
        ),
        group="documents", json="document; with --into files (list)",
    ),
    # -- storage as code ---------------------------------------------------------------------------------------
    Verb(
        "plan", "plan_verbs:plan", "say how this machine differs from folders of documents",
        (
            _FOLDERS, _PRUNE, option("--out", "store the plan in a file, for apply", "file"), _UNCHANGED, _LENIENT,
        ),
        group="documents", json="plan",
        more="Changes nothing, and no pool has to be active for it. The exit status is 0 if there is nothing to do and 2 if "
        "there is something; what is wrong with the command line itself is 1 here.",
    ),
    Verb(
        "apply", "plan_verbs:apply", "make this machine what folders of documents want",
        (
            data("path", "folders of documents, documents, or one file that plan --out wrote", "file", "+"), _PRUNE, _UNCHANGED,
            flag("--restart", "stop and start active pools for what waits for their next start"),
            flag("--shrink", "let volumes become smaller: data beyond their new ends is lost"),
            flag("--replace", "let volumes be deleted and made anew, with what cannot be changed in place: their data is lost"),
            flag("--delete", "let volumes that are to be absent be deleted, and values of secrets"),
            flag("--overwrite", "let the build of a pool destroy what its source holds"),
            option("--at-once", "how many pools are worked on side by side (8 by default)", "number"), _LENIENT,
        ),
        group="documents", json="applied",
        more="Safe to repeat, and to interrupt: what is done stays done. Nothing is begun if something needs a word (--shrink, "
        "--replace, --delete) that was not given. Afterwards all is compared again, and what is different still is an error.",
    ),
    Verb(
        "diff", "plan_verbs:diff", "show how documents differ from what there is, as a unified diff",
        (_FOLDERS, _PRUNE, _LENIENT), group="documents", json="diff",
        more="The exit status is that of plan.",
    ),
    Verb(
        "export", "plan_verbs:export", "write what there is as a folder of documents, which plans to nothing",
        (
            data("dir", "the folder, which must be empty or not there", "file"),
            flag("--volumes", "the volumes of active pools, too"), flag("--no-secrets", "no descriptions of secrets"),
            flag("--libvirt", "for libvirt instead: the files that it has in /etc/libvirt, without what is poolkit's own"),
            flag("--secret-values", "with --libvirt: the values of secrets, too, in files that only their owner can read"),
        ),
        group="documents", json="exported",
        more="Values of secrets are not written, but for libvirt, when that is asked for.",
    ),
    Verb(
        "import", "libvirt_verbs:import_libvirt", "take over the pools and secrets of a libvirt host, those that run as they are",
        (
            data("what", "what from", "word", choices=("libvirt",)),
            option("--from", "root folder of another system, or a copy of libvirt's folder (this system's otherwise)",
                   "directory"),
            option("--uri", "ask the libvirt at this URI instead, such as qemu:///system (poolkit[libvirt])"),
        ),
        group="documents", json="imported",
        more="Nothing is changed in libvirt, and nothing that is here already. Active pools are adopted: nothing is stopped, and "
        "what is not up is not started. What cannot be taken is told with the reason, and the rest goes on. A second run changes "
        "nothing. Two engines must not both start a pool: the marks that libvirt still has are listed.",
    ),
    # -- this machine ------------------------------------------------------------------------------------------
    Verb(
        "capabilities", "host_verbs:capabilities", "print the pool types and formats there are, as libvirt prints them",
        (data("type", "show what pools of one type can do, as a table", times="?"),), ("pool-capabilities",), "host", "types",
    ),
    Verb(
        "find-sources", "host_verbs:find_sources", "search for sources of pools",
        (
            data("type", "pool type"),
            data("srcSpec", "document with the <source> to search, such as a server", "file", "?"), _DEFINE,
        ),
        ("find-storage-pool-sources",), "host", "sources",
    ),
    Verb(
        "find-sources-as", "host_verbs:find_sources_as", "search for sources of pools on a server",
        (
            data("type", "pool type"), data("host", "server", times="?"), data("port", "its port", "number", "?"),
            option("--initiator", "iSCSI initiator name to search as", late=True), _DEFINE,
        ),
        ("find-storage-pool-sources-as",), "host", "sources",
    ),
    Verb(
        "probe", "host_verbs:probe", "say what the headers of image files or devices say; needs no pool",
        (data("file", "image files or block devices", "file", "+"), _BYTES), group="host", json="images",
        more="Nothing but the file itself is opened. The answer is advice: whoever wrote the file wrote the header.",
    ),
    Verb(
        "recover", "host_verbs:recover", "finish or undo what commands that were killed had left", group="host", json="recovered",
        more="Every command does this first for what it touches; this one reports it.",
    ),
    Verb(
        "doctor", "host_verbs:doctor", "check folders, programs, definitions and left-over work", group="host", json="health",
        more="The exit status is 1 if something is wrong that keeps poolkit from working.",
    ),
    Verb(
        "systemd-unit", "unit_verbs:systemd_unit", "print a unit for systemd: one that starts pools at boot, or a drift check",
        (
            data("which", "boot starts the pools that are marked; drift compares with documents, by a timer", "word",
                 choices=("boot", "drift")),
            data("path", "for drift: the folders of documents (poolkit/documents in /etc or in the user's configuration)",
                 "file", "*"),
            flag("--user", "for the systemd of a user instead of the machine's"),
            option("--every", "for drift: when, as systemd.time(7) has it (hourly by default)"),
            option("--into", "write the units into this folder", "directory"),
        ),
        group="host", json="units",
        more="The units call this command by its path, with --root if it is given. The drift check fails (exit status 2) when "
        "there is something to do, which OnFailure= of a drop-in can tell somebody; the journal has what it is.",
    ),
    # -- the command itself ------------------------------------------------------------------------------------
    Verb(
        "completion", "shell:completion", "print the completion script of a shell",
        (data("shell", "which shell", "word", choices=("bash", "zsh", "fish")),), group="shell", json="none",
        more="For bash: source <(poolkit completion bash). For zsh: the same, after compinit. For fish: poolkit completion fish "
        "| source.",
    ),
    Verb(
        "help", "shell:help_verb", "explain poolkit or a verb",
        (data("verb", "the verb to explain", "verb", "?"),), group="shell", json="verbs",
    ),
)  # fmt: skip


def verbs() -> tuple[Verb, ...]:
    """All verbs in the order of the help."""
    return VERBS


def find(word: str) -> Verb | None:
    """The verb of that name or alias."""
    for verb in VERBS:
        if word == verb.name or word in verb.aliases:
            return verb
    return None


def words() -> list[str]:
    """All names and aliases."""
    return [w for verb in VERBS for w in (verb.name, *verb.aliases)]
