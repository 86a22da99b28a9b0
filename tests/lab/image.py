"""Builds the guest's image once and keeps it in a cache folder, keyed by what it is made of.

Two layers: ``base-KEY`` (Debian packages, kernel, initrd) and ``python-KEY`` (pytest and poolkit's dependencies, in the
versions of the interpreter that runs the outer pytest). Each is built in a temporary folder beside and renamed when
complete, under a lock: a killed build leaves nothing that looks finished, and two builders wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import initrd, recipe

HERE = Path(__file__).parent
MAX_AGE = 30 * 86400  # seconds after which an image that nobody used is removed
Say = Callable[[str], None]


class LabUnavailable(Exception):
    """The lab cannot be had on this machine; the text says what is missing, in words that follow "needs the lab: "."""


@dataclass(frozen=True)
class Image:
    """A complete image: files that guests share and never write."""

    base: Path
    python: Path

    @property
    def key(self) -> str:
        """Names the content."""
        return f"{self.base.name.removeprefix('base-')}-{self.python.name.removeprefix('python-')}"


def cache() -> Path:
    """The folder of images and running guests: ``$POOLKIT_LAB_CACHE`` or ``~/.cache/poolkit/lab``."""
    named = os.environ.get("POOLKIT_LAB_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(named) if named else Path(home) / "poolkit" / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def which(program: str) -> str | None:
    """Path of a program, also from the folders of administration tools that a user's PATH often lacks.

    ``$POOLKIT_LAB_PATH`` replaces all of that, for a test that wants a machine without them.
    """
    folders = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(program, path=os.environ.get("POOLKIT_LAB_PATH", folders))


def missing(tools: dict[str, str]) -> list[str]:
    """The programs of ``tools`` that this machine lacks."""
    return [name for name in tools if not which(name)]


def python_requirements() -> list[str]:
    """The distributions of the Python layer, pinned to what the outer interpreter has."""
    found = []
    for name in (*recipe.PYTHON, *recipe.PYTHON_OPTIONAL):
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            if name in recipe.PYTHON:
                found.append(name)
    return found


def keys() -> tuple[str, str]:
    """The keys of the two layers."""
    base = hashlib.sha256()
    for name in ("recipe.py", "init.sh", "initrd.py", "image.py"):
        base.update((HERE / name).read_bytes())
    base.update(os.environ.get("POOLKIT_LAB_MIRROR", "").encode())
    layout = "byte code apart"  # change it with build_python: that text is not in the key
    python = hashlib.sha256("\n".join([layout, recipe.PYTHON_VERSION, *python_requirements()]).encode())
    return base.hexdigest()[:16], python.hexdigest()[:16]


def cached() -> Image | None:
    """The image if both layers are there."""
    base, python = (cache() / f"{kind}-{key}" for kind, key in zip(("base", "python"), keys(), strict=True))
    return Image(base, python) if base.is_dir() and python.is_dir() else None


def check() -> None:
    """Raise LabUnavailable unless a guest can be booted, building its image first if need be."""
    if lacking := missing(recipe.BOOT_TOOLS):
        raise LabUnavailable(f"{', '.join(lacking)} not installed ('python -m tests.lab prepare' installs it)")
    if os.uname().machine != "x86_64":
        raise LabUnavailable(f"the guest is an x86_64 machine, this is {os.uname().machine}")
    if cached():
        return
    if lacking := missing(recipe.BUILD_TOOLS):
        raise LabUnavailable(f"{', '.join(lacking)} not installed ('python -m tests.lab prepare' installs it)")
    if os.geteuid() != 0:
        raise LabUnavailable("its image is not built yet, and building it needs root ('python -m tests.lab build')")


def install_tools(say: Say) -> None:
    """Install what building and booting need by apt; needs root on a Debian machine. Repeatable."""
    wanted = {**recipe.BUILD_TOOLS, **recipe.BOOT_TOOLS}
    packages = sorted({wanted[name] for name in missing(wanted)})
    if not pip_command():
        packages.append("python3-pip")
    if not packages:
        return
    if not which("apt-get"):
        raise LabUnavailable(f"{', '.join(missing(wanted))} not installed, and no apt-get to install it with")
    if os.geteuid() != 0:
        raise LabUnavailable(f"{', '.join(packages)} not installed, and installing needs root")
    say(f"installing {' '.join(packages)}")
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = cache() / "apt.log"
    tool([*apt, "update"], log, env=environment)
    tool([*apt, "install", "--no-install-recommends", *packages], log, env=environment)


def ensure(say: Say = lambda text: None) -> Image:
    """The image, built now if it is not in the cache. Raises LabUnavailable where that cannot work."""
    check()
    with locked():
        sweep()
        for kind, key, build in zip(("base", "python"), keys(), (build_base, build_python), strict=True):
            target = cache() / f"{kind}-{key}"
            if not target.is_dir():
                started = time.monotonic()
                say(f"building the lab's {kind} layer (once; about a minute)")
                work = Path(tempfile.mkdtemp(prefix="building-", dir=cache()))
                build(work)
                os.rename(work, target)
                say(f"built {target} in {time.monotonic() - started:.0f} s")
            os.utime(target)
    image = cached()
    if image is None:
        raise LabUnavailable("the image was removed while it was being built")
    return image


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the cache's lock: builders and sweepers wait for each other, users of a finished image do not."""
    with (cache() / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sweep() -> None:
    """Remove what killed builds left and what nobody used for a month. Call it with the lock held."""
    mounts = Path("/proc/self/mountinfo").read_text()
    for entry in cache().iterdir():
        stale = entry.name.startswith("building-")
        old = (
            entry.name.startswith(("base-", "python-", "state-", "lock-"))
            and entry.stat().st_mtime < time.time() - MAX_AGE
        )
        if (stale or old) and f" {entry}/" not in mounts:  # a mount left inside must not be emptied
            shutil.rmtree(entry, ignore_errors=True)
            entry.unlink(missing_ok=True) if entry.is_file() else None


def tool(argv: list[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run a step of the build with its output in ``log``; it dies with us. Raises LabUnavailable with the output's end."""
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(argv)}\n".encode())
        output.flush()
        command = ["setpriv", "--pdeathsig", "KILL", *argv]
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, check=False
        ).returncode
    if status:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise LabUnavailable(f"building it failed: {argv[0]} ended with status {status}; the end of {log}:\n{end}")


def build_base(work: Path) -> None:
    """Make root.ext4, vmlinux and initrd in ``work``."""
    log = cache() / "build.log"
    log.write_bytes(b"")
    root, packages = work / "root", work / "packages"
    packages.mkdir()
    fetch = (
        f"set -e; p=$(APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-cache depends {recipe.KERNEL}"
        " | sed -n 's/^ *Depends: \\(linux-image-[0-9].*\\)/\\1/p' | head -n 1);"
        f" cd '{packages}'; APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -o APT::Sandbox::User=root download $p"
    )
    mirror = os.environ.get("POOLKIT_LAB_MIRROR")
    # Namespaces of its own: when it is killed, all its children die and what it had mounted in the new root is gone.
    tool(
        [
            "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
            "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(recipe.PACKAGES)}",
            '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
            f"--customize-hook={fetch}", recipe.SUITE, str(root), *([mirror] if mirror else []),
        ],
        log,
    )  # fmt: skip
    (package,) = packages.glob("*.deb")
    tool(["dpkg-deb", "-x", str(package), str(work / "kernel")], log)
    (modules,) = (work / "kernel/lib/modules").iterdir()
    for name in recipe.UNUSED_MODULES:
        shutil.rmtree(modules / "kernel" / name, ignore_errors=True)
    home = root / "usr/lib/modules" / modules.name  # usr/lib: a real lib/ would replace the link of merged /usr
    home.parent.mkdir(exist_ok=True)
    shutil.move(modules, home)
    tool(["chroot", str(root), "depmod", modules.name], log)
    furnish(root)
    # Python's own byte code, compiled here and not in the guest, at the place where a guest has what it compiles.
    compile_all = [
        "python3",
        "-m",
        "compileall",
        "-q",
        "-x",
        "/(test|idlelib|lib2to3|tkinter)/",
        f"/usr/lib/python{recipe.PYTHON_VERSION}",
    ]
    tool(["chroot", str(root), "env", "PYTHONPYCACHEPREFIX=/usr/share/lab/bytecode", *compile_all], log)
    initrd.unpack_kernel(work / f"kernel/boot/vmlinuz-{modules.name}", work / "vmlinux")
    initrd.write_initrd(root, home, recipe.INITRD_MODULES, work / "initrd")
    listing = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W"]
    versions = subprocess.run(listing, stdout=subprocess.PIPE, check=True).stdout
    (work / "packages.txt").write_bytes(package.name.encode() + b"\n" + versions)
    make_ext4(root, work / "root.ext4", 2500, log)
    for folder in (root, packages, work / "kernel"):
        shutil.rmtree(folder)


def furnish(root: Path) -> None:
    """Add what is the lab's own to the root folder."""
    # Without this rule no driver is loaded for the machine's devices: 6 s less to boot; tests load what they need.
    (root / "usr/lib/udev/rules.d/80-drivers.rules").unlink()
    for folder in ("lab", "opt/lab", "etc/sanlock"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/sanlock/sanlock.conf").write_text("use_watchdog = 0\nhigh_priority = 0\nmlock_level = 0\n")
    site = root / f"usr/local/lib/python{recipe.PYTHON_VERSION}/dist-packages"
    site.mkdir(parents=True, exist_ok=True)
    (site / "lab.pth").write_text("import site; site.addsitedir('/opt/lab')\n")
    programs = {
        "usr/sbin/lab-init": (HERE / "init.sh").read_text(),
        "usr/local/bin/poolkit": "#!/usr/bin/python3\nimport sys\nfrom poolkit.cli import main\nsys.exit(main())\n",
    }
    for name, text in programs.items():
        (root / name).write_text(text)
        (root / name).chmod(0o755)


def pip_command() -> list[str] | None:
    """A pip: the outer interpreter's, or the system's where that one has none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    return [found] if (found := which("pip3")) else None


def build_python(work: Path) -> None:
    """Make python.ext4 in ``work``."""
    pip = pip_command()
    if pip is None:
        raise LabUnavailable("pip not installed ('python -m tests.lab prepare' installs it)")
    log = cache() / "build.log"
    folder = work / "python"
    platforms = [word for name in recipe.WHEEL_PLATFORMS for word in ("--platform", name)]
    tool(
        [
            *pip, "install", "--quiet", "--target", str(folder), "--only-binary=:all:", "--implementation", "cp",
            "--python-version", recipe.PYTHON_VERSION, *platforms, *python_requirements(),
        ],
        log,
    )  # fmt: skip
    move_bytecode(folder, "/opt/lab")
    make_ext4(folder, work / "python.ext4", 400, log)
    shutil.rmtree(folder)


def move_bytecode(folder: Path, place: str) -> None:
    """Move what pip compiled to ``.bytecode``, laid out as a PYTHONPYCACHEPREFIX, for a folder that will be at ``place``.

    Byte code of another version of Python than the guest's stays: it has other names and is of no use.
    """
    tag = f".cpython-{recipe.PYTHON_VERSION.replace('.', '')}.pyc"
    for compiled in folder.rglob(f"__pycache__/*{tag}"):
        target = folder / ".bytecode" / place.strip("/") / compiled.parent.parent.relative_to(folder) / compiled.name
        target.parent.mkdir(parents=True, exist_ok=True)
        compiled.rename(target)


def make_ext4(folder: Path, target: Path, mebibytes: int, log: Path) -> None:
    """Write a sparse ext4 image of ``folder``; no journal, for guests throw their writes away."""
    with target.open("wb") as handle:
        handle.truncate(mebibytes << 20)
    tool(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", str(folder), str(target)], log)
