"""What a host refuses, by code, as an error of poolkit."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator, Sequence
from typing import Any

from poolkit import errors

SAID = 400
"""Characters of a host's own words that an error repeats."""


class Failed(Exception):
    """A call that failed: ``code`` and what follows it (``SR_BACKEND_FAILURE_73``, "", "NFS mount error", ...)."""

    def __init__(self, code: str, params: Sequence[str] = (), what: str = "") -> None:
        super().__init__(code, *params)
        self.code = code
        self.params = [str(param) for param in params]
        self.what = what
        """The call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Failed, (self.code, self.params, self.what)

    @property
    def number(self) -> int:
        """The number of a driver's own failure; 0 for any other."""
        tail = self.code.removeprefix("SR_BACKEND_FAILURE_")
        return int(tail) if tail != self.code and tail.isdecimal() else 0

    @property
    def words(self) -> str:
        """What the host says, with the code."""
        said = [param for param in self.params if param and not param.lstrip().startswith("<")]
        text = "; ".join(said).replace("\n", " ").strip()
        if self.number:
            return f"{text[:SAID] or 'no reason is given'} ({self.code})"
        return f"{self.code}({', '.join(said)[:SAID]})" if said else self.code


# Names of driver failures: XE_SR_ERRORCODES.xml of xapi-project/sm.
_NO_SPACE = {44, 127, 128, 129, 167, 180}
_SIZE = {60, 79, 110}
_UNREACHABLE = {67, 72, 73, 83, 108, 111, 124, 140, 141, 164, 222, 224}
_LOGIN = {20, 68, 125, 126, 169}
_KEYS = {87, 89, 90, 91, 94, 95, 96, 101, 102, 107, 115, 120, 121, 122, 123, 160, 161, 162, 163, 220}
_GONE = {46, 65, 92, 100, 144}
AGAIN = {"OTHER_OPERATION_IN_PROGRESS", "TOO_MANY_PENDING_TASKS", "SR_BACKEND_FAILURE_37", "SR_BACKEND_FAILURE_201"}
"""Failures that pass: the call is made again after a while."""

_CODES: dict[type[errors.PoolkitError], str] = {
    errors.LoginRefused: "SESSION_AUTHENTICATION_FAILED SESSION_AUTHORIZATION_FAILED",
    errors.PermissionDenied: "PERMISSION_DENIED RBAC_PERMISSION_DENIED LICENSE_RESTRICTION FEATURE_RESTRICTED "
    "SR_BACKEND_FAILURE_454",
    errors.Unreachable: "SESSION_INVALID HOST_IS_SLAVE HOST_OFFLINE CANNOT_CONTACT_HOST HOST_NOT_LIVE HOST_STILL_BOOTING "
    "TLS_CONNECTION_FAILED",
    errors.NoSpace: "SR_FULL SR_SOURCE_SPACE_INSUFFICIENT",
    errors.Busy: "VDI_IN_USE DEVICE_ALREADY_ATTACHED SR_DEVICE_IN_USE SR_IS_CACHE_SR SR_BACKEND_FAILURE_16 SR_BACKEND_FAILURE_24 "
    "SR_BACKEND_FAILURE_109 DEVICE_DETACH_REJECTED SR_HAS_PBD " + " ".join(sorted(AGAIN)),
    errors.HeldElsewhere: "SR_HAS_MULTIPLE_PBDS SR_NOT_SHARABLE",
    errors.InvalidState: "SR_HAS_NO_PBDS SR_NOT_ATTACHED SR_ATTACH_FAILED SR_BACKEND_FAILURE_47 SR_REQUIRES_UPGRADE SR_UNHEALTHY "
    "CLUSTERED_SR_DEGRADED NOT_SUPPORTED_DURING_UPGRADE OPERATION_NOT_ALLOWED OPERATION_BLOCKED VM_BAD_POWER_STATE",
    errors.Unsafe: "SR_NOT_EMPTY SR_INDESTRUCTIBLE SR_BACKEND_FAILURE_39 VDI_HAS_RRDS",
    errors.AlreadyExists: "SR_UUID_EXISTS PBD_EXISTS LOCATION_NOT_UNIQUE DB_UNIQUENESS_CONSTRAINT_VIOLATION "
    "SR_BACKEND_FAILURE_42 SR_BACKEND_FAILURE_43 DEVICE_ALREADY_EXISTS",
    errors.Unsupported: "SR_UNKNOWN_DRIVER SR_OPERATION_NOT_SUPPORTED UNIMPLEMENTED_IN_SM_BACKEND NOT_IMPLEMENTED "
    "SR_BACKEND_FAILURE_38 MESSAGE_METHOD_UNKNOWN MESSAGE_REMOVED MESSAGE_DEPRECATED MESSAGE_PARAMETER_COUNT_MISMATCH "
    "VDI_NOT_MANAGED VDI_IS_A_PHYSICAL_DEVICE VDI_INCOMPATIBLE_TYPE VDI_IS_NOT_ISO VDI_IS_SHARABLE VDI_READONLY "
    "VDI_CBT_ENABLED VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION VM_MISSING_PV_DRIVERS",
    errors.InvalidArgument: "VDI_TOO_SMALL VDI_TOO_LARGE INVALID_VALUE FIELD_TYPE_ERROR",
    errors.NotFound: "HANDLE_INVALID UUID_INVALID VDI_MISSING VDI_LOCATION_MISSING VDI_NOT_AVAILABLE",
    errors.Aborted: "TASK_CANCELLED",
}  # fmt: skip
_BY_CODE = {code: kind for kind, codes in _CODES.items() for code in codes.split()}

_HINTS = {
    "SESSION_AUTHENTICATION_FAILED": errors.Hint(
        "is ", errors.Setting("source/auth/secret", "the secret of <auth>"), " the password of that user?"
    ),
    "HOST_IS_SLAVE": errors.Hint("name the master ", errors.Setting("source/host", "in the definition")),
    "SR_HAS_NO_PBDS": "no host has the repository plugged: destroy and start the pool",
    "SR_UNKNOWN_DRIVER": errors.Hint(
        errors.Setting("source/format/@type", "<format type=...>"), " names a type that the hosts do not have"
    ),
    "SR_BACKEND_FAILURE_109": "the chain of snapshots is too long; the hosts make it shorter by themselves: try again later",
    "VDI_IN_USE": "detach it from its virtual machine, or shut that down",
    "VM_MISSING_PV_DRIVERS": "only machines with drivers for Xen can have a disk plugged while they run",
}


@contextlib.contextmanager
def gone() -> Iterator[None]:
    """What is not there, or not any more, in the body is passed over."""
    try:
        yield
    except Failed as failed:
        if failed.code not in ("HANDLE_INVALID", "UUID_INVALID"):
            raise


def kind_of(failed: Failed) -> type[errors.PoolkitError]:
    """The class of error that a failure is."""
    number = failed.number
    if number in _NO_SPACE or (number and "no space left" in " ".join(failed.params).lower()):
        return errors.NoSpace
    if failed.code in ("HANDLE_INVALID", "UUID_INVALID", "VDI_MISSING") or number in _GONE:
        cls = failed.params[0] if failed.params else ""
        return errors.VolumeNotFound if cls == "VDI" or number or failed.code == "VDI_MISSING" else errors.NotFound
    known = _BY_CODE.get(failed.code)
    if known is not None:
        return known
    for numbers, kind in (
        (_SIZE, errors.InvalidArgument),
        (_UNREACHABLE, errors.Unreachable),
        (_LOGIN, errors.LoginRefused),
        (_KEYS, errors.InvalidArgument),
    ):
        if number in numbers:
            return kind
    return errors.HostError


def meaning(failed: Failed, pool: str, volume: str | None = None, doing: str = "") -> errors.PoolkitError:
    """The error for a failure; ``doing`` is what could not be done."""
    words = f"pool '{pool}': could not {doing or failed.what}: {failed.words}"
    found = candidates(failed)
    hint = f"there are {'; '.join(found)}" if found else _HINTS.get(failed.code)
    return kind_of(failed)(words, pool=pool, volume=volume, hint=hint)


_CANDIDATES = {"TargetIQN": "targetIQN", "SCSIid": "SCSIid", "Path": "serverpath", "UUID": "uuid", "path": "device"}


def candidates(failed: Failed) -> list[str]:
    """What a driver found of which a key could be, as ``targetIQN A, B``: it tells so in the failure itself."""
    text = next((param for param in failed.params if "<" in param), "")
    found = []
    for tag, key in _CANDIDATES.items():
        values = list(dict.fromkeys(elements(text, tag)))
        if values and not (tag == "path" and "<SCSIid>" in text):
            found.append(f"{key} {errors.some(values)}")
    return found


def elements(text: str, tag: str) -> list[str]:
    """The texts of the elements of that name, control characters left out: what a probe prints is small and flat."""
    found = (html.unescape(value).strip() for value in re.findall(rf"<{tag}>([^<]*)</{tag}>", text))
    return ["".join(char for char in value if char.isprintable()) for value in found if value]
