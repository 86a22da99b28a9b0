"""The mode and owner of a volume that is there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from poolkit import Engine, errors
from poolkit.engine.pool import Pool
from tests.backends.deaths import killed_at


@pytest.fixture
def pool(engine: Engine, tmp_path: Path) -> Pool:
    made = engine.define(f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>")
    made.build()
    made.start()
    made.create_volume("<volume><name>v</name><capacity>5</capacity></volume>")
    return made


def mode(pool: Pool) -> int:
    return stat.S_IMODE(os.stat(pool.volume("v").path).st_mode)


def test_a_mode_is_set_and_listed_and_set_again_in_vain(pool: Pool) -> None:
    assert pool.volume("v").permit(mode=0o640).changed
    assert (mode(pool), pool.volume("v").info.mode) == (0o640, 0o640)
    assert not pool.volume("v").permit(mode=0o640, owner=os.getuid(), group=None).changed
    pool.refresh()
    assert pool.volume("v").info.mode == 0o640
    with pytest.raises(errors.InvalidArgument):
        pool.volume("v").permit(mode=0o10000)


@pytest.mark.root
def test_an_owner_does_not_take_the_mode_away(pool: Pool) -> None:
    volume = pool.volume("v")
    assert volume.permit(mode=0o4755, owner=12345, group=54321).changed
    facts = os.stat(volume.path)
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (12345, 54321, 0o4755)
    assert (volume.info.owner, volume.info.group) == (12345, 54321)


def test_a_file_with_several_names_is_changed_by_force_alone(pool: Pool, tmp_path: Path) -> None:
    os.link(pool.volume("v").path, tmp_path / "another")
    with pytest.raises(errors.Unsafe, match="2 names"):
        pool.volume("v").permit(mode=0o666)
    assert mode(pool) == 0o600
    assert pool.volume("v").permit(mode=0o666, force=True).changed
    assert mode(pool) == 0o666


def test_a_dry_run_says_what_it_would_do(pool: Pool, engine: Engine) -> None:
    with Engine(engine.locations.state.rpartition("/")[0], dry_run=True) as dry:
        outcome = dry.pool("p").volume("v").permit(mode=0o640)
    assert outcome.plan == (f"give {pool.volume('v').path} the permissions mode 0640",)
    assert mode(pool) == 0o600


def test_a_death_in_between_gives_the_old_permissions_back(pool: Pool, engine: Engine, tmp_path: Path) -> None:
    engine.close()
    root = tmp_path / "root"
    step = 1
    while killed_at(root, step, lambda engine: engine.pool("p").volume("v").permit(mode=0o640)):
        with Engine(root) as again:
            again.pool("p").refresh()
            now = mode(again.pool("p"))
            assert now == again.pool("p").volume("v").info.mode
            again.pool("p").volume("v").permit(mode=0o600)
        step += 1
    assert step > 3
    with Engine(root) as again:
        assert mode(again.pool("p")) == 0o640
