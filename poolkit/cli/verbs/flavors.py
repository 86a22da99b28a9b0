"""The verbs of flavors."""

from __future__ import annotations

from poolkit.cli.arguments import data, option
from poolkit.cli.verbs import BYTES, FILE, LENIENT, OVERWRITE, VALIDATE, XPATH, Verb

_FLAVOR = data("flavor", "name of the flavor")

VERBS: tuple[Verb, ...] = (
    Verb(
        "flavor-define", "flavor_verbs:define", "store a flavor, or change it; volumes stay where they are",
        (FILE, VALIDATE, LENIENT), group="flavors", json="flavor-outcome",
    ),
    Verb("flavor-list", "flavor_verbs:list_flavors", "list the flavors", group="flavors", json="flavors"),
    Verb("flavor-dumpxml", "flavor_verbs:dumpxml", "print a flavor's document", (_FLAVOR, *XPATH), group="flavors",
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
            option("--format", "its format", late=True), BYTES,
        ),
        group="flavors", json="backends",
    ),
    Verb(
        "sm", "sm_verbs:run", "storage repositories of XenServer and XCP-ng as backends of flavors, by number",
        (
            data("action", "what to do", "word", "1", ("flavor-create", "flavor-delete", "flavor-list", "backend-add",
                                                        "backend-remove", "backend-list")),
            data("words", "what the action takes", times="*"), OVERWRITE,
        ),
        group="flavors", json="sm",
        more="flavor-create FLAVOR [DESCRIPTION]; flavor-delete FLAVOR; flavor-list [FLAVOR]; backend-add FLAVOR TYPE KEY=VALUE "
        "...; backend-remove NUMBER; backend-list [FLAVOR]. Where the hosts are is said in host.toml, [xapi]. A password is "
        "given as KEY_secret=USAGE, with the usage of a secret.",
    ),
)  # fmt: skip
