"""What a user reads about a broken document: every problem, its place, what was expected, what was perhaps meant."""

from __future__ import annotations

import pytest

from poolkit import registry
from poolkit.errors import HostError, InvalidDefinition, Problem
from poolkit.xmlmap import Limits, read, read_file, write

from . import CLASSES

TYPES = ", ".join(sorted(registry.built_in()))
NETFS = """<pool type='netfs'>
  <name>a</name>
  <source>
    <host name='h'/>
    <dir path='/x'/>
    <format type='nsf'/>
  </source>
  <target><path>/x</path></target>
</pool>
"""


def problems(text: str | bytes, **more: object) -> list[str]:
    with pytest.raises(InvalidDefinition) as caught:
        read(text, CLASSES, filename="pool.xml", **more)
    return [str(problem) for problem in caught.value.problems]


def test_the_design_s_example() -> None:
    assert problems(NETFS) == [
        "pool.xml:6:13: /pool/source/format/@type: 'nsf' is not one of auto, nfs, glusterfs, cifs; did you mean 'nfs'?"
    ]


def test_all_problems_at_once_in_the_order_of_the_document() -> None:
    text = """<pool type='dir'>
  <nmae>a</nmae>
  <uuid>12</uuid>
  <target>
    <path>relative</path>
    <permissions><mode>0999</mode><owner>root</owner></permissions>
    <path>/again</path>
  </target>
  stray
  <features><cow state='ja'/></features>
  <target/>
</pool>
"""
    assert problems(text) == [
        "pool.xml:1:1: /pool/name: is missing; expected a name (no '/', no control characters)",
        "pool.xml:1:18: /pool: takes no text, found 'stray'",
        "pool.xml:2:3: /pool/nmae: unknown element; expected one of name, uuid, capacity, allocation, available, "
        "pk:wanted, features, source, target, pk:volumes, pk:mountpoint, pk:follow; did you mean 'name'?",
        "pool.xml:3:9: /pool/uuid: '12' is not a UUID (32 hexadecimal digits)",
        "pool.xml:5:11: /pool/target/path: 'relative' is not an absolute path (it starts with '/')",
        "pool.xml:6:24: /pool/target/permissions/mode: '0999' is not an octal mode from 0 to 0777",
        "pool.xml:6:42: /pool/target/permissions/owner: 'root' is not a numeric user or group id, or -1 for none",
        "pool.xml:7:5: /pool/target/path: is given twice; only the first counts",
        "pool.xml:10:18: /pool/features/cow/@state: 'ja' is not one of yes, no",
        "pool.xml:11:3: /pool/target: is given twice; only the first counts",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "pool.xml: the document is empty"),
        (" \n ", "pool.xml: the document is empty"),
        ("no xml", "pool.xml:1:1: not well-formed XML: syntax error"),
        ("<pool type='dir'><name>a</target>", "pool.xml:1:27: /pool/name: not well-formed XML: <name> of line 1 is not closed"),
        ("<pool type='dir'>\n<name>", "pool.xml:2:7: /pool/name: not well-formed XML: <name> of line 2 is not closed"),
        ("<pool/>", f"pool.xml:1:1: /pool/@type: is missing; expected one of {TYPES}"),
        ("<pool type='nfs'/>", f"pool.xml:1:7: /pool/@type: 'nfs' is not one of {TYPES}; did you mean 'netfs'?"),
        ("<Pool type='dir'/>", "pool.xml:1:1: /Pool: is not a document for this place; expected <flavor>, <pool>, "
                               "<poolCapabilities>, <secret>, <source>, <sources>, <storagepoolCapabilities>, <volume>; "
                               "did you mean 'pool'?"),
        ("<domain/>", "pool.xml:1:1: /domain: is not a document for this place; expected <flavor>, <pool>, "
                      "<poolCapabilities>, <secret>, <source>, <sources>, <storagepoolCapabilities>, <volume>"),
        ("<volume><name>a</name><capacity unit='GIB '>x</capacity></volume>",
         "pool.xml:1:45: /volume/capacity: 'x' is not a size: a whole number below 2^64"),
        ("<volume><name>a</name><capacity unit='Gb2'>1</capacity></volume>",
         "pool.xml:1:33: /volume/capacity/@unit: 'Gb2' is not a unit: bytes, KiB, MiB, GiB, TiB, PiB, EiB or "
         "KB, MB, GB, TB, PB, EB"),
        ("<volume><name>..</name></volume>", "pool.xml:1:15: /volume/name: '..' is not a file name (no '/', no control "
                                             "characters, not '.' or '..')"),
        ("<volume><name/></volume>", "pool.xml:1:16: /volume/name: is empty; expected a file name (no '/', no control "
                                     "characters, not '.' or '..')"),
        ("<volume><name>a</name><target><format type='qcow'/><encryption format='luks'><secret type='passphrase' usage='a' "
         "uuid='00000000000000000000000000000001'/></encryption></target></volume>",
         "pool.xml:1:78: /volume/target/encryption/secret: needs either @uuid or @usage, not both"),
        ("<volume><name>a</name><target><nocow>yes</nocow></target></volume>",
         "pool.xml:1:38: /volume/target/nocow: takes no text, found 'yes'"),
        ("<volume><name>a</name><x:y/></volume>", "pool.xml:1:23: /volume/x:y: the prefix 'x' is not declared; "
                                                  "add xmlns:x='...'"),
        ("<pool type='dir'><name>a</name><target><path>/a</path><q:z xmlns:q='urn:q'/></target></pool>",
         "pool.xml:1:55: /pool/target/q:z: unknown element; one of another name space is kept only directly below the root"),
        ("<pool type='fs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>a</name><source><device path='/d'/>"
         "</source><target><path>/a</path></target><fs:mount_opt/></pool>",
         "pool.xml:1:156: /pool/fs:mount_opt: unknown element; one of another name space is kept only directly below the root; "
         "did you mean 'fs:mount_opts'?"),
        ("<secret ephemral='no'/>", "pool.xml:1:9: /secret/@ephemral: unknown attribute; expected one of ephemeral, private; "
                                    "did you mean 'ephemeral'?"),
        ("<pool type='netfs'><name>a</name><source><host name='h'/><host name='i' port='65536'/><dir path='/x'/></source>"
         "<target><path>/a</path></target></pool>",
         "pool.xml:1:73: /pool/source/host[2]/@port: '65536' is not a port from -1 to 65535"),
        ("<volume><name>a</name></volume><volume/>", "pool.xml:1:32: not well-formed XML: junk after document element"),
    ],
)  # fmt: skip
def test_exact_messages(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_columns_count_characters_and_lines_count_from_one() -> None:
    assert problems("\ufeff<volume><name>é</name><tärget/></volume>") == [
        "pool.xml:1:23: /volume/tärget: unknown element; expected one of name, key, source, capacity, allocation, physical, "
        "target, backingStore, pkv:rbd, pkv:layout, pkv:wanted, pkv:content; did you mean 'target'?"
    ]


def test_lenient_reading_warns_and_keeps_the_rest() -> None:
    warnings: list[Problem] = []
    text = "<volume bogus='1'>text<name>a</name><nothing><deep/></nothing><name>b</name></volume>"
    value = read(text, CLASSES, strict=False, warn=warnings.append)
    assert value.name == "a"
    assert [problem.path for problem in warnings] == ["/volume/@bogus", "/volume/nothing", "/volume/name", "/volume"]
    assert read(text, CLASSES, strict=False) == value
    with pytest.raises(InvalidDefinition):
        read("<volume><name>a/b</name></volume>", CLASSES, strict=False)


def test_an_error_shows_no_control_character_and_is_short() -> None:
    (message,) = problems(
        "<volume><name>a</name><target><path>/a</path><compat>\x9b31m\u202e"
        + "x" * 5000
        + "</compat></target></volume>"
    )
    assert message.isprintable()
    assert len(message) < 250
    assert r"\x9b31m\u202exxx" in message


def test_a_hopeless_document_is_not_listed_to_the_end() -> None:
    found = problems("<volume>" + "<bogus/>" * 5000 + "</volume>")
    assert len(found) == 41
    assert any("too many problems" in line for line in found)


def test_metadata_and_foreign_elements_are_kept_as_they_are() -> None:
    text = (
        "<pool type='dir' xmlns:q='urn:q'><name>a</name><target><path>/a</path></target>"
        '<q:a  x="1">\r\n  <!-- kept --><q:b/>&lt;<![CDATA[<raw>]]></q:a ><metadata><k xmlns="urn:k"/></metadata><q:c/></pool>'
    )
    value = read(text, CLASSES)
    assert value.metadata == (
        "<q:a xmlns:q='urn:q'  x=\"1\">\n  <!-- kept --><q:b/>&lt;<![CDATA[<raw>]]></q:a >",
        '<metadata><k xmlns="urn:k"/></metadata>',
        "<q:c xmlns:q='urn:q'/>",
    )
    assert read(write(value), CLASSES) == value


def test_files(tmp_path: object) -> None:
    missing = f"{tmp_path}/missing.xml"
    with pytest.raises(HostError, match=r"cannot read '.*missing\.xml': No such file"):
        read_file(missing, CLASSES)
    path = f"{tmp_path}/broken.xml"
    with open(path, "wb") as file:
        file.write(b"<volume>\n<name>\xff</name></volume>")
    with pytest.raises(InvalidDefinition, match=r"broken\.xml:2:7: is not UTF-8 from here on"):
        read_file(path, CLASSES)


def test_limits_can_be_raised_but_not_without_end() -> None:
    text = f"<volume><name>a</name><!--{'x' * (1 << 20)}--></volume>"
    assert problems(text) == ["pool.xml: the document has more than 1048576 bytes"]
    assert read(text, CLASSES, limits=Limits(size=1 << 24)).name == "a"
    assert "more than 16777216 bytes" in problems("x" * (1 << 25), limits=Limits(size=1 << 30))[0]


def test_a_name_space_that_is_nearly_ours_is_no_foreign_one() -> None:
    text = (
        "<pool type='dir' xmlns:pk='urn:poolkit:{}'><name>a</name><target><path>/a</path></target>"
        "<pk:wanted state='active'/></pool>"
    )
    for wrong in ("pol:1", "pool:2", "volume:1"):
        with pytest.raises(InvalidDefinition) as caught:
            read(text.format(wrong), CLASSES)
        assert f"unknown name space 'urn:poolkit:{wrong}'; did you mean 'urn:poolkit:pool:1'?" in str(caught.value)
    kept = read(text.format("pool:1").replace("urn:poolkit:pool:1", "urn:other:pool:1"), CLASSES)
    assert len(kept.metadata) == 1, "what others keep there stays"
