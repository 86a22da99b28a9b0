"""What a program gives and no document can hold is refused: whatever is written can be read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backend import check_volume_name
from poolkit.backends.dir import DirPool
from poolkit.backends.netfs import NetfsPool, NetfsSource
from poolkit.documents import Secret
from poolkit.engine import Engine
from poolkit.model import Permissions, PlainSource, PoolTarget, SourceHost, Volume, VolumeTarget
from poolkit.state.store import check_pool_name

# U+FFFE, U+FFFF and lone surrogates are outside of XML; so are most controls, and no name or path takes the rest.
BAD = ("\ufffe", "\uffff", "\ud800", "\udcff", "\x00", "\x01", "\x1b", "\x7f", "\x85", "\x9f")
BLANKS = ("\t", "\n", "\r")
FINE = ("\u2028", "\ufffd", "\U0001fffe", "\ue000", "é")
show = ascii

PLACES: dict[str, Callable[[str], Any]] = {
    "/pool/name": lambda text: DirPool(name=f"p{text}", target=PoolTarget(path="/p")),
    "/pool/target/path": lambda text: DirPool(name="p", target=PoolTarget(path=f"/p{text}")),
    "/pool/target/permissions/label": lambda text: DirPool(
        name="p", target=PoolTarget(path="/p", permissions=Permissions(label=f"l{text}"))
    ),
    "/pool/source/vendor/@name": lambda text: DirPool(
        name="p", target=PoolTarget(path="/p"), source=PlainSource(vendor=f"v{text}")
    ),
    "/pool/source/host/@name": lambda text: NetfsPool(
        name="p", target=PoolTarget(path="/p"), source=NetfsSource(dir="/d", hosts=(SourceHost(name=f"h{text}"),))
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", [*BAD, *BLANKS], ids=show)
@pytest.mark.parametrize("place", PLACES)
def test_a_definition_is_refused(engine: Engine, place: str, text: str) -> None:
    for verb in (engine.parse, engine.define, engine.create):
        with pytest.raises(errors.InvalidArgument) as caught:
            verb(PLACES[place](text))
        assert caught.value.message.startswith(f"{place}: '") and caught.value.message.isprintable()
    assert engine.pools() == []


@pytest.mark.parametrize("text", FINE, ids=show)
@pytest.mark.parametrize("place", [place for place in PLACES if "host" not in place])  # netfs is stricter with those
def test_all_else_is_written_and_read_again(engine: Engine, place: str, text: str) -> None:
    pool = engine.define(PLACES[place](text))
    with Engine(engine.locations.storage.removesuffix("/storage")) as other:
        assert other.pool(pool.name).definition() == pool.definition()
        assert other.parse(other.pool(pool.name).xml()) == pool.definition()


@pytest.mark.parametrize("text", BAD, ids=show)
def test_secrets_and_metadata(engine: Engine, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^/secret/description: "):
        engine.define_secret(Secret(description=f"d{text}"))
    pool = DirPool(name="p", target=PoolTarget(path="/p"), metadata=(f"<metadata>{text}</metadata>",))
    with pytest.raises(errors.InvalidArgument, match=r"^/pool/metadata: "):
        engine.define(pool)
    engine.define_secret(Secret(description="two\nlines\tand a tab"))
    assert [one.definition.description for one in engine.secrets()] == ["two\nlines\tand a tab"]


@pytest.mark.parametrize("text", [*BAD, *BLANKS], ids=show)
def test_names_given_to_calls(engine: Engine, tmp_path: Path, text: str) -> None:
    for check in (check_pool_name, check_volume_name):
        with pytest.raises(errors.InvalidArgument):
            check(f"n{text}")
    os.mkdir(tmp_path / "files")
    pool = engine.define(DirPool(name="p", target=PoolTarget(path=str(tmp_path / "files"))))
    pool.start()
    model = pool.create_volume(Volume(name="model", capacity=0))
    for call in (
        lambda: pool.create_volume(Volume(name=f"v{text}", capacity=0)),
        lambda: pool.create_volume(Volume(name="v", capacity=0, target=VolumeTarget(path=f"/v{text}"))),
        lambda: model.clone(f"v{text}"),
    ):
        with pytest.raises(errors.InvalidArgument):
            call()
    assert sorted(os.listdir(tmp_path / "files")) == ["model"]


@pytest.mark.parametrize("text", [*FINE, "\ufffe", "\uffff", "\x01", "\x7f", "\x85", "\n"], ids=show)
def test_a_file_that_is_there_is_listed_only_if_its_document_can_be_read(
    engine: Engine, tmp_path: Path, text: str
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / f"v{text}").write_bytes(bytes(512))
    pool = engine.define(DirPool(name="p", target=PoolTarget(path=str(tmp_path / "files"))))
    pool.start()
    assert [volume.name for volume in pool.volumes()] == ([f"v{text}"] if text in FINE else [])
    for volume in pool.volumes():
        assert pool.parse_volume(volume.xml()).name == volume.name
