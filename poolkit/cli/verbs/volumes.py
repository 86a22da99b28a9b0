"""The verbs of volumes."""

from __future__ import annotations

from poolkit.cli.arguments import data, flag, option
from poolkit.cli.verbs import BYTES, FILE, LENIENT, NAME_ONLY, POOL, VALIDATE, XPATH, Verb

_VOLUME = data("vol", "the volume: its name with --pool, else its key or path", "volume")
_IN_POOL = option("--pool", "the pool (name or uuid) the volume is in", "pool", late=True)
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
_IN_FLAVOR = option("--flavor", "instead of POOL: the first pool of this flavor that takes the volume")._replace(
    instead="pool"
)
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

VERBS: tuple[Verb, ...] = (
    Verb(
        "vol-create", "volume_verbs:create", "make a volume from a document",
        (POOL, FILE, *_PREALLOC, VALIDATE, LENIENT, _IN_FLAVOR),
        group="volumes",
        more="With --flavor a backend that is full, unreachable, busy or down is passed over. One that is there already or "
        "cannot be meant ends the search. If no backend takes the volume the error says of each why.",
    ),
    Verb(
        "vol-create-as", "volume_verbs:create_as", "make a volume from arguments",
        (
            POOL, data("name", "name of the new volume"),
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
        (POOL, flag("--details", "more facts"), BYTES, NAME_ONLY), group="volumes", json="volumes",
    ),
    Verb(
        "vol-info", "volume_verbs:info", "show the facts of a volume as they are now",
        (_VOLUME, _IN_POOL, BYTES, flag("--physical", "show the size on the host instead of the space in use")),
        group="volumes", json="volume",
    ),
    Verb(
        "vol-dumpxml", "volume_verbs:dumpxml", "print the facts of a volume as libvirt prints them",
        (_VOLUME, _IN_POOL, *XPATH),
        group="volumes", json="document",
    ),
    Verb(
        "vol-disk-xml", "volume_verbs:disk_xml", "print the disk element with which a machine uses a volume",
        (
            POOL, data("vol", "the volume: its name, key or path", "volume"),
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
            POOL, FILE, _VOLUME, option("--inputpool", "the pool (name or uuid) the source is in", "pool", late=True),
            *_COPY, *_PREALLOC, VALIDATE, LENIENT,
        ),
        group="volumes",
    ),
    Verb(
        "vol-import", "importing:import_volume", "make a volume of an image: a file, what a server has, or standard input",
        (
            POOL, data("name", "name of the new volume"),
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
        "vol-chain", "content_verbs:chain", "show the images a volume stands on", (_VOLUME, _IN_POOL, BYTES),
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
)  # fmt: skip
