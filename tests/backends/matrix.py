"""The matrix of permitted operations of a shared volume group: (operation, role, state elsewhere) -> allowed, or the refusal.

One table for the scripted host and for two machines. ``CELLS`` has every cell.
"""

from __future__ import annotations

from typing import NamedTuple

OPERATIONS = ("create", "delete", "extend", "snapshot", "delete snapshot", "attach", "attach shared", "detach")
ROLES = ("control", "compute", "both", "")
ELSEWHERE = ("free", "exclusive", "shared")
"""What another node has of the volume. That of a snapshot is what it has of the origin, which cannot be shared then."""

ALLOWED = "allowed"
_METADATA = OPERATIONS[:5]
_HELD = {"delete", "snapshot", "delete snapshot", "attach"}


class Cell(NamedTuple):
    """What is to come of an operation: ``ALLOWED``, or a part of the sentence of an error of class ``kind``."""

    operation: str
    role: str
    elsewhere: str
    said: str
    kind: str = ""


def cell(lock: str, operation: str, role: str, elsewhere: str) -> Cell:
    """What is to come of an operation of node ``one``, on a volume that node ``two`` has as ``elsewhere`` says."""
    at = (operation, role, elsewhere)
    if not role and lock != "lvmlockd":
        return Cell(*at, "node 'one' has no role", "RoleForbidden")
    if role == "compute" and operation in _METADATA:
        return Cell(*at, "'one' is a compute node: it attaches and detaches volumes", "RoleForbidden")
    if role == "control" and operation not in _METADATA:
        return Cell(*at, "'one' is the control node and no compute node", "RoleForbidden")
    held = operation in _HELD or (operation == "attach shared" and elsewhere == "exclusive")
    if lock != "none" and elsewhere != "free" and held:
        return Cell(*at, "two", "HeldElsewhere")
    if lock == "system-id" and role == "compute" and operation.startswith("attach"):
        return Cell(*at, "has not been given to node 'one'", "RoleForbidden")
    return Cell(*at, ALLOWED)


def cells(lock: str, elsewhere: str | None = None) -> list[Cell]:
    """All cells of a lock, or those of one state elsewhere. With ``none`` nothing tells what another node has."""
    states = ("free",) if lock == "none" else ELSEWHERE if elsewhere is None else (elsewhere,)
    return [
        cell(lock, operation, role, state)
        for state in states
        for role in ROLES
        for operation in OPERATIONS
        if (operation, state) != ("delete snapshot", "shared")
    ]
