"""The verbs of secrets. A value never stands on a command line: it comes from a file, from standard input, or is typed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli.arguments import Values, usage_error
from poolkit.host import cores

if TYPE_CHECKING:
    from poolkit.cli.session import Session
    from poolkit.state.secrets import Secret


def facts(secret: Secret) -> dict[str, Any]:
    """The facts of a secret as plain values; never its value."""
    kind, name = secret.usage or (None, None)
    return {
        "uuid": secret.uuid, "usage_type": kind, "usage": name, "has_value": secret.has_value,
        "ephemeral": secret.definition.ephemeral, "private": secret.definition.private,
        "description": secret.definition.description,
    }  # fmt: skip


def _done(session: Session, secret: Secret, changed: bool, words: str) -> None:
    if session.json:
        told = {"verb": session.verb, "changed": changed, "message": words, **session.document_facts()}
        session.value({**told, "secret": facts(secret), **({"dry_run": True} if session.options.dry_run else {})})
    elif session.options.dry_run:
        session.note(f"nothing was changed; it would be: {words}")
    elif not session.quiet:
        session.print(words)


def define(session: Session, values: Values) -> None:
    """``secret-define FILE``."""
    from poolkit.cli.document_verbs import load

    definition = load(session, values.file, "secret", lenient=values.lenient, validate=values.validate)
    secret = session.engine.define_secret(definition)
    words = "is defined" if secret.changed else "is defined so already"
    _done(session, secret, secret.changed, f"secret {secret.uuid} {words}")


def set_value(session: Session, values: Values) -> None:
    """``secret-set-value SECRET``."""
    if values.from_file is not None or values.from_credential is not None:
        _refer(session, values)
        return
    if values.plain and values.file is None:
        raise usage_error("--plain says how --file is read: name the file", "secret-set-value")
    if values.plain and values.base64:
        raise usage_error("--plain and --base64 exclude each other", "secret-set-value")
    if values.interactive and (values.file is not None or not sys.stdin.isatty()):
        raise usage_error("--interactive needs a terminal, and no --file", "secret-set-value")
    secret = session.engine.secret(values.secret)
    cores.forbid()
    data = _value(values)
    if values.base64 or (values.file is not None and not values.plain):
        import base64
        import binascii

        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error:
            raise usage_error(
                "the value is not base64",
                "secret-set-value",
                "as in virsh, a file has it in base64 unless --plain is given",
            ) from None
    elif not values.exact and not values.plain and data.endswith(b"\n"):
        data = data[:-1]
    changed = secret.set_value(data)
    words = "has its value" if changed else "has that value already"
    _done(session, secret, changed, f"secret {secret.uuid} {words}")


def _refer(session: Session, values: Values) -> None:
    given = [one for one in ("file", "plain", "base64", "exact", "interactive") if getattr(values, one)]
    if given or (values.from_file is not None and values.from_credential is not None):
        raise usage_error(
            "--from-file and --from-credential take the place of a value, and of each other", "secret-set-value"
        )
    secret = session.engine.secret(values.secret)
    changed = secret.refer_to(file=values.from_file, credential=values.from_credential)
    _done(session, secret, changed, f"secret {secret.uuid} gets its value from where it was said")


def _value(values: Values) -> bytes:
    from poolkit.state.secrets import LARGEST

    limit = LARGEST * 2  # base64 is longer; what is too long is refused later with a sentence
    if values.file is None and sys.stdin.isatty():
        import getpass

        return getpass.getpass("value: ").encode()
    if values.file in (None, "-"):
        return sys.stdin.buffer.read(limit)
    try:
        with open(values.file, "rb") as stream:
            return stream.read(limit)
    except OSError as error:
        raise errors.from_os_error(error, f"read '{errors.shown(values.file, 4096)}'") from error


def get_value(session: Session, values: Values) -> None:
    """``secret-get-value SECRET --show``."""
    import base64

    secret = session.engine.secret(values.secret)
    if not values.show:
        raise usage_error("a secret is printed only with --show", hint="add --show, and see to it that nobody looks on")
    cores.forbid()
    value = secret.value().reveal()
    if values.plain and not session.json:
        session.out.flush()
        sys.stdout.buffer.write(value)  # as it is, and nothing else, as virsh does
        return
    session.text("base64", base64.b64encode(value).decode("ascii"))


def list_secrets(session: Session, values: Values) -> None:
    """``secret-list``."""
    for one in ("ephemeral", "private"):
        if getattr(values, one) and getattr(values, f"no_{one}"):
            raise usage_error(f"--{one} and --no-{one} exclude each other", "secret-list")
    secrets = [
        secret
        for secret in session.engine.secrets()
        if all(
            bool(getattr(secret.definition, one)) == wanted
            for one in ("ephemeral", "private")
            for wanted in (True, False)
            if getattr(values, one if wanted else f"no_{one}")
        )
    ]
    if session.json:
        session.value([facts(secret) for secret in secrets])
        return
    session.rows(
        ("UUID", "Usage", "Value", "Description"),
        [
            (
                secret.uuid, " ".join(secret.usage or ("-",)), "yes" if secret.has_value else "no",
                secret.definition.description or "-",
            )
            for secret in secrets
        ],
    )  # fmt: skip


def dumpxml(session: Session, values: Values) -> None:
    """``secret-dumpxml SECRET``."""
    session.xml(session.engine.secret(values.secret).xml())


def undefine(session: Session, values: Values) -> None:
    """``secret-undefine SECRET``."""
    secret = session.engine.secret(values.secret)
    told = facts(secret)
    changed = secret.undefine()
    words = f"secret {told['uuid']} is undefined"
    _done(session, secret, changed, words)
