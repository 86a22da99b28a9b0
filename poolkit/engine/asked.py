"""What a volume's document asked for and the volume did not get: said as warnings, so that nothing is ignored in silence."""

from __future__ import annotations

from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolkit import model
    from poolkit.backend import VolumeInfo


def left_out(asked: model.Volume, made: VolumeInfo, path: str, *, files: bool) -> Iterator[str]:
    """A sentence for each thing that ``asked`` says otherwise than ``made``, which is at ``path``, has it.

    Type and path are the pool's to decide, what only some formats have is not for others, nor is what only files have
    for devices (``files`` False), a label is not applied, and a file system may have its own idea of modes and owners.
    """
    name = f"volume '{asked.name}'"
    target = asked.target
    if asked.type not in (None, made.type):
        yield f"{name}: its type is {made.type}, as the pool has it; {asked.type} was left out"
    if target.path not in (None, path):
        yield f"{name}: its path is '{path}', as the pool has it; '{(target.path or '')[:200]}' was left out"
    if asked.content is not None:
        yield f"{name}: its <pkv:content> was left out; apply takes it"
    format = made.format or "raw"
    given = {
        "compat": target.compat is not None and target.features is None and format != "qcow2",
        "clusterSize": target.cluster_size is not None and format not in ("qcow2", "qed"),
        "features": bool(target.feature_words) and format != "qcow2",
        "nocow": target.nocow and not files,
        "pkv:rbd": asked.rbd is not None and "order" not in (made.detail or {}),
    }
    if words := ", ".join(f"<{key}>" for key, meaningless in given.items() if meaningless):
        yield f"{name}: a volume of format {format} has no {words}; left out"
    wanted = target.permissions
    if wanted.label is not None:
        yield f"{name}: the label was left out; labels are the system's to give, see restorecon(8)"
    if made.type != "file" or not made.inode:
        return  # what was not made, and modes of device nodes, which are given by name
    for what, number, has, form in (
        ("mode", wanted.mode, made.mode, "04o"),
        ("owner", wanted.owner, made.owner, "d"),
        ("group", wanted.group, made.group, "d"),
    ):
        if number not in (None, -1, has):
            yield f"{name}: its {what} is {has:{form}}, and not {number:{form}}: the file system decides that"
