"""``python -m tests.lab prepare|build|shell|run COMMAND``: the lab by hand."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from . import image
from .guest import GuestError, main_guest


def say(text: str) -> None:
    """Progress goes to standard error: standard output is the command's."""
    print(text, file=sys.stderr)


def prepare() -> int:
    """Install what is missing and build the image where that is possible; say why where it is not."""
    try:
        image.install_tools(say)
        image.ensure(say)
    except image.LabUnavailable as error:
        say(f"the lab cannot run here: {error}")
        return 1 if os.environ.get("CI") == "true" else 0
    return 0


def shell() -> int:
    """A shell in a guest, on this terminal."""
    guest = main_guest(terminal=True)
    state = subprocess.run(["stty", "-g"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    try:
        with guest:
            say("the lab's shell; the machine and its disks are gone when you leave it (exit, or Ctrl-D)")
            if guest.process:
                guest.process.wait()
    finally:
        if state.returncode == 0:
            subprocess.run(["stty", state.stdout.strip()], check=False)
    return 0


def run(command: str, timeout: float) -> int:
    """One command in a fresh guest; its exit status is ours."""

    def stream(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    with main_guest() as guest:
        return guest.exec(command, timeout, check=False, stream=stream).status


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="The lab: a guest with real storage.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare", help="install what it needs (apt, root), build the image; never an error but in CI")
    verbs.add_parser("build", help="build the image if it is not in the cache")
    verbs.add_parser("shell", help="a shell in a fresh guest")
    runner = verbs.add_parser("run", help="run a shell command in a fresh guest")
    runner.add_argument("--timeout", type=float, default=600, help="seconds (600)")
    runner.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        if options.verb == "prepare":
            return prepare()
        if options.verb == "build":
            print(image.ensure(say).key)
            return 0
        if options.verb == "shell":
            return shell()
        return run(" ".join(options.command), options.timeout)
    except image.LabUnavailable as error:
        say(f"the lab cannot run here: {error}")
    except GuestError as error:
        say(str(error))
    return 1


if __name__ == "__main__":
    sys.exit(main())
