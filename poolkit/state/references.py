"""Values of secrets that poolkit does not keep: in a file of the administrator, or handed over by systemd."""

from __future__ import annotations

import os
import stat
from typing import Any

from poolkit import errors
from poolkit.host import private
from poolkit.host.descriptors import read_at

VARIABLE = "CREDENTIALS_DIRECTORY"
"""Where systemd has the credentials of a service (systemd.exec(5), ``LoadCredential=``)."""


def place(reference: Any) -> str | None:
    """The file that has the value; None for a credential where systemd has handed over none."""
    if reference.file is not None:
        return str(reference.file)
    folder = os.environ.get(VARIABLE, "")
    name = str(reference.credential)
    if name.startswith("."):
        raise errors.InvalidArgument(f"'{name}' cannot be the name of a credential: it begins with a dot")
    return f"{folder}/{name}" if folder.startswith("/") else None


def there(reference: Any) -> bool:
    """Whether there is a file where the value should be; it is not opened."""
    try:
        path = place(reference)
    except errors.InvalidArgument:
        return False
    return path is not None and os.path.isfile(path)


def read(reference: Any, uuid: str, most: int) -> bytes:
    """The value of secret ``uuid``, 1 to ``most`` bytes; a newline at its end does not belong to it.

    ``SecretNotFound`` if it is not there. ``Unsafe`` for a file that others than its owner could read, that others could
    have written or put there, or that is no plain file.
    """
    path = place(reference)
    if path is None:
        raise errors.SecretNotFound(
            f"the value of secret {uuid} is the credential '{reference.credential}', and no service has handed one over",
            hint=f"run poolkit in a service with LoadCredential={reference.credential}:FILE",
        )
    try:
        private.check(os.path.dirname(path))
        fd = private.open_ours(path)
    except FileNotFoundError:
        raise errors.SecretNotFound(
            f"the value of secret {uuid} should be in '{path}', and there is no such file",
            hint=f"LoadCredential={reference.credential}:FILE hands it over"
            if reference.file is None
            else "put it there",
        ) from None
    except OSError as error:
        raise errors.from_os_error(error, f"read the value of secret {uuid} from '{path}'") from error
    try:
        # systemd gives the service's user access by an ACL, whose mask the group's bits show (acl(5)).
        others = stat.S_IMODE(os.fstat(fd).st_mode) & (0o077 if reference.file is not None else 0o037)
        if others:
            raise errors.Unsafe(
                f"the value of secret {uuid} can be read by others: '{path}'", hint=f"chmod 600 '{path}'"
            )
        try:
            data = read_at(fd, most + 2, 0).removesuffix(b"\n")
        except OSError as error:
            raise errors.from_os_error(error, f"read the value of secret {uuid} from '{path}'") from error
    finally:
        os.close(fd)
    if not 0 < len(data) <= most:
        much = "is empty" if not data else f"has more than {most} bytes"
        raise errors.InvalidArgument(f"the value of secret {uuid} {much}: '{path}'")
    return data
