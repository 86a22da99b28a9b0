"""The placing of a volume: what its flavor's backends are, one reservation at a time, and what to do when one refuses."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import errors
from poolkit.backend import Backend, check_volume_name
from poolkit.engine import marking
from poolkit.engine.policies import Facts, Request, may_fit, order, why_not
from poolkit.engine.pool import Pool
from poolkit.state.placements import Ledger, Placement, Promised

if TYPE_CHECKING:
    from poolkit.documents import Flavor
    from poolkit.engine.core import Core
    from poolkit.engine.volume import Volume
    from poolkit.state.inventory import Record

_PLACING = "%placing"  # no pool has this name for work: what is locked are names of volumes, whatever the flavor
PATIENCE = 10.0
"""Seconds that are waited at least, where only volumes that others are making are in the way, and none of these comes or goes."""
_STOP = (errors.AlreadyExists, errors.InvalidArgument, errors.InvalidDefinition, errors.Unsafe, errors.Aborted)
"""What is the volume's own fault, or the caller's wish: no other backend would do better."""


class Known(NamedTuple):
    """The facts of a flavor's backends, and what they were taken from: versions of listings, and reservations."""

    facts: list[Facts]
    seen: dict[int, int]
    promised: dict[int, Promised]


class _Patience:
    """Waits for volumes that others are making: as long as something moves, and ``seconds`` more."""

    def __init__(self, core: Core, name: str, seconds: float) -> None:
        self.core, self.name, self.seconds = core, name, seconds
        self._until = 0.0
        self._last: tuple[dict[int, int], dict[int, Promised]] | None = None

    def wait(self, flavor: Flavor, known: Known) -> None:
        """A moment. ``Busy`` if nothing has moved for long, ``Aborted``."""
        now, last = time.monotonic(), (known.seen, known.promised)
        if last != self._last:
            self._last, self._until = last, now + self.seconds
        elif now > self._until:
            raise errors.Busy(
                f"flavor '{flavor.name}' has no room for volume '{self.name}' beside volumes that other processes are making, "
                f"of which none has come or gone for {self.seconds:g} seconds",
                volume=self.name,
                hint="try again when they are made; what they do not need is free then",
            )
        self.core.host.abort.wait(0.02)
        _check_abort(self.core)
        if not self.core.host.dry_run:
            _bury(self.core, self.name)


def _check_abort(core: Core) -> None:
    if core.host.abort.is_set():
        raise errors.Aborted("stopped while volumes of others were being made")


def _bury(core: Core, name: str) -> None:
    """End the reservations of processes that died, and such of ``name``, which is being placed by nobody else."""

    def alive() -> set[tuple[str, int]]:
        return {(work.volume or "", work.pid) for work in core.locks.current(_PLACING)}

    Ledger(core.inventory.database).reconcile(alive, name)


@contextlib.contextmanager
def changing(core: Core) -> Iterator[None]:
    """One change of flavors at a time; a dry run changes nothing."""
    if core.host.dry_run:
        yield
        return
    with core.locks.flavors():
        yield


def placed(core: Core, flavor: Flavor) -> list[tuple[str, str]]:
    """Pool and name of the volumes that were placed through a flavor and are there, by name.

    Storage that keeps marks is asked itself, whoever placed them. Of other storage, and of what does not answer, those count
    that this root has placed and lists still: the very same ones.
    """
    core.index.sync()
    found, asked, host = [], set(), core.host.operation()
    for pool in (said.pool for said in flavor.backends):
        keeper = marking.keeper(core, pool, host)
        if keeper is not None:
            with contextlib.suppress(errors.PoolkitError, OSError):
                found += [(pool, one.name) for one in keeper.placed(flavor.name) if one.here]
                asked.add(pool)
    for number, name, inode, key in Ledger(core.inventory.database).placed(flavor.name):
        record, info = core.inventory.by_id(number), core.inventory.volume(number, name)
        if (
            record is not None
            and info is not None
            and (info.inode, info.key) == (inode, key)
            and record.name not in asked
        ):
            found.append((record.name, name))
    return sorted(found, key=lambda one: (one[1], one[0]))


def facts(core: Core, flavor: Flavor, format: str | None) -> Known:
    """The backends of a flavor as they are now, in its order, for volumes of a format."""
    ledger = Ledger(core.inventory.database)
    seen: dict[int, int] = {}
    promised = ledger.promised()
    made = [_facts(core, flavor, at, format, ledger, promised, seen) for at in range(len(flavor.backends))]
    return Known(made, seen, promised)


def _facts(
    core: Core, flavor: Flavor, at: int, format: str | None, ledger: Ledger, promised: dict[int, Promised],
    seen: dict[int, int],
) -> Facts:  # fmt: skip
    said = flavor.backends[at]
    start = Facts(said.pool, at, said.priority, ratio=said.ratio, reserve=said.reserve)
    if said.drained:
        return start._replace(refused="it is drained", code="drained")
    try:
        record = core.require_active(said.pool, "vol-create")
        backend = core.definitions.backend(core.definitions.running(record), core.host.operation())
        if why := _lacking(flavor, backend, format):
            return start._replace(refused=why, code="unsupported")
        if why := ledger.broken(record.id):
            return start._replace(refused=f"it is broken since the last try: {why}", code="login-refused")
        record, provisioned, usage = _sizes(core, record, backend)
    except errors.PoolkitError as error:
        return start._replace(refused=str(error), code=error.code)
    except OSError as error:
        worded = errors.from_os_error(error, "look at it", pool=said.pool)
        return start._replace(refused=str(worded), code=worded.code)
    seen[record.id] = record.version
    mine = promised.get(record.id, Promised())
    return start._replace(
        total=usage.capacity, free=usage.available, provisioned=provisioned, promised=mine.capacity,
        promised_space=mine.allocation, thin="thin" in backend.offered(),
    )  # fmt: skip


def _sizes(core: Core, record: Record, backend: Backend) -> tuple[Record, int, Any]:
    record = core.inventory.by_id(record.id) or record
    volumes = core.inventory.volumes(record.id)
    return record, backend.provisioned(volumes), backend.usage(volumes)


def _lacking(flavor: Flavor, backend: Backend, format: str | None) -> str:
    able = {*backend.verbs(), *backend.offered()}
    if "create" not in able:
        return f"pools of type '{backend.type}' cannot create volumes"
    missing = sorted({one.name for one in flavor.needs.capabilities} - able)
    if missing:
        return f"pools of type '{backend.type}' do not offer: {', '.join(missing)}"
    for word in (flavor.needs.format, format):
        if word is not None and word not in backend.volume_formats:
            return f"pools of type '{backend.type}' have no volumes of format '{word}'"
    return ""


class Job(NamedTuple):
    """A volume to be placed: what it takes, the format that backends must have, and what makes it in one of them.

    Without ``again`` it is made in one backend or in none, since what it is made of can be read only once.
    """

    name: str
    request: Request
    format: str | None
    make: Callable[[Pool], Volume]
    again: bool = True


def place(core: Core, flavor: Flavor, job: Job, wait: float | None = None) -> Volume:
    """See :meth:`poolkit.engine.flavors.Flavor.create_volume`."""
    name = check_volume_name(job.name)
    wait = core.wait if wait is None else float(wait)
    with _alone(core, name, wait):
        _require_free_name(core, flavor, name)
        if not core.host.dry_run:
            core.inventory.make()
            _bury(core, name)
        return _try_all(core, flavor, job, _Patience(core, name, max(wait, PATIENCE)))


@contextlib.contextmanager
def _alone(core: Core, name: str, wait: float) -> Iterator[None]:
    """Only one process of this root places a volume of that name, through whatever flavor."""
    if core.host.dry_run:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(core.locks.work(_PLACING, "vol-create", volume=name, wait=wait))
        except errors.Busy as error:
            raise errors.Busy(
                f"volume '{name}' is being placed by another process", volume=name, hint=error.hint
            ) from error
        yield


def _require_free_name(core: Core, flavor: Flavor, name: str) -> None:
    """``VolumeExists`` if a backend has the name, drained ones as well: asked of the storage, of what is down of the listing."""
    for pool in (said.pool for said in flavor.backends):
        if _has(core, pool, name):
            raise errors.VolumeExists(
                f"flavor '{flavor.name}' has a volume '{name}' already, in pool '{pool}'", pool=pool, volume=name
            )


def _has(core: Core, pool: str, name: str) -> bool:
    """Whether a pool has the name; False where that cannot be told."""
    try:
        record = core.record(pool)
        if not core.activity(record)[0]:
            return core.inventory.volume(record.id, name) is not None
        core.definitions.backend(core.definitions.running(record), core.host.operation()).look(name, None)
    except (errors.PoolkitError, OSError):  # VolumeNotFound among them
        return False
    return True


def _try_all(core: Core, flavor: Flavor, job: Job, patience: _Patience) -> Volume:
    request = job.request
    ledger = Ledger(core.inventory.database)
    placement = Placement(flavor.name, os.urandom(16).hex(), tuple(said.pool for said in flavor.backends))
    failed: dict[str, errors.PoolkitError] = {}
    warnings: list[str] = []
    while True:
        _check_abort(core)
        known = facts(core, flavor, job.format)
        open_ = [one for one in known.facts if not one.refused and one.pool not in failed]
        fitting = [one for one in open_ if not why_not(one, request)]
        if not fitting:
            # What is in the way only while others make their volumes may be free when these have failed, or were smaller.
            if any(may_fit(one, request) for one in open_):
                patience.wait(flavor, known)
            elif ledger.unchanged(known.seen, known.promised):
                raise _not_placed(flavor, job.name, known.facts, failed, request)
            continue
        chosen = order(flavor.policy, fitting, request, ledger.last(flavor.name))[0]
        record = core.record(chosen.pool)
        if core.host.dry_run:
            return job.make(Pool(core, record.name, record.uuid))
        sizes = request.capacity, request.allocation
        pool = (record.id, record.name)
        if not ledger.reserve(placement, pool, job.name, os.getpid(), sizes, known.seen, known.promised):
            continue
        try:
            made = job.make(Pool(core, record.name, record.uuid, placed=placement))
        except BaseException as error:
            ledger.release(placement.reservation)
            if not isinstance(error, errors.PoolkitError) or isinstance(error, _STOP) or not job.again:
                raise
            if isinstance(error, errors.NotFound) and not isinstance(error, errors.PoolNotFound):
                raise  # a secret or an image that the document names
            if isinstance(error, errors.LoginRefused):
                ledger.set_broken(record.id, str(error))
                warnings.append(f"pool '{record.name}' is passed over until it is refreshed: {error}")
            failed[chosen.pool] = error
            continue
        made.pool = Pool(core, record.name, record.uuid)  # what is made through it next is not placed
        if warnings and made.outcome is not None:
            from poolkit.engine.operation import Outcome

            out = made.outcome
            made.outcome = Outcome(out.changed, out.message, warnings=(*warnings, *out.warnings), plan=out.plan)
        return made


def _not_placed(
    flavor: Flavor, name: str, known: list[Facts], failed: dict[str, errors.PoolkitError], request: Request
) -> errors.NotPlaced:
    """The error that says of each backend why it did not take the volume."""
    told = []
    for one in known:
        error = failed.get(one.pool)
        if error is not None:
            told.append((one.pool, error.code, str(error)))
        elif one.refused:
            told.append((one.pool, one.code, one.refused))
        else:
            told.append((one.pool, errors.NoSpace("").code, why_not(one, request)))
    said = "; ".join(f"pool '{pool}': {why}" for pool, _, why in told) or "it has no backend"
    error = errors.NotPlaced(
        f"no backend of flavor '{flavor.name}' took volume '{name}': {said}", volume=name,
        hint=errors.Hint("the numbers are told by ", errors.remedy("flavor-explain", flavor.name, request.capacity)),
    )  # fmt: skip
    error.backends = tuple(told)
    return error
