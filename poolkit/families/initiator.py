"""The kernel's iSCSI initiator, by open-iscsi: its sessions, the records of a pool, logging in and out.

Each pool has an interface record of its own, ``poolkit-`` and the pool's uuid. A session that was opened by it is the pool's;
no other one is ever logged out. The records are open-iscsi's own files: the node record of a pool holds the password as long as
the pool is up, readable for root alone, because ``iscsid`` needs it to log in again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.families import portals
from poolkit.families.portals import Chap, Portal
from poolkit.host import kernel, undo
from poolkit.host.devices import Devices
from poolkit.host.port import Host

if TYPE_CHECKING:
    from poolkit.documents import FoundSource

DISCOVERY = 20.0
"""Seconds for a portal to name its targets: one try of 15 seconds (iscsid.conf, login_timeout), and the rest for iscsiadm."""
LOGIN = 45.0
"""Seconds for a login: two tries of 15 seconds, and scanning for logical units."""
LOGOUT = 60.0
"""Seconds for a logout: logout_timeout is 15, and removing devices whose target is gone takes as long again."""

_SESSIONS = "/sys/class/iscsi_session"
_TRIES = 2  # of a login; open-iscsi's own number is 8, which are two minutes

# Statuses of iscsiadm (iscsiadm(8), EXIT STATUS; usr/../include/iscsi_err.h).
_EXISTS, _NOT_FOUND, _LOGIN_FAILED, _DENIED = 15, 21, 19, 24
_GONE = (2, _NOT_FOUND, 22)  # ISCSI_ERR_SESS_NOT_FOUND, and what is said when its folder in sysfs goes at that moment
_SILENT = (4, 8, 11)  # ISCSI_ERR_TRANS, _TRANS_TIMEOUT, _PDU_TIMEOUT
_NO_DAEMON = (18, 20)  # ISCSI_ERR_ISCSID_COMM_ERR, _ISCSID_NOTCONN
_NO_DRIVER = 12  # ISCSI_ERR_TRANS_NOT_FOUND
_ACCESS = 13  # ISCSI_ERR_ACCESS


class Session(NamedTuple):
    """One session of this host, from sysfs. ``number`` names it and its folder there (``session3``)."""

    number: str
    target: str
    interface: str
    initiator: str
    portals: tuple[Portal, ...]
    devices: Devices

    @property
    def answers(self) -> bool:
        """Whether the kernel takes the target for alive at this moment; it asks every few seconds (noop_out_interval)."""
        return _word(self.devices, f"{_SESSIONS}/{self.number}/state") == "LOGGED_IN"

    @property
    def host(self) -> int:
        """The number of the SCSI host that the kernel made for it."""
        found = re.search(r"/host(\d+)/session\d+$", self.devices.real(f"{_SESSIONS}/{self.number}/device"))
        return int(found[1]) if found else -1

    @property
    def units(self) -> set[str]:
        """The SCSI addresses (``2:0:0:1``) of what is behind it; the host of an adapter card may have several sessions."""
        base = f"{_SESSIONS}/{self.number}/device"
        folders = [name for name in self.devices.names(base) if name.startswith("target")]
        return {name for folder in folders for name in self.devices.names(f"{base}/{folder}") if name.count(":") == 3}


def sessions(host: Host) -> list[Session]:
    """All sessions, read once per engine call and again after a change. Waits for nobody."""
    found: list[Session] = host.shared("iscsi sessions", lambda: list(_sessions(host.devices)))
    return found


def _sessions(said: Devices) -> Iterator[Session]:
    for number in said.names(_SESSIONS):
        words = [
            _word(said, f"{_SESSIONS}/{number}/{name}")
            for name in ("targetname", "ifacename", "initiatorname", "state")
        ]
        base = f"/sys/class/iscsi_connection/connection{number.removeprefix('session')}:0"
        found = []
        for which in ("persistent_", ""):
            address, port = _word(said, f"{base}/{which}address"), _word(said, f"{base}/{which}port")
            if address and port.isdigit():
                found.append(Portal(address, int(port)))
        if words[0]:
            yield Session(number, words[0], words[1], words[2], tuple(dict.fromkeys(found)), said)


def _word(said: Devices, path: str) -> str:
    word = said.value(path)
    return "" if word == "(null)" else word


def interface(pool: Any) -> str:
    """The name of the pool's interface record."""
    return f"poolkit-{pool.uuid}"


def session(host: Host, pool: Any) -> Session | None:
    """The pool's session, or one of somebody else to the same target, portal and by the same name; None without either."""
    mine = interface(pool)
    others = []
    for one in sessions(host):
        if one.interface == mine:
            return one
        if one.target == pool.source.devices[0].path:
            others.append(one)
    who = pool.source.initiator or (portals.name_of_host() if others else "")
    others = [one for one in others if one.initiator == who]
    if others:
        wanted = {address for portal in portals.portals(pool) for address in portals.addresses(host, portal)}
        for one in others:
            if wanted.intersection(one.portals):
                return one
    return None


# -- what is there, and undoing it --------------------------------------------------------------------------------------


def _question(name: str) -> list[str]:
    """Asks which of session, interface record and node record there are: prints those words, in this order."""
    folders = [
        _SESSIONS,
        *(f"{root}/ifaces" for root in portals.RECORDS),
        *(f"{root}/nodes" for root in portals.RECORDS),
    ]
    said = ["(", "-name", "ifacename", "-exec", "grep", "-qx", name, "{}", ";", "-printf", "session\\n", ")"]
    said += ["-o", "(", "-path", f"*/ifaces/{name}", "-printf", "interface\\n", ")"]
    return ["find", "-L", *folders, "-maxdepth", "3", *said, "-o", "-name", name, "-printf", "node\\n"]


def _undo(name: str, there: str, argv: Sequence[str]) -> undo.Undo:
    # Each step of an undo is for one state of the three: what is not as this pool left it is left alone.
    return undo.run_if(_question(name), there, argv)


def _node(pool: Any, portal: str, *what: str) -> list[str]:
    return ["iscsiadm", "-m", "node", "-T", pool.source.devices[0].path, "-p", portal, "-I", interface(pool), *what]


def _interface(name: str, *what: str) -> list[str]:
    return ["iscsiadm", "-m", "iface", "-I", name, *what]


def records(name: str) -> list[str]:
    """The paths of the node records that belong to an interface record."""
    found = []
    for root in portals.RECORDS:
        for target in kernel.names(f"{root}/nodes"):
            for portal in kernel.names(f"{root}/nodes/{target}"):
                path = f"{root}/nodes/{target}/{portal}/{name}"
                if os.path.isfile(path):
                    found.append(path)
    return found


def _portal_of(record: str) -> tuple[str, str]:
    """The target's name and the portal, as iscsiadm takes it, from the path of a node record."""
    folder = os.path.dirname(record)
    address, port, group = os.path.basename(folder).rsplit(",", 2)
    return os.path.basename(os.path.dirname(folder)), f"{Portal(address, int(port))},{group}"


# -- in and out ---------------------------------------------------------------------------------------------------------


def login(host: Host, pool: Any) -> None:
    """Log in to the first portal that lets us, by an interface record of the pool's own.

    ``LoginRefused`` for a wrong name or secret, ``NotFound`` for a target that the portals do not have, ``Unreachable`` for
    portals that do not answer.
    """
    credentials = portals.chap(host, pool)
    _forget(host, pool)
    name = interface(pool)
    _prepare(host, pool, name)
    failures: list[errors.PoolkitError] = []
    for named in portals.portals(pool):
        found = portals.addresses(host, named)
        if not found:
            failures.append(portals.unknown(pool.name, named))
        for address in found:
            try:
                _enter(host, pool, name, *_ask(host, pool, address), credentials)
                return
            except (errors.Unreachable, errors.NotFound, errors.LoginRefused) as error:
                failures.append(error)
                _abandon(host, pool)
    raise portals.refused(pool, failures)


def _prepare(host: Host, pool: Any, name: str) -> None:
    drop = _undo(name, "interface", _interface(name, "-o", "delete"))
    with worded(pool):
        host.change(_interface(name, "-o", "new"), undo=drop)
        if pool.source.initiator:
            who = ["-o", "update", "-n", "iface.initiatorname", "-v", pool.source.initiator]
            host.change(_interface(name, *who))


def _ask(host: Host, pool: Any, address: Portal) -> tuple[str, bool]:
    """The portal, and its group, at which that one says its target is: itself if it can be. And whether it does say so."""
    target = pool.source.devices[0].path
    if host.dry_run:
        return f"{address},1", True
    try:
        with worded(pool, address):
            found = discover(host, address, interface(pool))
    except errors.LoginRefused:
        return f"{address},1", False  # asking for names may need a login of its own, which is in iscsid.conf
    there = [portal for portal, name in found if name == target]
    if not there:
        shown = ", ".join(f"'{name}'" for name in dict.fromkeys(name for _, name in found)) or "none"
        raise errors.NotFound(
            f"pool '{pool.name}': the portal {address} has no target '{target}' for this initiator", pool=pool.name,
            hint=f"it offers {shown[:300]}; a target shows itself only to initiators that it knows",
        )  # fmt: skip
    return min(there, key=lambda portal: not portal.startswith(f"{address},")), True


def discover(host: Host, address: Portal, name: str | None = None) -> list[tuple[str, str]]:
    """The targets that a portal offers: portal, with its group, and name. Keeps no record. Raises as ``host.query``.

    A name that cannot be printed is left out: no target has one, and it would be shown.
    """
    which = ["-I", name] if name else []
    argv = ["iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", str(address), *which, "-o", "nonpersistent"]
    said = host.query(argv, ok=(0, _NOT_FOUND), timeout=DISCOVERY).stdout
    found = [tuple(line.split()) for line in said.splitlines() if line.isprintable()]
    return [(words[0], words[1]) for words in found if len(words) == 2]


def sources(host: Host, source: Any) -> list[FoundSource]:
    """The targets that the one portal of ``source`` offers, to its initiator if it names one.

    ``InvalidArgument`` without a portal, ``Unreachable``, ``LoginRefused``.
    """
    from poolkit.documents import FoundDevice, FoundSource

    portal, who = portals.one(source, "iscsi"), source.initiator
    name = f"poolkit-{token_hex(8)}" if who else None
    try:
        with worded(None, portal):
            if name is not None:
                host.change(
                    _interface(name, "-o", "new"), undo=_undo(name, "interface", _interface(name, "-o", "delete"))
                )
                host.change(_interface(name, "-o", "update", "-n", "iface.initiatorname", "-v", who))
            found = dict.fromkeys(target for _, target in discover(host, portal, name))
    finally:
        if name is not None and _has_interface(name):
            host.run_undo(_interface(name, "-o", "delete"))
    return [FoundSource(hosts=source.hosts, devices=(FoundDevice(path=target),), initiator=who) for target in found]


def _enter(host: Host, pool: Any, name: str, portal: str, offered: bool, credentials: Chap) -> None:
    with worded(pool, portal.rpartition(",")[0], offered=offered):
        drop = _undo(name, "interface node", _node(pool, portal, "-o", "delete"))
        host.change(_node(pool, portal, "-o", "new"), undo=drop)
        _complete(host, pool, name, credentials)
        leave = _undo(name, "session interface node", _node(pool, portal, "--logout"))
        # Somebody may have started the same pool at the same time, by another root: the session is there, and that is enough.
        host.change(_node(pool, portal, "--login"), undo=leave, ok=(0, _EXISTS), timeout=LOGIN)


def _complete(host: Host, pool: Any, name: str, credentials: Chap) -> None:
    """Write what this pool wants into its node record, passwords too: iscsiadm would take them from its arguments."""
    found = records(name)
    if host.dry_run or not found:
        host.step(f"write the login into the node record of '{name}'")
        return
    wanted = {
        "node.startup": "manual",  # the pool decides, and not what starts with the machine
        "node.session.nr_sessions": "1",
        "node.session.initial_login_retry_max": str(_TRIES),
    }
    if credentials.name:
        wanted |= {
            "node.session.auth.authmethod": "CHAP",
            "node.session.auth.username": credentials.name,
            "node.session.auth.password": credentials.secret,
        }
    if credentials.name_in:
        wanted |= {
            "node.session.auth.username_in": credentials.name_in,
            "node.session.auth.password_in": credentials.secret_in,
        }
    begin, *lines, end = kernel.text(found[0]).splitlines()
    kept = [line for line in lines if line.partition(" =")[0] not in wanted]
    text = "\n".join([begin, *kept, *(f"{key} = {value}" for key, value in wanted.items()), end, ""])
    host.files.write(found[0], text.encode(), 0o600)


def _has_interface(name: str) -> bool:
    return any(os.path.exists(f"{root}/ifaces/{name}") for root in portals.RECORDS)


def _abandon(host: Host, pool: Any) -> None:
    """Take back a login that failed, before another portal is tried: iscsid may still be at it."""
    _leave(host, pool)
    _forget(host, pool, node_only=True)


def _forget(host: Host, pool: Any, *, node_only: bool = False) -> None:
    """Delete the records of a pool without a session: those of a start that failed, or before the machine was restarted."""
    name = interface(pool)
    for record in records(name):
        target, portal = _portal_of(record)
        argv = ["iscsiadm", "-m", "node", "-T", target, "-p", portal, "-I", name, "-o", "delete"]
        # The interface record goes with the last node record, also if this process dies between the two.
        after = None if node_only else _undo(name, "interface", _interface(name, "-o", "delete"))
        host.change(argv, ok=(0, _NOT_FOUND), undo=after)
    if not node_only and _has_interface(name):
        host.change(_interface(name, "-o", "delete"), ok=(0, _NOT_FOUND))


def logout(host: Host, pool: Any) -> None:
    """End the pool's own session, and delete its records. A session of somebody else stays. Repeatable."""
    with worded(pool):
        _leave(host, pool)
        _forget(host, pool)


def _leave(host: Host, pool: Any) -> None:
    name = interface(pool)
    for one in sessions(host):
        if one.interface == name:
            record = next(iter(records(name)), None)
            again = record and _undo(name, "interface node", _node(pool, _portal_of(record)[1], "--login"))
            argv = ["iscsiadm", "-m", "session", "-r", one.number.removeprefix("session"), "--logout"]
            host.change(argv, undo=again or None, ok=(0, *_GONE), timeout=LOGOUT)


# -- words --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def worded(pool: Any, portal: Portal | str = "", *, offered: bool = False) -> Iterator[None]:
    """Turns what iscsiadm says of ``portal`` into an error of poolkit's tree, by its exit status.

    ``offered``: the portal has just said that it has the target. Then a login that fails for good is one that is refused: by
    the portal, or by us because the target did not prove who it is, for which open-iscsi has no status of its own.
    """
    where = f"the portal {portal}" if portal else "iscsid"
    start = f"pool '{pool.name}': {where}" if pool is not None else where
    try:
        yield
    except errors.ToolTimeout:
        raise errors.Unreachable(
            f"{start} did not answer in time", pool=getattr(pool, "name", None),
            hint="is the target up, and does a firewall let it answer?",
        ) from None  # fmt: skip
    except errors.ToolFailed as error:
        raise _meaning(pool, start, error, offered) from error


def _meaning(pool: Any, start: str, error: errors.ToolFailed, offered: bool) -> errors.PoolkitError:
    name, status, source = getattr(pool, "name", None), error.status or 0, getattr(pool, "source", None)
    target = f"the target '{source.devices[0].path}'" if source is not None else "such a target"
    if status == _DENIED or (status == _LOGIN_FAILED and offered):
        who = f" as '{source.auth.username}'" if source is not None and source.auth is not None else ""
        return errors.LoginRefused(f"{start} refused the login{who} to {target}", pool=name, hint=portals.LOGIN_HINT)
    if status in (_LOGIN_FAILED, _NOT_FOUND):
        words = f"{start} does not have {target} for this initiator"
        return errors.NotFound(words, pool=name, hint=portals.TARGET_HINT)
    if status in _SILENT:
        refused = "refused" in error.stderr
        return errors.Unreachable(
            f"{start} {'refuses connections' if refused else 'does not answer'}", pool=name,
            hint="does a target listen there?" if refused else "is it up, and does a firewall let it answer?",
        )  # fmt: skip
    if status in _NO_DAEMON:
        return errors.HostError(
            "the program iscsid does not run, which keeps the iSCSI sessions of this host", pool=name,
            hint="start it: systemctl start iscsid",
        )  # fmt: skip
    if status == _NO_DRIVER:
        return errors.Unsupported("the kernel has no driver for iSCSI over TCP", pool=name, hint="modprobe iscsi_tcp")
    kind = errors.PermissionDenied if status == _ACCESS else errors.HostError
    return kind(f"{start}: {error.message}", pool=name)
