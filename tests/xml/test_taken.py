"""What libvirt's parser takes and other tools write is taken, with a warning where it means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolkit.model import Volume
from poolkit.schemas import pool_classes
from poolkit.xmlmap import InvalidDefinition, Problem, read, write

from . import virsh

UUID = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
TARGET = "<target><path>/volumes/x</path></target>"
HOST, DEVICE = "<host name='h'/>", "<device path='/dev/x'/>"
AUTH = f"<auth type='ceph' username='u'><secret type='uuid' uuid='{UUID}'/></auth>"
CHAP = AUTH.replace("ceph", "chap")
IQN = "<device path='iqn.2020-01.a:b'/>"

# Type, content, and the places that are warned of.
POOLS = [
    ("rbd", f"<source>{HOST}<name>p</name>{AUTH}</source>", ()),  # Salt
    ("iscsi", f"<source>{HOST}{IQN}{CHAP}</source><target><path>/dev/disk/by-path</path></target>", ()),
    ("dir", f"<source><dir path='/x'/></source>{TARGET}", ("/pool/source/dir",)),  # Salt
    ("rbd", f"<source>{HOST}<name>p</name></source>{TARGET}", ("/pool/target",)),  # Kayobe
    ("logical", "<source><name>vg</name></source><target><path>placeholder</path></target>", ()),  # Kayobe
    ("dir", f"<source>{DEVICE}{HOST}<name>n</name><format type='auto'/>{AUTH}</source>{TARGET}",
     tuple(f"/pool/source/{one}" for one in ("device", "host", "name", "format", "auth"))),
    ("dir", f"<source><initiator><iqn name='iqn.2020-01.a:b'/></initiator><adapter name='host0'/></source>{TARGET}",
     ("/pool/source/initiator", "/pool/source/adapter")),
    ("gluster", f"<source>{HOST}<dir path='/'/><name>v</name></source>{TARGET}", ("/pool/target",)),
    ("netfs", f"<source>{HOST}<dir path='/e'/>{DEVICE}<name>q</name></source>{TARGET}",
     ("/pool/source/device", "/pool/source/name")),
    ("fs", f"<source>{DEVICE}{HOST}<dir path='/e'/></source>{TARGET}", ("/pool/source/host", "/pool/source/dir")),
    ("disk", f"<source>{DEVICE}{HOST}</source>{TARGET}", ("/pool/source/host",)),
    ("mpath", f"<source>{DEVICE}</source>{TARGET}", ("/pool/source/device",)),
    ("logical", f"<source>{HOST}<dir path='/a'/><name>vg</name></source>", ("/pool/source/host", "/pool/source/dir")),
    ("scsi", f"<source><adapter type='scsi_host' name='host1'/>{HOST}</source>{TARGET}", ("/pool/source/host",)),
    ("netfs", f"<source>{HOST}<dir path='/e'/><format type='nfs'/>{CHAP}</source>{TARGET}", ("/pool/source/auth",)),
    ("netfs", f"<source>{HOST}<dir path='e'/><format type='cifs'/>{AUTH}</source>{TARGET}", ("/pool/source/auth",)),
    ("rbd", f"<source>{HOST}<name>p</name>{CHAP}</source>", ()),
    ("iscsi", f"<source>{HOST}{IQN}{AUTH}</source><target><path>/dev/disk/by-path</path></target>", ()),
    ("dir", f"<target><path>/x</path><encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption></target>",
     ("/pool/target/encryption",)),
]  # fmt: skip
VOLUMES = [
    ("<format type='qcow2'/>", "<backingStore/>", ()),  # kcli
    ("<format type='qcow2'/>", "<backingStore><path></path></backingStore>", ()),
    ("<format type='qcow2'/>", "<backingStore><path/><format type='raw'/></backingStore>", ("/volume/backingStore",)),
    ("<format type='raw'/><compat>1.1</compat>", "", ()),  # kcli; creating it warns
    ("<format type='qcow2'/><features/>", "", ()),
]


def pool(index: int, kind: str, content: str) -> str:
    return f"<pool type='{kind}'><name>pool{index}</name><uuid>{UUID[:-2]}{index:02d}</uuid>{content}</pool>"


def volume(index: int, target: str, more: str) -> str:
    return f"<volume><name>v{index}</name><capacity>1048576</capacity><target>{target}</target>{more}</volume>"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("kind", "content", "places"), POOLS)
def test_pools(kind: str, content: str, places: tuple[str, ...], strict: bool) -> None:
    said: list[Problem] = []
    read(pool(0, kind, content), pool_classes(), strict=strict, warn=said.append)
    assert tuple(one.path for one in said) == places
    assert all(one.line == 1 and "means nothing" in one.message for one in said)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("target", "more", "places"), VOLUMES)
def test_volumes(target: str, more: str, places: tuple[str, ...], strict: bool) -> None:
    said: list[Problem] = []
    value = read(volume(0, target, more), [Volume], strict=strict, warn=said.append)
    assert value.backing_store is None
    assert tuple(one.path for one in said) == places


@pytest.mark.parametrize(
    "text",
    [
        pool(0, "dir", f"<source><hosts name='h'/></source>{TARGET}"),
        pool(0, "dir", f"<nonsense/>{TARGET}"),
        pool(0, "dir", "<target><path>/x</path><format type='raw'/></target>"),
        pool(0, "shared-lvm", f"<source>{HOST}<name>vg</name></source>"),  # libvirt has no such type
    ],
)
def test_what_libvirt_does_not_know_is_an_error(text: str) -> None:
    with pytest.raises(InvalidDefinition, match="unknown element"):
        read(text, pool_classes())


@pytest.mark.parametrize("half", ["parent_wwnn", "parent_wwpn"])
def test_half_of_a_parents_name_is_refused_as_libvirt_does(half: str) -> None:
    adapter = f"<adapter type='fc_host' {half}='20000000c9831b4b' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>"
    with pytest.raises(InvalidDefinition, match="needs both @parent_wwnn and @parent_wwpn"):
        read(pool(0, "scsi", f"<source>{adapter}</source>{TARGET}"), pool_classes())


def test_the_word_for_a_secret_is_kept() -> None:
    assert f"<secret type='uuid' uuid='{UUID}'/>" in write(read(pool(0, *POOLS[0][:2]), pool_classes()))


@pytest.mark.tools("virsh")
def test_libvirt_takes_them_all(tmp_path: Path) -> None:
    """Asked of libvirt itself: or the tests above would prove nothing."""
    answers = virsh.pools([(f"pool{i}", pool(i, kind, text)) for i, (kind, text, _) in enumerate(POOLS)], tmp_path)
    assert [answer for answer in answers if not answer.startswith("<pool")] == []
    asked = [("dir", f"v{i}", volume(i, target, more)) for i, (target, more, _) in enumerate(VOLUMES)]
    assert [answer for answer in virsh.volumes(asked, tmp_path) if not answer.startswith("<volume")] == []
