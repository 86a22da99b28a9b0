"""Byte for byte what libvirt prints, asked of libvirt itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from poolkit.model import Volume
from poolkit.schemas import pool_classes
from poolkit.xmlmap import InvalidDefinition, read, read_file, replace, write
from poolkit.xmlmap.strategies import documents

from . import EXAMPLES, HERE, sample, virsh

pytestmark = pytest.mark.tools("virsh")

LIBVIRT_POOLS: list[Any] = [cls for cls in pool_classes() if getattr(cls, "first", None) is not None]


def comparable(text: str) -> str:
    """A pool's document without what the test driver makes up or does not know.

    It fills in the figures, and a uuid where none was given. It registers no name spaces, so it drops mount_opts and
    config_opts; metadata and poolkit's own elements are foreign to it; free extents are what a disk reports and are
    not read from a document.
    """
    text = re.sub(r"  <(capacity|allocation|available|uuid)\b.*\n", "", text)
    text = re.sub(r" xmlns:(fs|rbd)='[^']*'", "", text)
    text = re.sub(r"\n  <(?:fs|rbd|pk|pkv):[^>]*/>", "", text)
    text = re.sub(r"(?s)\n  <((?:fs|rbd|pk):\w+).*?\n  </\1>", "", text)
    text = re.sub(r"      <freeExtent .*\n", "", text)
    text = re.sub(r"(<device [^>]*[^/>])>\n    </device>", r"\1/>", text)
    return text


def bare(value: object) -> object:
    """A pool without the parts that libvirt does not have."""
    changes: dict[str, object] = {"metadata": ()}
    if hasattr(value, "volume_defaults"):
        changes["volume_defaults"] = None
    return replace(value, **changes)


def test_pools_of_the_examples(tmp_path: Path) -> None:
    texts = {}
    for path in sorted([*EXAMPLES.glob("pool-*.xml"), *(HERE / "documents").glob("pool-*.xml")]):
        value = read_file(str(path), pool_classes())
        # libvirt refuses parentaddr without a type, which its documentation calls optional
        if value.first is not None and path.name != "pool-scsi-numbers.xml" and acceptable(value):
            texts[path] = (value, path.read_text())
    answers = virsh.pools([(value.name, text) for value, text in texts.values()], tmp_path)
    for (path, (value, _)), answer in zip(texts.items(), answers, strict=True):
        assert comparable(write(bare(value))) == comparable(answer), path


def acceptable(value: object) -> bool:
    """Leave out what libvirt is known to do otherwise, each for a reason.

    * Ids from 2^31 are printed as negative numbers, which libvirt itself cannot read again.
    * A parentaddr needs the type that its documentation calls optional.
    * It has no logins of SMB.
    """
    if getattr(getattr(getattr(value, "source", None), "auth", None), "type", None) == "smb":
        return False
    permissions = getattr(getattr(value, "target", None), "permissions", None)
    ids = (permissions.owner, permissions.group) if permissions else ()
    return all(one is None or one < 2**31 for one in ids)


def test_generated_pools(tmp_path: Path) -> None:
    values = []
    for index, tree in enumerate(sample(documents(LIBVIRT_POOLS), 120)):
        value: Any = replace(bare(read(str(tree), LIBVIRT_POOLS)), uuid=None)
        if not acceptable(value):
            continue
        # Names and uuids are made distinct, because all pools live in one process.
        value = replace(value, name=f"pool{index}")
        if getattr(value.source, "name", None) is not None:
            value = read(write(value), LIBVIRT_POOLS)
        values.append(value)
    answers = virsh.pools([(value.name, write(value)) for value in values], tmp_path)
    for value, answer in zip(values, answers, strict=True):
        assert comparable(write(value)) == comparable(answer)


def volume_text(value: Volume, kind: str) -> str:
    """What the test driver should print: its own key and path, the pool type's default format, no reported fields."""
    path = f"/dev/hostlogical/{value.name}" if kind == "logical" else f"/volumes/{kind}/{value.name}"
    format = value.target.format
    if kind == "dir":
        format = format or "raw"
    elif kind == "disk":
        format = format or "none"
    else:
        format = None
    encryption = value.target.encryption
    if encryption is not None and encryption.format != "luks":
        encryption = replace(encryption, cipher=None, ivgen=None)  # libvirt reads them for luks only
    target = replace(value.target, path=path, format=format, timestamps=None, nocow=False, encryption=encryption)
    backing = value.backing_store
    if backing is not None:
        backing = replace(backing, timestamps=None, format=(backing.format or "raw") if kind != "logical" else None)
    return write(
        replace(
            value,
            type=value.type or "file",
            key=path,
            physical=None,
            source=type(value.source)(),
            target=target,
            backing_store=backing,
            rbd=None,
            layout=None,  # poolkit's own
            wanted=None,
            content=None,
        )
    )


def test_volumes_of_the_examples(tmp_path: Path) -> None:
    asked = []
    for path in sorted(EXAMPLES.glob("volume-*.xml")):
        value = read_file(str(path), [Volume])
        kind = {"volume-partition": "disk", "volume-logical": "logical", "volume-striped": "logical"}.get(
            path.stem, "dir"
        )
        # The test driver has no pool of a type that knows the format "unknown".
        if path.stem not in ("volume-rbd", "volume-sheepdog"):
            asked.append((kind, value, path))
    answers = virsh.volumes([(kind, value.name, path.read_text()) for kind, value, path in asked], tmp_path)
    for (kind, value, path), answer in zip(asked, answers, strict=True):
        assert volume_text(value, kind) == answer, path


# What libvirt's directory pools take as a format of a new volume.
TAKEN = {
    "raw",
    "dir",
    "bochs",
    "cloop",
    "dmg",
    "iso",
    "vpc",
    "vdi",
    "fat",
    "vhd",
    "ploop",
    "cow",
    "qcow",
    "qcow2",
    "qed",
    "vmdk",
}


def test_generated_volumes(tmp_path: Path) -> None:
    values = []
    for index, tree in enumerate(sample(documents([Volume]), 120)):
        value = read(str(tree), [Volume])
        value = replace(
            value, name=f"vol{index}", capacity=min(value.capacity or 7, 2**28), rbd=None, wanted=None, content=None
        )
        if value.allocation is not None:
            value = replace(value, allocation=min(value.allocation, 2**28))  # the pool has 100 GiB
        target = value.target
        formats = {target.format, value.backing_store.format if value.backing_store else None} - {None}
        ids = [target.permissions.owner, target.permissions.group]
        if value.backing_store is not None:
            ids += [value.backing_store.permissions.owner, value.backing_store.permissions.group]
        # data_file, luks2 layers and luks-any came after libvirt 9.0
        later = "data_file" in target.feature_words or (target.encryption and target.encryption.format == "luks-any")
        if not formats <= TAKEN or later or any(one is not None and one >= 2**31 for one in ids):
            continue
        values.append(value)
    answers = virsh.volumes([("dir", value.name, write(value)) for value in values], tmp_path)
    for value, answer in zip(values, answers, strict=True):
        assert volume_text(value, "dir") == answer


# Documents that libvirt accepts and so must we; and what both print for them.
ODD = [
    "<pool type='dir'><name>a</name><uuid> 40D2E5B3-6DC24A9A 9E0D-2E6F4C0A7A11</uuid><target><path>/a</path></target></pool>",
    "<pool type='dir'><name>a</name><target><permissions><owner>-1</owner><mode> 0644</mode></permissions>"
    "<path>//a///b/</path></target></pool>",
    "<pool type='dir'><target><path>/</path><permissions/></target><source/><name>a b</name><features/></pool>",
    "<pool type='dir'><name>a</name><target><path>/a</path><permissions><label></label><mode/></permissions></target></pool>",
    "<pool type='netfs'><name>a</name><source><host name='h' port='0'/><dir path='rel//x/'/><format type='cifs'/></source>"
    "<target><path>/a</path></target></pool>",
    "<pool type='netfs'><name>a</name><source><format/><protocol/><host name='h' port='-1'/><dir path='/'/></source>"
    "<target><path>/a</path></target></pool>",
    "<pool type='logical'><name>a</name></pool>",
    "<pool type='logical'><name>a</name><source><name>b</name></source><target><path>/elsewhere</path></target></pool>",
    "<pool type='logical'><source><name>a</name><device path='x'/></source></pool>",
    "<pool type='rbd'><source><name>a</name><host name='h'/></source><refresh/></pool>",
    "<pool type='sheepdog'><name>a</name><source><host name='h'/></source></pool>",
    "<pool type='iscsi'><name>a</name><source><host name='h'/><host name='i'/><device path='t'/><initiator/></source>"
    "<target><path>/a</path></target></pool>",
    "<pool type='scsi'><name>a</name><source><adapter name='scsi_host3'/></source><target><path>/a</path></target></pool>",
]


def test_what_libvirt_accepts(tmp_path: Path) -> None:
    values = [read(text, LIBVIRT_POOLS) for text in ODD]
    answers = virsh.pools([(value.name, text) for value, text in zip(values, ODD, strict=True)], tmp_path)
    for value, text, answer in zip(values, ODD, answers, strict=True):
        assert comparable(write(value)) == comparable(answer), text
    assert f"<uuid>{values[0].uuid}</uuid>" in answers[0]


# Documents that both refuse.
REFUSED = [
    "<pool type='dir'><name>a</name></pool>",
    "<pool type='dir'><name>a/b</name><target><path>/a</path></target></pool>",
    "<pool type='dir'><target><path>/a</path></target></pool>",
    "<pool type='dir'><name>a</name><target><path>/a</path><permissions><mode>01777</mode></permissions></target></pool>",
    "<pool type='dir'><name>a</name><target><path>/a</path><permissions><owner>x</owner></permissions></target></pool>",
    "<pool type='nodir'><name>a</name><target><path>/a</path></target></pool>",
    "<pool type='fs'><name>a</name><source/><target><path>/a</path></target></pool>",
    "<pool type='netfs'><name>a</name><source><host name='h'/></source><target><path>/a</path></target></pool>",
    "<pool type='netfs'><name>a</name><source><dir path='/x'/></source><target><path>/a</path></target></pool>",
    "<pool type='netfs'><name>a</name><source><host name='h'/><dir path='x'/><format type='cifs'/><protocol ver='4'/></source>"
    "<target><path>/a</path></target></pool>",
    "<pool type='netfs'><name>a</name><source><host name='h' port=''/><dir path='x'/></source>"
    "<target><path>/a</path></target></pool>",
    "<pool type='rbd'><name>a</name><source><host name='h'/></source></pool>",
    "<pool type='rbd'><name>a</name><source><name>b</name></source></pool>",
    "<pool type='scsi'><name>a</name><source/><target><path>/a</path></target></pool>",
    "<pool type='scsi'><name>a</name><source><adapter type='fc_host' wwnn='1'/></source><target><path>/a</path></target></pool>",
    "<pool type='iscsi'><name>a</name><source><host name='h'/><device path='t'/><auth type='chap' username='u'>"
    "<secret/></auth></source><target><path>/a</path></target></pool>",
    "<pool type='disk'><name>a</name><features><cow state='yes'/></features><source><device path='/d'/></source>"
    "<target><path>/dev</path></target></pool>",
]


@pytest.mark.parametrize("text", REFUSED)
def test_we_refuse_what_libvirt_refuses(text: str) -> None:
    with pytest.raises(InvalidDefinition):
        read(text, LIBVIRT_POOLS)


def test_libvirt_refuses_them(tmp_path: Path) -> None:
    answers = virsh.pools([("a", text) for text in REFUSED], tmp_path)
    assert [answer[:6] for answer in answers] == ["error:"] * len(REFUSED), answers
