"""The verbs of pools."""

from __future__ import annotations

from poolkit.cli.arguments import data, flag, option
from poolkit.cli.verbs import BYTES, FILE, LENIENT, NAME_ONLY, OVERWRITE, POOL, VALIDATE, WATCH, XPATH, Verb

_BUILD = flag("--build", "build the pool's storage first")
_NO_OVERWRITE = flag(
    "--no-overwrite", "let build refuse a source that holds anything (this is the rule without options, too)"
)
_FORCE_POOL = flag("--force", "even if active pools, or volumes of them, stand on it")
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
_UUID_ONLY = flag("--uuid", "print uuids only, one per line")

VERBS: tuple[Verb, ...] = (
    Verb(
        "define", "pool_verbs:define", "store a pool's definition, or change it; its state stays",
        (FILE, VALIDATE, LENIENT), ("pool-define",),
        more="Defining what is defined already changes nothing. For an active pool the answer lists the fields that wait for "
        "the next start.",
    ),
    Verb(
        "undefine", "pool_verbs:undefine", "forget a pool's definition; storage and data stay",
        (POOL, flag("--force", "even if a flavor has it as a backend")), ("pool-undefine",),
    ),
    Verb(
        "build", "pool_verbs:build", "make the storage that the definition describes",
        (POOL, OVERWRITE, _NO_OVERWRITE), ("pool-build",),
    ),
    Verb(
        "start", "pool_verbs:start", "bring a pool up and list its volumes",
        (
            data("pool", "name or uuid of the pool", "pool", "?"), _BUILD, OVERWRITE, _NO_OVERWRITE,
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
        (FILE, _BUILD, OVERWRITE, _NO_OVERWRITE, VALIDATE, LENIENT), ("pool-create",),
    ),
    Verb(
        "define-as", "as_verbs:define_as", "store a pool's definition made from arguments", _AS, ("pool-define-as",),
        more="In a place, a dash stands for nothing: define-as images dir - - - - /srv/images.",
    ),
    Verb(
        "create-as", "as_verbs:create_as", "start a pool made from arguments without storing it",
        (*_AS, _BUILD, OVERWRITE, _NO_OVERWRITE), ("pool-create-as",),
    ),
    Verb(
        "refresh", "pool_verbs:refresh", "list the volumes of a pool anew",
        (
            POOL, option("--vol", "look only at this volume (a name): new, changed or gone, it is listed as it is", "volume"),
            flag("--follow", "go on, and refresh whenever the storage tells of a change, for types that can (xensm)"),
        ),
        ("pool-refresh",),
    ),
    Verb("destroy", "pool_verbs:destroy", "take a pool down; no data changes", (POOL, _FORCE_POOL), ("pool-destroy",)),
    Verb(
        "delete", "pool_verbs:delete", "delete the storage that build made; the definition stays",
        (POOL, flag("--force", "even if active pools, or volumes of them, stand on it, or a flavor has it as a backend")),
        ("pool-delete",),
    ),
    Verb(
        "autostart", "pool_verbs:autostart", "mark a pool to be started at boot",
        (POOL, flag("--disable", "clear the mark")), ("pool-autostart",),
    ),
    Verb(
        "list", "pool_verbs:list_pools", "list pools: the active ones, unless told otherwise",
        (
            flag("--inactive", "list inactive pools"), flag("--all", "list active and inactive pools"),
            flag("--transient", "only pools without a stored definition"), flag("--persistent", "only stored pools"),
            flag("--autostart", "only pools that are marked for autostart"),
            flag("--no-autostart", "only pools that are not marked for autostart"),
            option("--type", "only these types, with commas between", "words", late=True),
            flag("--details", "all facts, with sizes"), BYTES, NAME_ONLY, _UUID_ONLY,
        ),
        ("pool-list",), json="pools",
    ),
    Verb("info", "pool_verbs:info", "show the facts of a pool", (POOL, BYTES), ("pool-info",), json="pool"),
    Verb(
        "dumpxml", "pool_verbs:dumpxml", "print a pool's definition as libvirt prints it",
        (POOL, flag("--inactive", "the stored definition, even of an active pool"), *XPATH), ("pool-dumpxml",), json="document",
    ),
    Verb(
        "edit", "pool_verbs:edit", "change a pool's stored definition in an editor", (POOL,), ("pool-edit",),
        more="The editor is $VISUAL, $EDITOR or vi. A document with errors is offered again, and is never lost.",
    ),
    Verb(
        "event", "watch:pool_event", "wait for changes of pools, made by whatever process", (
            option("--pool", "only this pool (name or uuid)", "pool"),
            option("--event", "which kind to wait for", "word", ("lifecycle", "refresh")), *WATCH,
        ),
        ("pool-event",), json="none",
        more="There is no daemon that tells of changes: what is kept is looked at twice a second. Changes that were taken back "
        "between two looks are not seen. The exit status is 1 if nothing happened in time.",
    ),
    Verb("uuid", "pool_verbs:uuid", "print a pool's uuid", (POOL,), ("pool-uuid",), json="text"),
    Verb("name", "pool_verbs:name", "print a pool's name", (POOL,), ("pool-name",), json="text"),
    Verb(
        "lock-status", "pool_verbs:lock_status", "say what keeps the hosts of a shared storage apart, and who has what",
        (POOL,), ("pool-lock-status",), json="locks",
    ),
    Verb(
        "take-control", "pool_verbs:take_control", "make this host the one that changes a shared storage",
        (POOL,), ("pool-take-control",),
        more="Nothing asks the host that had control before: be sure that it does not work on the storage any more.",
    ),
)  # fmt: skip
