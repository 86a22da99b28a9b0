"""The verbs of documents: checking them, printing grammars, and making a folder of them true."""

from __future__ import annotations

from poolkit.cli.arguments import data, flag, option
from poolkit.cli.verbs import LENIENT, Verb

_FOLDERS = data("path", "folders of documents, or documents", "file", "+")
_PRUNE = flag("--prune", "remove what an earlier apply of the same paths made and no document describes any more")
_UNCHANGED = flag("--all", "name also what there is nothing to do for")

VERBS: tuple[Verb, ...] = (
    Verb(
        "validate", "document_verbs:validate", "check documents: the reader's rules, the RELAX NG and the XSD grammar",
        (data("file", "XML documents; - is standard input", "file", "+"),), group="documents", json="verdicts",
    ),
    Verb(
        "normalize", "document_verbs:normalize", "print documents as poolkit and libvirt would dump them",
        (data("file", "XML documents; - is standard input", "file", "+"),
         option("--pool-type", "the type of the pool that volumes are for: it decides their type and default format"),
         LENIENT), group="documents", json="documents",
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
    Verb(
        "plan", "plan_verbs:plan", "say how this machine differs from folders of documents",
        (
            _FOLDERS, _PRUNE, option("--out", "store the plan in a file, for apply", "file"), _UNCHANGED, LENIENT,
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
            option("--at-once", "how many pools are worked on side by side (8 by default)", "number"), LENIENT,
        ),
        group="documents", json="applied",
        more="Safe to repeat, and to interrupt: what is done stays done. Nothing is begun if something needs a word (--shrink, "
        "--replace, --delete) that was not given. Afterwards all is compared again, and what is different still is an error.",
    ),
    Verb(
        "diff", "plan_verbs:diff", "show how documents differ from what there is, as a unified diff",
        (_FOLDERS, _PRUNE, LENIENT), group="documents", json="diff",
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
)  # fmt: skip
