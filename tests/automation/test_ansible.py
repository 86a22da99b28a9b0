"""The Ansible collection, run by a real ansible-core: built, installed, and its modules in plays on this host."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from poolkit import Engine

from ..conftest import unavailable

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
MODULES = ("apply", "pool", "volume", "info")


def installed() -> None:
    """Skip what needs ansible-core where it is not installed."""
    if importlib.util.find_spec("ansible") is None:
        unavailable("needs ansible-core")


class Ansible:
    """Ansible with the collection as it is installed, and a root of poolkit below its folder."""

    def __init__(self, folder: Path, collections: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.environment = {
            **os.environ, "ANSIBLE_HOME": str(folder / "ansible"), "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOWS": "1", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0", "LC_ALL": "C.UTF-8", "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }  # fmt: skip

    def run(self, program: str, *words: str | Path) -> str:
        command = [str(PROGRAMS / program), *map(str, words)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def play(self, playbook: Path, *flags: str) -> tuple[int, str]:
        """How many tasks changed something, and all that was said."""
        said = self.run(
            "ansible-playbook", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}",
            "-e", f"executable={PROGRAMS}/poolkit", *flags, playbook,
        )  # fmt: skip
        (changed,) = re.findall(r"changed=(\d+)", said)
        return int(changed), said


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as ansible-galaxy builds and installs it."""
    installed()
    folder = tmp_path_factory.mktemp("collection")
    ansible = Ansible(folder, folder / "collections")
    ansible.run(
        "ansible-galaxy", "collection", "build", ROOT / "ansible_collections/poolkit/storage", "--output-path", folder
    )
    (built,) = folder.glob("*.tar.gz")
    ansible.run("ansible-galaxy", "collection", "install", "--offline", "-p", folder / "collections", built)
    return folder / "collections"


@pytest.fixture
def ansible(tmp_path: Path, collections: Path) -> Ansible:
    return Ansible(tmp_path, collections)


def test_each_option_is_documented_as_it_is(ansible: Ansible) -> None:
    said = json.loads(ansible.run("ansible-doc", "-j", *(f"poolkit.storage.{name}" for name in MODULES)))
    for name in MODULES:
        told = said[f"poolkit.storage.{name}"]
        assert told["examples"] and told["return"] and told["doc"]["short_description"]
        command = (
            f"import json; from ansible_collections.poolkit.storage.plugins.modules.{name} import SPECIFICATION as s"
        )
        environment = {**ansible.environment, "PYTHONPATH": ansible.environment["ANSIBLE_COLLECTIONS_PATH"]}
        code = [sys.executable, "-c", f"{command}; print(json.dumps(s))"]
        specification = json.loads(subprocess.run(code, env=environment, capture_output=True, check=True).stdout)
        assert _facts(told["doc"]["options"], "suboptions") == _facts(specification, "options"), name


def _facts(options: dict[str, Any], below: str) -> dict[str, Any]:
    return {
        name: (
            one.get("type", "str"), one.get("default"), one.get("choices"), bool(one.get("required")), one.get("elements"),
            _facts(one.get(below) or {}, below),
        )
        for name, one in options.items()
    }  # fmt: skip


def test_the_play_of_the_manual(ansible: Ansible) -> None:
    (text,) = re.findall(r"^```yaml\n(- hosts:.*?)^```$", (ROOT / "docs/automation.md").read_text(), re.M | re.S)
    assert "src: /srv/storage-as-code\n" in text
    text = text.replace("src: /srv", f"src: {ansible.folder}/srv")
    playbook = ansible.folder / "storage.yml"
    playbook.write_text(text)
    documents = ansible.folder / "srv/storage-as-code"
    documents.mkdir(parents=True)
    (documents / "images.xml").write_text(
        f"<pool type='dir' xmlns:pk='urn:poolkit:pool:1'><name>images</name><target><path>{ansible.folder}/srv/images</path>"
        "</target><pk:wanted state='active' build='if-empty'/></pool>"
    )
    root = ["-e", f"root={ansible.root}"]
    changed, said = ansible.play(playbook, *root, "--check", "--diff")
    assert changed == 1 and "+  <name>images</name>" in said
    assert not ansible.root.exists()
    assert ansible.play(playbook, *root)[0] == 2
    with Engine(ansible.root) as engine:
        assert engine.pool("images").info.active
        assert engine.pool("images").volume("web1").info.capacity == 20 << 30
    assert ansible.play(playbook, *root)[0] == 0


class Modules:
    """Modules in this process, as Ansible's executor starts them on a target: one task costs a tenth of a play's."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.root, self.capsys = folder, folder / "root", capsys

    def __call__(self, name: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
        from ansible.module_utils.testing import patch_module_args

        module = importlib.import_module(f"ansible_collections.poolkit.storage.plugins.modules.{name}")
        given = {"root": str(self.root), "executable": f"{PROGRAMS}/poolkit", **options}
        self.capsys.readouterr()
        with (
            patch_module_args({**given, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        told: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return told


@pytest.fixture
def modules(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Modules:
    installed()
    monkeypatch.syspath_prepend(ROOT)
    return Modules(tmp_path, capsys)


def test_a_pool(modules: Modules) -> None:
    pool = {"name": "p", "type": "dir", "target": str(modules.folder / "p"), "build": "if-empty", "state": "active"}
    assert modules("info", secrets=True)["pools"] == []
    checked = modules("pool", **pool, check=True)
    assert checked["changed"] and checked["pool"] is None and "+  <name>p</name>" in checked["diff"]["prepared"]
    assert [entry["name"] for entry in checked["entries"]] == ["p"] and not (modules.folder / "p").exists()
    made = modules("pool", **pool, autostart=True)
    assert made["changed"] and made["pool"]["state"] == "active" and made["pool"]["autostart"]
    assert not modules("pool", **pool)["changed"]
    unmarked = modules("pool", name="p", autostart=False)
    assert unmarked["changed"] and not unmarked["pool"]["autostart"] and unmarked["pool"]["active"]
    assert not modules("pool", name="p")["changed"]
    assert modules("pool", name="p", state="inactive")["pool"]["state"] == "inactive"
    gone = modules("pool", name="p", state="absent")
    assert gone["changed"] and gone["pool"] is None and (modules.folder / "p").exists()
    assert not modules("pool", name="p", state="absent")["changed"]
    assert "say its type" in modules("pool", name="p", state="active")["msg"]
    misspelt = modules("pool", xml="<pool type='dri'><name>x</name></pool>", state="active")
    assert misspelt["failed"] and "did you mean 'dir'" in misspelt["msg"]


@pytest.mark.tools("qemu-img")
def test_a_volume(modules: Modules) -> None:
    modules("pool", name="p", type="dir", target=str(modules.folder / "p"), build="if-empty", state="active")
    volume = {"pool": "p", "name": "v", "format": "qcow2", "capacity": "2MiB"}
    made = modules("volume", **volume, allocation="0", mode="0640")
    facts = made["volume"]
    assert made["changed"] and (facts["format"], facts["capacity"], facts["mode"]) == ("qcow2", 2 << 20, "0640")
    assert not modules("volume", **volume)["changed"]
    assert modules("volume", **{**volume, "capacity": "3MiB"})["volume"]["capacity"] == 3 << 20
    for check in (False, True):  # what would fail fails in check mode, too
        refused = modules("volume", **volume, check=check)
        assert refused["failed"] and "shrink" in refused["msg"]
    assert modules("volume", **volume, shrink=True)["volume"]["capacity"] == 2 << 20
    over = {
        "pool": "p",
        "name": "o",
        "backing": str(modules.folder / "p/v"),
        "backing_format": "qcow2",
        "format": "qcow2",
    }
    assert modules("volume", **over)["volume"]["backing_format"] == "qcow2"
    told = modules("info", volumes=True, secrets=True)
    assert [one["name"] for one in told["volumes"]["p"]] == ["o", "v"] and told["secrets"] == []
    assert "no pool 'q'" in modules("info", pools=["q"])["msg"]
    gone = modules("volume", pool="p", name="o", state="absent")
    assert gone["changed"] and gone["volume"] is None and not (modules.folder / "p/o").exists()
    assert not modules("volume", pool="p", name="o", state="absent")["changed"]
    assert modules("volume", pool="q", name="v", capacity="1")["failed"]
    assert "capacity" in modules("volume", pool="p", name="w", capacity="1 000 MiB")["msg"]


def test_a_volume_of_a_document_has_content(modules: Modules) -> None:
    image = modules.folder / "image"
    image.write_bytes(b"x" * 4096)
    checksum = f"sha256:{hashlib.sha256(b'x' * 4096).hexdigest()}"
    pool = f"<pool type='dir'><name>p</name><target><path>{modules.folder}/p</path></target></pool>"
    modules("pool", xml=f"<?xml version='1.0'?>\n{pool}", state="active", build="if-empty")
    xml = "<?xml version='1.0'?><volume><name>w</name><target><format type='raw'/></target></volume>"
    content = {"file": str(image), "checksum": checksum}
    assert "leave the other options" in modules("volume", pool="p", xml=xml, format="raw")["msg"]
    made = modules("volume", pool="p", xml=xml, content=content)
    assert made["volume"]["capacity"] == 4096
    assert (modules.folder / "p/w").read_bytes() == image.read_bytes()
    wrong = modules("volume", pool="p", name="x", format="raw", content={**content, "checksum": "sha256:" + "0" * 64})
    assert wrong["failed"] and wrong["results"][0]["result"] == "failed" and not (modules.folder / "p/x").exists()


def test_documents_are_applied(modules: Modules) -> None:
    pools = [
        f"<pool type='dir' xmlns:pk='urn:poolkit:pool:1'><name>{name}</name><target><path>{modules.folder}/{name}</path></target>"
        "<pk:wanted build='if-empty' state='active'/></pool>" for name in "ab"
    ]  # fmt: skip
    done = modules("apply", documents=pools)
    assert done["changed"] and sorted((one["name"], one["result"]) for one in done["results"]) == [
        ("a", "done"),
        ("b", "done"),
    ]
    assert not modules("apply", documents=pools)["changed"]
    assert "one of src and documents" in modules("apply")["msg"]
    folder = modules.folder / "documents"
    folder.mkdir()
    (folder / "a.xml").write_text(pools[0])
    (folder / "b.xml").write_text(pools[1])
    modules("apply", src=[str(folder)])
    (folder / "b.xml").unlink()
    assert not modules("apply", src=[str(folder)])["changed"]
    nowhere = modules("apply", documents=["<volume><name>u</name><capacity>1</capacity></volume>"])
    assert nowhere["failed"] and "pool" in nowhere["msg"]


def test_documents_stand_within_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from ansible_collections.poolkit.storage.plugins.module_utils import command

    assert command.without_declaration("\ufeff <?xml version='1.0'?>\n<pool/>") == "\n<pool/>"
    assert command.without_declaration("<?xml-model href='x'?><pool/>") == "<?xml-model href='x'?><pool/>"
    text = "<pool type='dir'><name>p</name></pool><!-- -->"
    wanted = command.wanting(text, state="active", autostart=None)
    assert (
        wanted == "<pool type='dir'><name>p</name><wanted xmlns='urn:poolkit:pool:1' state=\"active\"/></pool><!-- -->"
    )
    assert command.wanting(text, state=None) == text
