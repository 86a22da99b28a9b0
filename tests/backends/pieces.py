"""Inside a guest: runs pieces of Python, each in a child of a process that has imported already what pieces import.

A line of the named pipe PIECES names a file NAME.py of the share; NAME.out gets what it prints and NAME.rc, in the end, its
status. Where nothing but emulation is to be had, starting Python anew for each piece takes most of the time of a test.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

PIECES = "/run/pieces"
_IMPORTED = "/run/pieces.imported"  # what the last child had imported in the end


def serve(share: str) -> None:
    """Fork a child for each line, until the machine is switched off."""
    # Held open for writing as well: else it would end whenever nobody else has it open.
    with open(os.open(PIECES, os.O_RDWR)) as lines:
        for line in lines:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            _learn()
            if not os.fork():
                _child(share, line.strip())


def _learn() -> None:
    """Import what the last piece has imported: the next ones have it already."""
    with contextlib.suppress(FileNotFoundError):
        with open(_IMPORTED) as names:
            for name in names.read().split():
                if name not in sys.modules:
                    with contextlib.suppress(Exception):
                        importlib.import_module(name)
        os.unlink(_IMPORTED)


def _child(share: str, name: str) -> None:
    with open(f"{share}/{name}.out", "w", buffering=1) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    status = 1
    try:
        with open(f"{share}/{name}.py") as file:
            text = file.read()
        exec(compile(text, name, "exec"), {"__name__": "__main__"})
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    with open(f"{_IMPORTED}.{name}", "w") as known:
        known.write("\n".join(sys.modules))
    os.rename(known.name, _IMPORTED)
    sys.stdout.flush()
    with open(f"{share}/{name}.rc.new", "w") as code:
        code.write(str(status))
    os.rename(code.name, f"{share}/{name}.rc")
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
