"""The contract on toys that break it: not collected with the other tests, but run by test_contract.py, which wants it to fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit.testing import BackendContract

from .careless import CarelessBackend, GenerousBackend, GreedyBackend, MuteBackend, WillingBackend
from .forgetful import ForgetfulBackend
from .installed import installed
from .lun import SIZE, BadLunBackend, IdleLunBackend
from .marking import BAD


class OnArray(BackendContract):
    type = ""

    @pytest.fixture(autouse=True)
    def toys(self) -> Iterator[None]:
        yield from installed(
            BadLunBackend, IdleLunBackend, CarelessBackend, GenerousBackend, GreedyBackend, MuteBackend, WillingBackend, *BAD
        )  # fmt: skip

    @pytest.fixture
    def pool_xml(self, tmp_path: Path) -> str:
        (tmp_path / "array").mkdir()
        for number in range(3):
            (tmp_path / "array" / f"lun-{number}").write_bytes(bytes(SIZE))
        return f"<pool type='{self.type}'><name>array</name><source><array path='{tmp_path}/array'/></source></pool>"


class TestForgetful(BackendContract):
    @pytest.fixture(autouse=True)
    def toys(self) -> Iterator[None]:
        yield from installed(ForgetfulBackend)

    @pytest.fixture
    def pool_xml(self, tmp_path: Path) -> str:
        return f"<pool type='forgetful'><name>p</name><target><path>{tmp_path}/files</path></target></pool>"


class TestBadLun(OnArray):
    type = "bad-lun"


class TestIdleLun(OnArray):
    type = "idle-lun"


class TestCareless(OnArray):
    type = "careless"


class TestGreedy(OnArray):
    type = "greedy"


class TestGenerous(OnArray):
    type = "generous"


class TestMute(OnArray):
    type = "mute"


class TestWilling(OnArray):
    type = "willing"


class TestPrivateMarks(OnArray):
    type = "private-marking"


class TestNamedMarks(OnArray):
    type = "named-marking"


class TestEveryMarks(OnArray):
    type = "every-marking"


class TestHastyMarks(OnArray):
    type = "hasty-marking"


class TestIdleMarks(OnArray):
    type = "idle-marking"


class TestLateMarks(OnArray):
    type = "late-marking"


class TestCopyingMarks(OnArray):
    type = "copying-marking"


class TestKeepingMarks(OnArray):
    type = "keeping-marking"
