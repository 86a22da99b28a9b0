"""Documents made to hurt: each gets a short error, soon and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from poolkit.errors import InvalidDefinition
from poolkit.xmlmap import read
from poolkit.xmlmap.source import root

from . import CLASSES

HEAD = "<pool type='dir'><name>a</name><target><path>/a</path></target>"
LAUGHS = "<!DOCTYPE l [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY a{n} '&a{n - 1 if n else ''};&a{n - 1 if n else ''};'>" for n in range(1, 30)
)

HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "doctype": ("<!DOCTYPE pool><pool type='dir'/>", "<string>:1:1: a DOCTYPE is not allowed; remove it"),
    "doctype of a web page": ("<!DOCTYPE html PUBLIC 'a' 'http://127.0.0.1:9/x'><html/>", "a DOCTYPE is not allowed"),
    "billion laughs": (LAUGHS + "]><pool>&a29;</pool>", "a DOCTYPE is not allowed"),
    "quadratic": (f"<!DOCTYPE l [<!ENTITY a '{'x' * 100_000}'>]><l>{'&a;' * 20_000}</l>", "a DOCTYPE is not allowed"),
    "external entity": ("<!DOCTYPE l [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><l>&a;</l>", "a DOCTYPE is not allowed"),
    "parameter entity": ("<!DOCTYPE l [<!ENTITY % a SYSTEM 'file:///etc/passwd'>%a;]><l/>", "a DOCTYPE is not allowed"),
    "undeclared entity": ("<volume><name>&passwd;</name></volume>", "not well-formed XML: undefined entity"),
    "depth of unknown": ("<a>" * 100_000, "is not a document"),
    "depth of kept": (HEAD + "<metadata>" + "<a>" * 100_000, "elements are nested more than 64 deep"),
    "elements": (HEAD + "<metadata>" + "<a/>" * 100_000, "more than 10000 elements"),
    "attributes": ("<volume " + " ".join(f"a{n}='1'" for n in range(80_000)) + "/>", "more than 64 attributes"),
    "a million attributes": ("<volume " + " ".join(f"a{n}='1'" for n in range(1_000_000)) + "/>", "more than 1048576 bytes"),
    "long attribute": (f"<volume a='{'x' * 1_000_000}'/>", "an attribute is longer than 65536 characters"),
    "long text": (f"<volume><name>{'x' * 1_000_000}</name></volume>", "a text is longer than 65536 characters"),
    "long kept text": (HEAD + f"<metadata>{'x' * 1_000_000}</metadata></pool>", "a text is longer than 65536 characters"),
    "100 MB": (b"<pool>" + b" " * 100_000_000, "the document has more than 1048576 bytes"),
    "blank lines": (HEAD + "\n" * 700_000 + "</pool>", "more than 100000 lines"),
    "blanks": (HEAD + " " * 700_000 + "</pool>", "a text is longer than 65536 characters"),
    "long name": (f"<{'a' * 1_000_000}/>", "is not a document for this place"),
    "long prefix": (f"<{'a' * 500_000}:{'b' * 500_000}/>", "is not declared"),
    "nul": ("<volume><name>a\x00b</name></volume>", "a NUL character"),
    "escape": ("<volume><name>a\x1b[31m</name></volume>", "not well-formed"),
    "escaped escape": ("<volume><name>a&#x1b;[31m</name></volume>", "reference to invalid character number"),
    "c1 control": ("<volume><name>a\x9b31m</name></volume>", r"'a\x9b31m' is not a file name"),
    "surrogate": ("<volume><name>a\ud800</name></volume>", "character 16 is half of a surrogate pair"),
    "encoded surrogate": (b"<volume><name>a\xed\xa0\x80</name></volume>", "<string>:1:16: is not UTF-8 from here on"),
    "overlong": (b"<volume><name>..\xc0\xaf</name></volume>", "is not UTF-8 from here on"),
    "latin 1": (b"<?xml version='1.0' encoding='ISO-8859-1'?><volume/>", "the encoding 'ISO-8859-1' is not supported"),
    "utf-7": (b"<?xml version='1.0' encoding='UTF-7'?><volume/>", "the encoding 'UTF-7' is not supported"),
    "utf-16": ("<volume/>".encode("utf-16"), "is not UTF-8 from here on"),
    "utf-16 without mark": ("<volume/>".encode("utf-16-le"), "is not UTF-8 from here on (a NUL character)"),
    "xml 1.1": ("<?xml version='1.1'?><volume><name>a&#1;</name></volume>", "not well-formed"),
    "processing": ("<?xml-stylesheet href='file:///etc/passwd'?><volume/>", "/volume/name: is missing"),
    "inclusion": ("<volume xmlns:xi='http://www.w3.org/2001/XInclude'><name>a</name><target><xi:include href='/etc/passwd'/>"
                  "</target></volume>", "/volume/target/xi:include: unknown element"),
    "redefined xml": ("<volume xmlns:xml='urn:x'><name>a</name></volume>", "the prefix 'xml' cannot mean 'urn:x'"),
    "twice the attribute": ("<volume type='file' type='dir'/>", "duplicate attribute"),
    "slow pattern": (f"<pool type='dir'><name>{' ' * 60_000}/</name></pool>", "is not a name"),
    "slow uuid": (f"<pool type='dir'><uuid>{'- ' * 30_000}</uuid></pool>", "is not a UUID"),
    "huge number": (f"<volume><name>a</name><capacity>{'9' * 60_000}</capacity></volume>", "is not a size"),
    "many problems": ("<volume>" + "<bogus a='1'/>" * 9_000 + "</volume>", "too many problems"),
    "many columns": ("<volume>" + "<bogus/>" * 39 + "é" * 60_000 + "</volume>", "unknown element"),
    "many prefixes": (HEAD + "<metadata>" + "".join(f"<p{n}:a xmlns:p{n}='urn:{n}'>" for n in range(50)), "not well-formed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_short_error(name: str) -> None:
    data, expected = HOSTILE[name]
    with pytest.raises(InvalidDefinition) as caught:
        read(data, CLASSES)
    lines = [str(problem) for problem in caught.value.problems]
    assert any(expected in line for line in lines), lines[:3]
    assert len(lines) <= 41
    assert all(len(line) < 500 and line.isprintable() for line in lines)
    assert "root:" not in str(caught.value)


MEASURE = """
import json, resource, sys, time
from poolkit.errors import InvalidDefinition
from poolkit.xmlmap import read
from poolkit.xmlmap.source import root
from tests.xml import CLASSES
from tests.xml.test_hostile import HOSTILE
try:
    read("<pool type='no'/>", CLASSES)
except InvalidDefinition:
    pass
facts = {}
for name, (data, _) in HOSTILE.items():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
    start = time.perf_counter()
    try:
        read(data, CLASSES)
    except InvalidDefinition as error:
        str(error)
    spent = time.perf_counter() - start
    after = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
    facts[name] = [spent, (after - before) / 1024]
print(json.dumps(facts))
"""


ROOTS: dict[str, tuple[bytes, str]] = {
    "after all that may come first": (
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- <pool> -->\n<?a b?> <volume x='<'/>",
        "volume",
    ),
    "of documents": (b"<documents><pool/></documents>", "documents"),
    "behind a doctype": (b"<!DOCTYPE a><pool/>", ""),
    "behind text": (b"x<pool/>", ""),
    "none behind blanks": (b" " * 60_000 + b"x", ""),
    "none behind comments": (b"<!---->" * 9_000 + b"x", ""),
    "none behind comments that do not end": (b"<!--" * 16_000, ""),
    "none behind instructions": (b"<?a?>" * 12_000 + b"x", ""),
    "none behind instructions that do not end": (b"<?" * 30_000, ""),
}


@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.timeout(20)
def test_the_root_is_found_soon(name: str) -> None:
    """Within one pass: where parts are tried in each way that there is, sixty blanks take years."""
    data, expected = ROOTS[name]
    found, at = root(data)
    assert found == expected
    assert not found or data[at:].startswith(b"<" + found.encode())


def test_memory() -> None:
    """Peak memory above what was in use before, in MiB, by the kernel's own high-water mark."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120)
    facts = json.loads(done.stdout)
    assert facts.keys() == HOSTILE.keys()
    assert {name: peak for name, (_, peak) in facts.items() if peak > 100} == {}
