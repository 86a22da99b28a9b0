"""The verbs of secrets."""

from __future__ import annotations

from poolkit.cli.arguments import data, flag, option
from poolkit.cli.verbs import FILE, LENIENT, VALIDATE, WATCH, XPATH, Verb

_SECRET = data("secret", "uuid of the secret, or the name of its usage")

VERBS: tuple[Verb, ...] = (
    Verb("secret-define", "secret_verbs:define", "store the description of a secret", (FILE, VALIDATE, LENIENT),
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
            *WATCH,
        ),
        group="secrets", json="none",
    ),
    Verb("secret-dumpxml", "secret_verbs:dumpxml", "print the description of a secret", (_SECRET, *XPATH), group="secrets",
         json="document"),
    Verb("secret-undefine", "secret_verbs:undefine", "delete a secret and its value", (_SECRET,), group="secrets",
         json="secret-outcome"),
)  # fmt: skip
