"""In which order entries come: what each waits for, pools side by side, failures, and circles."""

from __future__ import annotations

from poolkit.engine.plan.entries import Entry
from poolkit.engine.plan.schedule import Schedule


def volume(pool: str, name: str, *after: str, steps: tuple[str, ...] = ("vol-create",)) -> Entry:
    return Entry("add", "volume", name, pool, steps=steps, after=after)


def taken(schedule: Schedule) -> list[str]:
    """All that may begin now."""
    return [entry.ident for entry in iter(schedule.take, None)]


def test_one_at_a_time_in_each_pool_and_pools_side_by_side() -> None:
    entries = [volume("a", "x"), volume("a", "y"), volume("b", "x")]
    schedule = Schedule(entries, lambda entry: True)
    assert taken(schedule) == ["volume a/x", "volume b/x"]
    schedule.end(entries[0], failed=False)
    assert taken(schedule) == ["volume a/y"]
    schedule.end(entries[1], failed=False)
    assert schedule
    schedule.end(entries[2], failed=False)
    assert not schedule


def test_what_waits_for_an_entry_without_work_waits_for_those_before_it() -> None:
    pool = Entry("change", "pool", "a", steps=("start",))
    entries = [pool, volume("a", "x", "pool a", steps=()), volume("b", "y", "volume a/x")]
    schedule = Schedule(entries, lambda entry: bool(entry.steps))
    assert taken(schedule) == ["pool a"]
    assert not schedule.ended
    schedule.end(pool, failed=False)
    assert [ended.entry.ident for ended in schedule.ended] == ["volume a/x"]
    assert taken(schedule) == ["volume b/y"]


def test_what_stands_on_a_failure_ends_with_it_however_far_above() -> None:
    pool = Entry("change", "pool", "a", steps=("start",))
    entries = [
        pool, volume("a", "x", "pool a", steps=()), volume("b", "y", "volume a/x"), volume("b", "z", "volume b/y"),
        volume("c", "free"),
    ]  # fmt: skip
    schedule = Schedule(entries, lambda entry: bool(entry.steps))
    assert taken(schedule) == ["pool a", "volume c/free"]
    schedule.end(pool, failed=True)
    assert [(e.entry.ident, e.lost and e.lost.ident) for e in schedule.ended] == [
        ("volume a/x", None), ("volume b/y", "pool a"), ("volume b/z", "pool a"),
    ]  # fmt: skip
    assert [entry.ident for entry in schedule.left()] == []
    assert schedule


def test_a_circle_begins_somewhere() -> None:
    entries = [volume("a", "x", "volume b/y"), volume("b", "y", "volume a/x")]
    schedule = Schedule(entries, lambda entry: True)
    assert taken(schedule) == ["volume a/x"]
    schedule.end(entries[0], failed=False)
    assert taken(schedule) == ["volume b/y"]


def test_each_entry_is_looked_at_a_few_times_however_many_there_are() -> None:
    entries = [Entry("add", "pool", "a", steps=("define",))]
    entries += [volume("a", str(number), "pool a") for number in range(2000)]
    asked = 0

    def work(entry: Entry) -> bool:
        nonlocal asked
        asked += 1
        return True

    schedule = Schedule(entries, work)
    order = []
    while (entry := schedule.take()) is not None:
        order.append(entry.ident)
        schedule.end(entry, failed=False)
    assert order == [entry.ident for entry in entries]
    assert asked == len(entries)
