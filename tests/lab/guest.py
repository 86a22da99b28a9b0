"""One running guest: start it, run commands in it, stop it.

    with Guest("one", shared=disk, ip="10.0.0.1/24") as guest:
        print(guest.exec("cat /proc/version").output)

A guest writes to snapshots of the image, to its own disks and to ``shared``, and leaves nothing behind. It is a child of
this process and dies with it. Everything between the two goes through a folder shared by 9p; only the word that a
command is waiting there goes over a serial line, which is qemu's standard input.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import image as images
from . import state
from .image import Image, Say

BOOT_TIMEOUT = 300  # seconds; 4 to 7 are usual under TCG, a busy machine takes its time
KVM_TIMEOUT = 20  # seconds; where KVM works a guest is up in 2
POLL = 0.02  # seconds between looks at the shared folder
RESTORE_TIMEOUT = 180  # seconds; 1 to 3 are usual, and whoever waits in vain lets nobody else use that state
UNMARKED = "POOLKIT_LAB_UNMARKED"  # names a test that runs and may not start a guest
SOURCES = 2  # folders of sources that a machine has room for
SHARED = ("cache=none,file.locking=off", "share-rw=on")  # options of a disk that several machines have


class GuestError(Exception):
    """A guest did not start, died, or a command in it took too long; the text ends with its console."""


@dataclass(frozen=True)
class Result:
    """What a command in the guest gave: its exit status, and standard output and error as one text."""

    status: int
    output: str


def accelerator(image: Image) -> str:
    """``kvm`` where a guest was seen booting with it, else ``tcg``. /dev/kvm alone says little: the answer is tried
    once per kernel and image, and kept beside the image."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    note = image.base / f"accelerator-{platform.release()}"
    if not note.exists():
        found = "tcg"
        with contextlib.suppress(GuestError), Guest("kvm-check", disks=0, accel="kvm", boot_timeout=KVM_TIMEOUT):
            found = "kvm"
        scratch = note.with_name(f"{note.name}.{os.getpid()}")
        scratch.write_text(found)
        scratch.rename(note)
    return note.read_text()


class Guest:
    """A guest with ``disks`` empty disks of ``disk_size`` bytes (/dev/disk/by-id/virtio-DISK1 ...).

    ``shared``: a raw file that several guests may have at once, uncached (/dev/disk/by-id/virtio-SHARED).
    ``ip``: address with prefix length on a network that the guests of this process share (two at a time or more).
    ``sources``: folders seen read-only at the same path in the guest; Python there imports from them.
    ``hardware``: SCSI disks with two controllers, a two-path disk and a pair of network cards, for SCSI, multipath and FC.
    ``memory`` is in MiB. ``extra`` are more arguments for qemu. ``terminal``: a shell on this process's terminal instead
    of ``exec``.
    """

    def __init__(
        self,
        name: str,
        *,
        disks: int = 4,
        disk_size: int = 1 << 30,
        shared: Path | None = None,
        ip: str | None = None,
        sources: Sequence[Path] = (),
        hardware: bool = False,
        memory: int = 2048,
        cpus: int = 2,
        accel: str | None = None,
        extra: Sequence[str] = (),
        terminal: bool = False,
        boot_timeout: float = BOOT_TIMEOUT,
        say: Say = lambda text: None,
    ) -> None:
        self.name = name
        self.disks = disks
        self.disk_size = disk_size
        self.shared = shared
        self.ip = ip
        self.sources = tuple(sources)
        self.hardware = hardware
        self.memory = memory
        self.cpus = cpus
        self.accel = accel
        self.extra = tuple(extra)
        self.terminal = terminal
        self.boot_timeout = boot_timeout
        self.say = say
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = Path("/nonexistent")
        self.state: Path | None = None  # the folder of the saved state that this machine goes on from
        self._saving = False
        self._woken = 0.0
        self._jobs = 0
        self._console = ""

    @property
    def share(self) -> Path:
        """The folder that the guest sees as /lab, readable and writable from both sides."""
        return self.folder / "share"

    @property
    def running(self) -> bool:
        """Whether the machine is on."""
        return self.process is not None and self.process.poll() is None

    def console(self) -> str:
        """What the kernel and the first process printed; still there after ``stop``."""
        if self.folder.is_dir():
            parts = []
            for name in ("console.log", "qemu.log"):
                with contextlib.suppress(FileNotFoundError):
                    parts.append((self.folder / name).read_text(errors="replace").replace("\r", ""))
            self._console = "".join(parts)
        return self._console

    def start(self) -> Guest:
        """Boot and wait until commands can run. Raises LabUnavailable or GuestError; then nothing is left running."""
        self.launch()
        self.wait_ready()
        return self

    def launch(self, *, boot: bool = False) -> None:
        """Switch the machine on; ``wait_ready`` comes next. Raises LabUnavailable.

        It goes on from a saved state where that is possible, unless it is told to ``boot``.
        """
        if unmarked := os.environ.get(UNMARKED):
            raise GuestError(
                f"{unmarked} starts a guest without the fixture 'bootable' or 'lab_guest', which say that it does"
            )
        image = images.ensure(self.say)
        accel = self.accel or accelerator(image)
        # With KVM a guest boots in 2 s. A shared disk or network differs from guest to guest, and a state has seen it.
        fit = accel == "tcg" and not (boot or self.shared or self.ip or self.extra or self.terminal)
        self.state = state.ensure(self, image, accel) if fit else None
        self._prepare_folder()
        machine = [*self._qemu(image, accel), *self._devices(), *self.extra]
        if self.state:
            (self.folder / state.MEMORY).symlink_to(self.state / state.MEMORY)
            machine += ["-incoming", f"exec:cat {state.MEMORY}"]
        with (self.folder / "qemu.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *machine],
                stdin=None if self.terminal else subprocess.PIPE,
                stdout=None if self.terminal else subprocess.DEVNULL,
                stderr=log,
                cwd=self.folder,
                start_new_session=not self.terminal,
            )

    def wait_ready(self) -> None:
        """Wait until commands can run; GuestError if that does not come, and then nothing is left running.

        A guest that does not come up from a saved state is booted.
        """
        try:
            if self.state:
                try:
                    # What arrives before the state is loaded is lost, so it is told again; more empty lines are ignored.
                    self.wait_for(self.share / "ready", RESTORE_TIMEOUT, "going on from a saved state", self._wake)
                    return
                except GuestError as error:
                    self.stop()
                    state.discard(self.state, str(error))
                    self.say("a guest did not go on from its saved state, so it is booted")
                    self.launch(boot=True)
            self.wait_for(self.share / "ready", self.boot_timeout, "booting")
        except BaseException:
            self.stop()
            raise

    def _wake(self) -> None:
        """Send the empty line that a saved guest waits for."""
        now = time.monotonic()
        if now - self._woken > 0.2 and self.process and self.process.stdin:
            self._woken = now
            with contextlib.suppress(OSError):
                self.process.stdin.write(b"\n")
                self.process.stdin.flush()

    def shape(self) -> list[str]:
        """What a saved state depends on, besides image and qemu."""
        return [str(fact) for fact in (self.disks, self.disk_size, self.hardware, self.memory, self.cpus)]

    def twin(self) -> Guest:
        """A machine of the same shape, to be saved."""
        return Guest(
            f"{self.name}-saved", disks=self.disks, disk_size=self.disk_size, hardware=self.hardware,
            memory=self.memory, cpus=self.cpus, accel="tcg",
        )  # fmt: skip

    def save(self, target: Path) -> None:
        """Boot, save the machine as it is before it knows its name, and switch it off. Raises GuestError or RuntimeError."""
        self._saving = True
        self.extra = ("-qmp", "unix:monitor,server=on,wait=off")
        self.launch(boot=True)
        try:
            self.wait_for(lambda: state.WAITING in self.console(), state.SAVE_TIMEOUT, "booting to be saved")
            monitor = state.Monitor(self.folder / "monitor")
            monitor.save(state.MEMORY)
            monitor.close()
            os.rename(self.folder / state.MEMORY, target)
        finally:
            self.stop()

    def stop(self) -> None:
        """Switch the machine off at once and remove its disks. Repeatable."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdin:
                with contextlib.suppress(OSError):
                    self.process.stdin.close()
            self.process = None
            self.console()
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Guest:
        return self if self.running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def submit(self, command: str) -> str:
        """Start a bash script in the guest and return its name: NAME.out grows in the share, NAME.rc ends it."""
        if self.process is None or self.process.stdin is None:
            raise GuestError(f"the guest {self.name} is not running")
        self._jobs += 1
        name = f"job{self._jobs}"
        (self.share / f"{name}.out").touch()
        (self.share / f"{name}.sh").write_text(command + "\n")
        try:
            self.process.stdin.write(name.encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise GuestError(self.obituary("died")) from None
        return name

    def exec(
        self, command: str, timeout: float = 300, *, check: bool = True, stream: Callable[[str], None] | None = None
    ) -> Result:
        """Run a bash script in the guest, as root in /root, and wait for it at most ``timeout`` seconds.

        ``stream`` gets the output as it comes. With ``check`` a status other than 0 raises GuestError with the output; so
        does, always, a guest that died or a script that did not end in time (it is left running then).
        """
        name = self.submit(command)
        with (self.share / f"{name}.out").open(encoding="utf-8", errors="replace", newline="") as output:
            text: list[str] = []

            def more() -> None:
                if new := output.read():
                    text.append(new)
                    if stream:
                        stream(new)

            try:
                self.wait_for(self.share / f"{name}.rc", timeout, f"running {command!r}", more)
            finally:
                more()
        result = Result(int((self.share / f"{name}.rc").read_text()), "".join(text))
        if check and result.status:
            raise GuestError(
                f"{command!r} in the guest {self.name} ended with status {result.status}:\n{result.output}"
            )
        return result

    def wait_for(
        self, what: Path | Callable[[], bool], timeout: float, doing: str, tick: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until the guest has made a file, or until ``what`` holds; raises GuestError if it dies or ``timeout``
        seconds pass before."""
        deadline = time.monotonic() + timeout
        there = what.exists if isinstance(what, Path) else what
        while not there():
            if not self.running:
                raise GuestError(self.obituary(f"died while {doing}"))
            if time.monotonic() > deadline:
                raise GuestError(self.obituary(f"took more than {timeout:g} s {doing}"))
            tick()
            time.sleep(POLL)

    def obituary(self, what: str) -> str:
        """One sentence and the end of the console."""
        tail = "\n".join(self.console().splitlines()[-100:])
        return f"the guest {self.name} {what}; the end of its console:\n{tail or '(empty)'}"

    def _prepare_folder(self) -> None:
        """Make the folder of disks, logs and the share, and leave the guest's settings in it."""
        run = images.cache() / "run"
        run.mkdir(exist_ok=True)
        for old in run.iterdir():  # of processes that were killed
            pid = old.name.rsplit(".", 2)[-2]
            if not Path(f"/proc/{pid}").exists():
                shutil.rmtree(old, ignore_errors=True)
        self.folder = run / f"{self.name}.{os.getpid()}.{time.monotonic_ns():x}"
        self.share.mkdir(parents=True)
        (self.folder / "nothing").mkdir()
        self._jobs = 0
        size = shutil.get_terminal_size()
        settings = {
            "NAME": self.name,
            "IP": self.ip or "",
            "MAC": self._mac(),
            "NOW": str(int(time.time())),
            "SHELL_SIZE": f"{size.lines}x{size.columns}" if self.terminal else "",
            "SHELL_TERM": os.environ.get("TERM", "linux"),
        }
        lines = [f"{key}={shlex.quote(value)}" for key, value in settings.items()]
        lines.append(f"SOURCES=({' '.join(shlex.quote(str(source)) for source in self.sources)})")
        (self.share / "setup").write_text("\n".join(lines) + "\n")
        (self.share / "entropy").write_bytes(os.urandom(512))
        self._copy_metadata()
        disks = [f"DISK{number + 1}" for number in range(self.disks)]
        for disk in disks + (["SCSI1", "SCSI2", "TWOPATH"] if self.hardware else []):
            with (self.folder / disk).open("wb") as handle:
                handle.truncate(self.disk_size)

    def _copy_metadata(self) -> None:
        """Give the guest poolkit's entry points: with the bare source tree importlib.metadata would not know it."""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed = importlib.metadata.distribution("poolkit")
            target = self.share / "site" / f"poolkit-{installed.version}.dist-info"
            target.mkdir(parents=True)
            for name in ("METADATA", "entry_points.txt"):
                if text := installed.read_text(name):
                    (target / name).write_text(text)

    def _mac(self) -> str:
        """An address of qemu's range that differs between names."""
        return "52:54:01:" + zlib.crc32(self.name.encode()).to_bytes(4, "big")[1:].hex(":")

    def _qemu(self, image: Image, accel: str) -> list[str]:
        """The machine without the devices under test."""
        kvm = accel == "kvm"
        append = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable"
        append += " lab.save" if self._saving else ""
        return [
            images.which("qemu-system-x86_64") or "qemu-system-x86_64",
            "-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", "host" if kvm else "max",
            "-smp", str(self.cpus), "-m", str(self.memory), "-nodefaults", "-display", "none", "-no-reboot",
            "-serial", "file:console.log",
            "-chardev", f"stdio,id=line,signal={'off' if self.terminal else 'on'}", "-serial", "chardev:line",
            "-kernel", str(image.base / "vmlinux"), "-initrd", str(image.base / "initrd"), "-append", append,
            # The root disk's address keeps it behind the test disks, which are vda, vdb, ...
            *drive(image.base / "root.ext4", "labroot", "snapshot=on,cache=unsafe", "addr=0x1e"),
            *drive(image.python / "python.ext4", "python", "snapshot=on,cache=unsafe", "addr=0x1f"),
            "-device", "virtio-rng-pci,addr=0x1d",
            *_folder("share", "lab", "0x1c"),
        ]  # fmt: skip

    def _devices(self) -> list[str]:
        """Disks, source folders and network cards."""
        arguments: list[str] = []
        for number in range(self.disks):
            arguments += drive(Path(f"DISK{number + 1}"), f"DISK{number + 1}", "cache=unsafe,discard=unmap")
        if self.shared:
            arguments += drive(self.shared.absolute(), "SHARED", *SHARED)
        for number, source in enumerate([*self.sources, *["nothing"] * (SOURCES - len(self.sources))]):
            arguments += _folder(str(source), f"src{number}", f"{0x1B - number:#x}", ",readonly=on")
        if self.ip:
            port = 20000 + os.getpid() % 40000
            arguments += ["-netdev", f"socket,id=lan,mcast=230.0.0.1:{port},localaddr=127.0.0.1"]
            arguments += ["-device", f"virtio-net-pci,netdev=lan,mac={self._mac()}"]
        return arguments + (_hardware() if self.hardware else [])


def drive(path: Path, name: str, options: str, device: str = "") -> list[str]:
    """A virtio disk with a serial number, by which udev names it. Every disk is an explicit device: qemu creates
    ``-drive if=virtio`` after them, which would change the order."""
    where = str(path).replace(",", ",,")
    return [
        "-drive", f"file={where},id={name},if=none,format=raw,{options}",
        "-device", f"virtio-blk-pci,drive={name},serial={name}" + (f",{device}" if device else ""),
    ]  # fmt: skip


def _folder(path: str, tag: str, address: str, options: str = "") -> list[str]:
    """A folder for 9p."""
    where = path.replace(",", ",,")
    return [
        "-fsdev", f"local,id={tag},path={where},security_model=none,multidevs=remap{options}",
        "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag},addr={address}",
    ]  # fmt: skip


def _hardware() -> list[str]:
    """Devices whose drivers only the tests that use them load: a SCSI controller with two disks, a disk that two more
    controllers reach (one WWN: two paths), and two network cards on one hub for FCoE."""
    arguments = []
    for number in range(3):
        arguments += ["-device", f"virtio-scsi-pci,id=scsi{number}"]
    for number, name in enumerate(("SCSI1", "SCSI2")):
        arguments += ["-drive", f"file={name},id={name},if=none,format=raw,cache=unsafe,discard=unmap"]
        arguments += ["-device", f"scsi-hd,bus=scsi0.0,scsi-id=0,lun={number},drive={name},serial={name}"]
    for number in (1, 2):
        drive = f"TWOPATH{number}"
        arguments += ["-drive", f"file=TWOPATH,id={drive},if=none,format=raw,cache=none,file.locking=off"]
        device = f"scsi-hd,bus=scsi{number}.0,drive={drive},serial=TWOPATH,wwn=0x5000c50015ea71ac,share-rw=on"
        arguments += ["-device", device]
    for number in (1, 2):
        arguments += ["-netdev", f"hubport,id=fc{number},hubid=1"]
        arguments += ["-device", f"virtio-net-pci,netdev=fc{number},mac=52:54:00:00:00:0{number},host_mtu=4000"]
    return arguments


def main_guest(**options: object) -> Guest:
    """The guest that tests and shells get: with all hardware and the project's source tree."""
    project = Path(__file__).resolve().parents[2]
    options.setdefault("sources", [project])
    return Guest("lab", hardware=True, say=lambda text: print(text, file=sys.stderr), **options)  # type: ignore[arg-type]
