"""What a call takes as a document: text, a path or a definition; anything else is an error of ours that says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import errors
from poolkit.backends.dir import DirPool
from poolkit.documents import FoundSource, IscsiUsage, Secret
from poolkit.engine import Engine
from poolkit.model import Pool, PoolTarget, Volume, VolumeTarget

UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "files").mkdir()
    return str(tmp_path / "files")


@pytest.fixture
def calls(engine: Engine, place: str) -> dict[str, tuple[Callable[[Any], Any], str, Any]]:
    """Every call that takes a document: the call, a document, and the definition that it says."""
    pool = engine.define(DirPool(name="store", target=PoolTarget(path=place)))
    pool.start()
    model = pool.create_volume("<volume><name>model</name><capacity>0</capacity></volume>")
    other = place + "-other"
    os.mkdir(other)
    pool_text = f"<pool type='dir'><name>p</name><uuid>{UUID}</uuid><target><path>{other}</path></target></pool>"
    definition = DirPool(name="p", uuid=UUID, target=PoolTarget(path=other))
    volume_text = "<volume><name>v</name><capacity>4096</capacity><target><format type='raw'/></target></volume>"
    volume = Volume(name="v", capacity=4096, target=VolumeTarget(format="raw"))
    secret_text = f"<secret><uuid>{UUID}</uuid><usage type='iscsi'><target>t</target></usage></secret>"
    return {
        "parse": (engine.parse, pool_text, definition),
        "define": (lambda it: engine.define(it).definition(), pool_text, definition),
        "create": (lambda it: engine.create(it).uuid, pool_text, definition),
        "define_secret": (
            lambda it: engine.define_secret(it).definition,
            secret_text,
            Secret(uuid=UUID, usage=IscsiUsage(id="t")),
        ),
        "parse_volume": (pool.parse_volume, volume_text, volume),
        "create_volume": (lambda it: pool.create_volume(it).name, volume_text, volume),
        "create_volume_from": (lambda it: pool.create_volume_from(it, model).name, volume_text, volume),
        "clone": (lambda it: model.clone(it).name, volume_text, volume),
        "discover": (lambda it: engine.discover("logical", it), "<source/>", FoundSource()),
    }


CALLS = (
    "parse", "define", "create", "define_secret", "parse_volume", "create_volume", "create_volume_from", "clone",
)  # fmt: skip


class Place:
    """A path of another kind than pathlib's."""

    def __init__(self, path: str | bytes) -> None:
        self.path = path

    def __fspath__(self) -> str | bytes:
        return self.path


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("form", ["str", "bytes", "Path", "PathLike", "PathLike of bytes", "definition"])
def test_every_form_is_taken(calls: dict[str, Any], tmp_path: Path, name: str, form: str) -> None:
    call, text, definition = calls[name]
    file = tmp_path / "document.xml"
    file.write_text(text)
    given = {
        "str": text, "bytes": text.encode(), "Path": file, "PathLike": Place(str(file)),
        "PathLike of bytes": Place(os.fsencode(file)), "definition": definition,
    }[form]  # fmt: skip
    assert call(given) in (definition, "v", UUID)


@pytest.mark.parametrize("name", [*CALLS, "discover"])
@pytest.mark.parametrize(
    "wrong",
    [3, 2.5, True, {}, {"name": "p"}, [], ["<pool/>"], (), object(), bytearray(b"<pool/>"), memoryview(b"<pool/>"),
     PoolTarget(path="/p"), Pool(name="p"), DirPool, Volume],
    ids=lambda it: type(it).__name__,
)  # fmt: skip
def test_anything_else_is_an_error_of_ours(calls: dict[str, Any], name: str, wrong: Any) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        calls[name][0](wrong)
    assert caught.value.message.startswith(f"an object of type {type(wrong).__name__} is not a <")
    assert "pathlib.Path" in str(caught.value.hint)


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_no_document(calls: dict[str, Any], name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^None is not a <"):
        calls[name][0](None)


@pytest.mark.parametrize("name", [*CALLS, "discover"])
def test_a_definition_of_another_kind_is_refused(calls: dict[str, Any], name: str) -> None:
    for other in (calls["define"][2], calls["create_volume"][2], calls["define_secret"][2], FoundSource()):
        if type(other) is not type(calls[name][2]):
            with pytest.raises(errors.InvalidArgument, match=f"type {type(other).__name__} is not a <"):
                calls[name][0](other)


@pytest.mark.parametrize("name", [*CALLS, "discover"])
def test_a_path_is_the_file_name_of_its_errors(calls: dict[str, Any], tmp_path: Path, name: str) -> None:
    call, _, definition = calls[name]
    file = tmp_path / "wrong.xml"
    kind = " type='dir'" if definition.tag == "pool" else ""
    file.write_text(f"<{definition.tag}{kind}>\n  <odd/>\n</{definition.tag}>\n")
    with pytest.raises(errors.InvalidDefinition) as caught:
        call(file)
    places = {(problem.source, problem.line, problem.column) for problem in caught.value.problems}
    assert (str(file), 2, 3) in places
    assert {source for source, _, _ in places} == {str(file)}


@pytest.mark.parametrize("name", CALLS)
def test_a_path_that_cannot_be_read_says_so(calls: dict[str, Any], tmp_path: Path, name: str) -> None:
    call = calls[name][0]
    with pytest.raises(errors.HostError, match=r"absent\.xml': No such file"):
        call(tmp_path / "absent.xml")
    with pytest.raises(errors.HostError, match="Is a directory"):
        call(tmp_path)
    with pytest.raises(errors.InvalidArgument, match="cannot be the path of a document"):
        call(Place("/tmp/a\0b"))
    (tmp_path / "large.xml").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(errors.InvalidDefinition, match="more than 1048576 bytes"):
        call(tmp_path / "large.xml")


def test_a_path_as_text_is_told_how_to_give_one(engine: Engine) -> None:
    with pytest.raises(errors.InvalidDefinition) as caught:
        engine.define("/etc/pools/p.xml")
    assert caught.value.hint == "text is read as a document; give the path of one as pathlib.Path"
