"""Records of older or broken hosts: an error says which record, which field and which host, and the others are listed."""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolkit import errors
from poolkit.backend import Mark
from poolkit.engine import Engine
from poolkit.engine.pool import Pool
from poolkit.families.xapi import client, disks, records, wire
from poolkit.families.xapi.client import NULL, Api
from poolkit.families.xapi.disks import Disks
from poolkit.families.xapi.repositories import Repository
from poolkit.host import Host
from tests.xapi import PASSWORD

from . import MIB, PEER, started, volume_of
from .server import calls

pytestmark = [PEER, pytest.mark.tools("qemu-img")]

GOOD = {
    "uuid": "u-1", "name_label": "disk", "SR": "OpaqueRef:sr", "VBDs": [], "virtual_size": 5, "physical_utilisation": -1,
    "type": "user", "location": "", "managed": True, "missing": False, "read_only": False, "is_a_snapshot": False,
    "other_config": {"a": "b"}, "sm_config": {}, "allowed_operations": ["clone"],
}  # fmt: skip
ODD: list[Any] = [
    None,
    "",
    "x",
    "-5",
    -5,
    1 << 70,
    1.5,
    float("nan"),
    True,
    [],
    [None],
    {},
    {"a": None},
    NULL,
    "\ud800",
    {"a": {}},
]


def vdi(**changes: Any) -> Any:
    return records.checked("VDI", {**GOOD, **changes}, "OpaqueRef:1", "p", "xen1")


# -- one record -----------------------------------------------------------------------------------------------------------


def test_a_whole_record_stays_the_object_that_it_is() -> None:
    raw = dict(GOOD)
    assert records.checked("VDI", raw, "OpaqueRef:1", "p", "xen1") is raw


def test_numbers_of_xml_rpc_are_numbers() -> None:
    record = vdi(virtual_size="5", physical_utilisation="-1")
    assert (record["virtual_size"], record["physical_utilisation"]) == (5, -1)


@pytest.mark.parametrize("field", GOOD)
def test_a_field_that_is_not_there_is_named_when_it_is_needed(field: str) -> None:
    raw = {name: value for name, value in GOOD.items() if name != field}
    record = records.checked("VDI", raw, "OpaqueRef:1", "p", "xen1")
    assert [record[name] for name in raw] == list(raw.values()), "the others can be used"
    with pytest.raises(records.Unusable) as caught:
        record[field]
    who = "OpaqueRef:1" if field == "uuid" else "u-1"
    assert str(caught.value) == f"pool 'p': the record of VDI {who} at xen1 lacks the field '{field}'"
    assert caught.value.code == "host-error" and caught.value.exit_code == 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("virtual_size", "much"), ("virtual_size", 1 << 63), ("virtual_size", True), ("virtual_size", 1.0), ("uuid", ""),
        ("uuid", "../x"), ("name_label", None), ("VBDs", [1]), ("VBDs", {}), ("other_config", {"a": 1}),
        ("sm_config", []), ("managed", "true"),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_named_with_what_it_has(field: str, value: Any) -> None:
    with pytest.raises(records.Unusable, match=f"as the field '{field}'") as caught:
        vdi(**{field: value})[field]
    assert repr(value) in str(caught.value)


def test_what_is_no_record_at_all() -> None:
    for raw in (None, [], "x", 5):
        with pytest.raises(records.Unusable, match="lacks the field 'SR'"):
            records.checked("VDI", raw, "OpaqueRef:1", "p", "xen1")["SR"]


def test_a_warning_tells_of_all_that_are_passed_over() -> None:
    warnings: list[str] = []
    several = [(str(n), vdi(SR=None if n else "sr")) for n in range(4)]
    assert [ref for ref, _ in records.usable(several, ("SR",), warnings.append)] == ["0"]
    assert len(warnings) == 1 and "and so are 2 more" in warnings[0]


# -- among others ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(change: Callable[[str, Any], Any]) -> Iterator[None]:
    """What hosts answer is what ``change`` makes of the method's name and its value."""
    asked: list[str] = []
    request, answer = wire.request, wire.answer

    def asks(speech: Any, number: int, method: str, params: list[Any]) -> Any:
        asked.append(method)
        return request(speech, number, method, params)

    def answers(speech: Any, number: int, data: bytes) -> Any:
        found = answer(speech, number, data)
        return found if found.refused else found._replace(value=change(asked[-1], copy.deepcopy(found.value)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "request", asks)
        patch.setattr(wire, "answer", answers)
        yield


def broken(label: str, **changes: Any) -> Callable[[str, Any], Any]:
    """The record of the disk with that label is changed; None as a change leaves the field out."""

    def change(method: str, value: Any) -> Any:
        several = value.values() if method == "VDI.get_all_records" else [value] if method == "VDI.get_record" else ()
        for one in several:
            if one["name_label"] == label:
                for field, new in changes.items():
                    one[field] = new
                    if new is None:
                        del one[field]
        return value

    return change


@pytest.fixture
def pool(engine: Engine, xapi: Any) -> Pool:
    made = started(engine, xapi)
    for name in ("bad", "good"):
        made.create_volume(volume_of(name))
    return made


def backend(pool: Pool) -> Any:
    """The backend itself: what it asks is asked in this process."""
    from poolkit.backends.xensm import XenBackend

    host = Host()
    host.on_secret = lambda *_: PASSWORD.encode()
    return XenBackend(pool.definition(), host)


@pytest.mark.parametrize(
    "changes", [{"virtual_size": None}, {"virtual_size": 1 << 64}, {"sm_config": "x"}, {"VBDs": [None]}, {"missing": 0}],
    ids=str,
)  # fmt: skip
def test_a_bad_record_is_listed_with_its_error_beside_the_others(pool: Pool, changes: dict[str, Any]) -> None:
    with answering(broken("bad", **changes)):
        found = {info.name: info for info in backend(pool).volumes({})}
        assert found["good"].capacity == 8 * MIB and found["good"].detail is None
        why = (found["bad"].detail or {})["error"]
        assert next(iter(changes)) in why and found["bad"].key is not None and found["bad"].key in why
        with pytest.raises(errors.HostError, match="the record of VDI") as caught:
            backend(pool).look("bad", None)
        assert caught.value.volume == "bad"


@pytest.mark.parametrize("field", ["SR", "uuid", "managed", "name_label", "other_config"])
def test_a_record_of_which_nobody_knows_what_it_is_is_told_of(pool: Pool, field: str) -> None:
    with answering(broken("bad", **{field: None})):
        there = backend(pool)
        assert [info.name for info in there.volumes({})] == ["good"]
        assert [text for text in there.host.warnings if f"lacks the field '{field}'" in text]
        with pytest.raises((errors.HostError, errors.Unsafe), match=f"lacks the field '{field}'|has 2 disks"):
            there.erase()


def test_an_old_host_that_tells_nothing_of_domains_runs_machines_all_the_same(pool: Pool, xapi: Any) -> None:
    xapi.control("machine", name="guest")

    def change(method: str, value: Any) -> Any:
        if method == "VM.get_record":
            del value["domain_type"]
        return value

    with answering(change):
        there = backend(pool)
        info = there.attach(there.look("good", None), vm="guest")
        assert info.detail["plugged"]


def test_references_that_point_to_nothing(pool: Pool, xapi: Any) -> None:
    xapi.control("machine", name="guest")
    there = backend(pool)
    there.attach(there.look("good", None), vm="guest")
    nothing = "OpaqueRef:00000000-0000-0000-0000-000000000000"

    def change(method: str, value: Any) -> Any:
        if method == "VBD.get_record":
            value["VM"] = nothing
        return value

    with answering(change), pytest.raises(errors.Busy, match=nothing):
        xapi.control("machine", name="other")
        there.attach(there.look("good", None), vm="other")


def test_a_task_whose_end_was_not_told_ends_all_the_same(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "NEWS", 0.2)
    there = backend(pool)

    def change(method: str, value: Any) -> Any:
        for one in value["events"] if method == "event.from" else ():
            one["snapshot"]["status"] = "pending"
        return value

    with answering(change):
        assert there.resize(there.look("good", None), 8 * MIB).capacity == 8 * MIB


# -- anything at all ------------------------------------------------------------------------------------------------------


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        yield from places(one, (*at, key))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return None if new is ... else new
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


VERBS: dict[str, Callable[[Any], object]] = {
    "list": lambda there: [*there.volumes({})],
    "look": lambda there: there.look("good", None),
    "state": lambda there: there.state(closely=True),
    "usage": lambda there: there.usage([]),
    "provisioned": lambda there: there.provisioned([]),
    "start": lambda there: there.start(),
    "placed": lambda there: there.placed("gold"),
    "placed of a name": lambda there: there.placed("gold", "good"),
    "resize": lambda there: there.resize(there.look("good", None), 8 * MIB),
    "attach": lambda there: there.attach(there.look("good", None), vm="guest"),
    "erase": lambda there: there.erase(),
    "changes": lambda there: there.changes(),
    "take back": lambda there: there.take_back("new", "none", "0000"),
}
WHOLE = ("event.from", "session.logout")  # an event that is lost is waited for: only what is in one is changed


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    verb=st.sampled_from(sorted(VERBS)),
    which=st.integers(0, 20),
    new=st.sampled_from([..., *ODD]),
    pick=st.integers(0, 9999),
)
def test_whatever_a_host_answers_is_an_error_of_poolkit(
    fuzzed: Pool, verb: str, which: int, new: Any, pick: int
) -> None:
    count = 0

    def change(method: str, value: Any) -> Any:
        nonlocal count
        count += 1
        if count != which + 1:
            return value
        found = [at for at in places(value) if method not in WHOLE or "snapshot" in at]
        return put(value, found[pick % len(found)], new) if found else value

    with pytest.MonkeyPatch.context() as patch, answering(change), contextlib.suppress(errors.PoolkitError):
        patch.setattr(client, "NEWS", 0.2)  # an end that is not told shows after it
        VERBS[verb](backend(fuzzed))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, xapi_server: Any) -> Iterator[Pool]:
    """A pool with two disks and a machine, for as many answers as there are."""
    from . import prepare

    xapi_server.control("reset")
    with Engine(tmp_path_factory.mktemp("fuzzed")) as engine:
        prepare(engine, xapi_server)
        pool = started(engine, xapi_server)
        for name in ("bad", "good"):
            pool.create_volume(volume_of(name))
        xapi_server.control("machine", name="guest")
        yield pool
    xapi_server.control("reset")


@settings(max_examples=300)
@given(data=st.data())
def test_whatever_a_record_has_can_be_used_or_is_named(data: Any) -> None:
    cls = data.draw(st.sampled_from(sorted(records._SHAPES)))
    fields = list(records._SHAPES[cls].kinds)
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
    raw = data.draw(st.dictionaries(st.sampled_from(fields), anything) | anything)
    record = records.checked(cls, raw, "ref", "p", "xen1")
    for field, kind in records._SHAPES[cls].kinds.items():
        with contextlib.suppress(records.Unusable):
            value = record[field]
            assert type(value) is records._TYPES[kind]
            assert kind not in ("set", "map") or not [one for one in tuple(value) if not isinstance(one, str)]


# -- claims ---------------------------------------------------------------------------------------------------------------


def test_of_two_that_wait_for_the_claim_of_the_dead_one_gets_it_at_a_time(
    pool: Pool, xapi: Any, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "STALE", 0.5)
    (sr,) = api.refs("SR.get_all")
    api.call("SR.add_to_other_config", sr, disks._claim("disk") + "-dead", "dead")
    both, entered, inside, most, done = threading.Barrier(2), threading.Event(), [0], [0], []

    def work(token: str) -> None:
        with calls(xapi) as own:
            call, first = own.call, [True]

            def together(method: str, *params: Any) -> Any:
                if method == "SR.remove_from_other_config" and params[1].endswith("dead") and first.pop():
                    first.append(False)
                    both.wait(60)  # both have seen that it is dead before either removes it
                    disks.STALE = 60  # longer than either has it
                    if token == "two":
                        entered.wait(60)  # and one does so late, when the other has the claim
                return call(method, *params)

            own.call = together  # type: ignore[method-assign]
            there = Disks(own, Repository(sr, own.record("SR", sr)), "p", lambda *_: None)  # type: ignore[arg-type, return-value]
            with there._claimed("disk", "disk", token):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                entered.set()
                threading.Event().wait(0.6)
                inside[0] -= 1
            done.append(token)

    threads = [threading.Thread(target=work, args=(token,)) for token in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["one", "two"] and most == [1]
    assert not [key for key in api.record("SR", sr)["other_config"] if key.startswith(disks.CLAIM)]


def test_a_claim_that_is_made_again_is_another_one(
    pool: Pool, xapi: Any, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks seldom sees a claim each time, of one who lives and claims in turn with others."""
    monkeypatch.setattr(disks, "STALE", 0)  # what is seen twice is dead
    (sr,) = api.refs("SR.get_all")
    repository = Repository(sr, api.record("SR", sr))
    with calls(xapi) as own:
        living = Disks(api, repository, "p", lambda *_: None)  # type: ignore[arg-type, return-value]
        held = [living._claim("disk", "living", "disk")]
        call, looks = own.call, iter(("", "claims again", "is done"))

        def slow(method: str, *params: Any) -> Any:
            if method == "SR.get_other_config" and (other := next(looks, "")):
                living._release(held.pop())
                held.extend([living._claim("disk", "living", "disk")] if other == "claims again" else [])
            return call(method, *params)

        own.call = slow  # type: ignore[method-assign]
        late = Disks(own, repository, "p", lambda *_: None)  # type: ignore[arg-type, return-value]
        with late._claimed("disk", "disk", "late"):
            assert held == []
        assert own.host.warnings == []


def test_marks_of_a_broken_disk_are_refused_where_its_label_is_asked_for(pool: Pool) -> None:
    there = backend(pool)
    there.mark = Mark("gold", "word")
    with answering(broken("bad", other_config=None)):
        assert there.placed("gold") == []
        with pytest.raises(errors.HostError, match="lacks the field 'other_config'"):
            there.placed("gold", "bad")


def test_a_disk_that_is_still_read_is_read_when_that_has_ended(pool: Pool) -> None:
    """A reading that was broken off keeps the disk busy until the host has noticed."""
    data = os.urandom(32 * MIB)  # more than lies in the buffers of a connection
    disk = pool.create_volume(volume_of("disk", len(data)))
    disk.upload(BytesIO(data))
    there = backend(pool)
    read, again = BytesIO(), threading.Event()
    with there.disks("read the disk", "disk") as found:
        with found.moving(disk.key, "disk").coming(whole=False):
            other = threading.Thread(target=lambda: (disk.download(read), again.set()))
            other.start()
            assert not again.wait(1), "it is read by another still"
        other.join()
    assert again.is_set() and read.getvalue() == data
