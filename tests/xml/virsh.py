"""libvirt's own parser and printer, through virsh and its built-in test driver: one process for many documents.

The test driver keeps pools in memory and adds facts of its own: it gives every pool 100 GiB of capacity, a random uuid
where there is none, and every volume a key and a path below the pool's target. What compares with it takes its figures
out on both sides.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

MARK = "=====document %d====="
POOL = "<pool type='{kind}'><name>host{kind}</name>{source}<target><path>/volumes/{kind}</path></target></pool>"
SOURCES = {"dir": "", "disk": "<source><device path='/dev/sdz'/></source>", "logical": ""}


def run(commands: Iterable[str]) -> str:
    """What virsh prints for the commands, errors among the rest."""
    done = subprocess.run(
        ["virsh", "-q", "-c", "test:///default"],
        input="\n".join(commands) + "\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    return done.stdout


def _parts(output: str, count: int, tag: str) -> list[str]:
    """For each document what virsh printed, or its error."""
    found = []
    for index in range(count):
        part = output.partition("\n" + MARK % index)[2].partition("\n" + MARK % (index + 1))[0]
        dump = re.search(rf"(?s)<{tag} type=.*?\n</{tag}>\n", part)
        errors = [line for line in part.splitlines() if line.startswith("error: ")]
        found.append(dump[0] if dump else "\n".join(errors[:2]))
    return found


def pools(documents: list[tuple[str, str]], folder: Path) -> list[str]:
    """Define, dump and forget pools given as ``(name, document)``; a refusal is a text that starts with ``error``."""
    commands = []
    for index, (name, document) in enumerate(documents):
        file = folder / f"pool{index}.xml"
        file.write_text(document)
        commands += [f"echo {MARK % index}", f"pool-define {file}", f"pool-dumpxml '{name}'", f"pool-undefine '{name}'"]
    return _parts(run([*commands, f"echo {MARK % len(documents)}"]), len(documents), "pool")


def volumes(documents: list[tuple[str, str, str]], folder: Path) -> list[str]:
    """Create, dump and delete volumes given as ``(pool type, name, document)``."""
    commands = []
    for kind, source in SOURCES.items():
        file = folder / f"{kind}.xml"
        file.write_text(POOL.format(kind=kind, source=source))
        commands += [f"pool-define {file}", f"pool-start host{kind}"]
    for index, (kind, name, document) in enumerate(documents):
        file = folder / f"volume{index}.xml"
        file.write_text(document)
        pool = f"host{kind}"
        commands += [f"echo {MARK % index}", f"vol-create {pool} {file}", f"vol-dumpxml --pool {pool} '{name}'"]
        commands += [f"vol-delete --pool {pool} '{name}'"]
    return _parts(run([*commands, f"echo {MARK % len(documents)}"]), len(documents), "volume")
