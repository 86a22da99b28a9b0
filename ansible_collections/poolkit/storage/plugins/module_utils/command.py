"""The command poolkit on the target, and what its answers mean to Ansible."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from xml.sax.saxutils import quoteattr

ARGUMENTS = {
    "root": {"type": "path"},
    "executable": {"type": "str", "default": "poolkit"},
    "wait": {"type": "float", "default": 60},
}
WORDS = {
    "restart": {"type": "bool", "default": False},
    "shrink": {"type": "bool", "default": False},
    "replace": {"type": "bool", "default": False},
    "delete": {"type": "bool", "default": False},
    "overwrite": {"type": "bool", "default": False},
}
"""What apply needs a word for, by the name of its option."""
SOMETHING_TO_DO = 2  # exit status of plan and diff
NOT_FOUND = 4
POOL = "urn:poolkit:pool:1"


class Poolkit:
    """Runs verbs for one module; what fails ends the module with poolkit's sentence."""

    def __init__(self, module):
        self.module = module
        root = module.params["root"]
        self.command = [*self._program(), "--json", "--wait", str(module.params["wait"])]
        self.command += ["--root", root] if root else []

    def _program(self):
        name = self.module.params["executable"]
        if "/" in name:
            return [os.path.expanduser(name)]
        found = self.module.get_bin_path(name)
        if found:
            return [found]
        if name == "poolkit" and importlib.util.find_spec("poolkit") is not None:
            return [sys.executable, "-m", "poolkit"]
        self.module.fail_json(
            msg=f"there is no command '{name}' on this host: install poolkit, or say its path as executable"
        )

    def ask(self, verb, *words, data=None, accept=(0,), missing=None):
        """The answer of a verb, as data; ``missing`` where what it asks for is not there, or the root is not made yet."""
        root = self.module.params["root"]
        if missing is not None and root and not os.path.lexists(root):
            return missing
        status, out, err = self.module.run_command([*self.command, verb, *words], data=data, binary_data=True)
        if status == NOT_FOUND and missing is not None:
            return missing
        if status not in accept:
            self._fail(status, out, err)
        return json.loads(out) if out.strip() else None

    def _fail(self, status, out, err):
        told = _last_object(err)
        answer = json.loads(out) if out.strip().startswith(("{", "[")) else None
        message = told.get("message") or _of_results(answer) or err.strip() or f"poolkit ended with {status}"
        facts = {"rc": status, "error": told.get("error"), "hint": told.get("hint")}
        if isinstance(answer, dict):
            facts["results"] = answer.get("results", [])
            facts["remaining"] = answer.get("remaining", [])
        hint = f" ({told['hint']})" if told.get("hint") else ""
        self.module.fail_json(msg=message + hint, **facts)

    def make(self, documents, words, *, paths=()):
        """Have it as documents want it, or only say what would be done in check mode: the facts of the result."""
        data = wrapped(documents)
        places = [*paths, *(["-"] if documents else [])]
        lenient = [word for word in words if word in ("--lenient", "--prune")]
        facts = {}
        if self.module._diff:
            found = self.ask("diff", *lenient, "--", *places, data=data, accept=(0, SOMETHING_TO_DO))
            facts["diff"] = {"prepared": found["diff"]}
        if self.module.check_mode:
            plan = self.ask("plan", *lenient, "--", *places, data=data, accept=(0, SOMETHING_TO_DO))
            lacking = sorted({need for entry in plan["entries"] for need in entry["needs"] if f"--{need}" not in words})
            if lacking:
                names = [f"{e['kind']} {e['name']}" for e in plan["entries"] if set(e["needs"]) & set(lacking)]
                self.module.fail_json(
                    msg=f"nothing would be begun: {', '.join(names)} needs {' and '.join(lacking)}", **facts
                )
            entries = [entry for entry in plan["entries"] if entry["action"] != "none"]
            return facts | {"changed": plan["changed"], "entries": entries}
        done = self.ask("apply", *words, "--", *places, data=data)
        for result in done["results"]:
            for warning in result["warnings"]:
                self.module.warn(warning)
        return facts | {"changed": done["changed"], "results": done["results"]}


def chosen(params):
    """The words that a module's options give."""
    return [f"--{word}" for word in WORDS if params.get(word)]


def wrapped(documents):
    """Several documents as one, for standard input."""
    if not documents:
        return None
    return "<documents>\n" + "\n".join(without_declaration(text) for text in documents) + "\n</documents>\n"


def without_declaration(text):
    """A document that can stand within another one."""
    text = text.lstrip("\ufeff \t\r\n")
    return text.partition("?>")[2] if text.startswith("<?xml") and text[5:6] in " \t\r\n" else text


def wanting(text, **wanted):
    """A pool's document with what is wanted of the pool; None is left out. poolkit refuses one that says so itself, too."""
    given = {key: value for key, value in wanted.items() if value is not None}
    if not given:
        return text
    attributes = " ".join(f"{key}={quoteattr(str(value))}" for key, value in given.items())
    return within(text, f"<wanted xmlns='{POOL}' {attributes}/>")


def within(text, element):
    """A document with one more element, the last one in its root."""
    head, end, tail = text.rpartition("</")  # of the root: nothing but comments may follow
    return f"{head}{element}{end}{tail}"


def named(document):
    """The name in a document that poolkit has taken: it has no DOCTYPE then."""
    from xml.etree import ElementTree

    return ElementTree.fromstring(without_declaration(document)).findtext("name")  # noqa: S314


def _last_object(text):
    """The JSON object that poolkit writes to standard error when it fails."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                pass
    return {}


def _of_results(answer):
    if not isinstance(answer, dict):
        return ""
    told = [result["error"]["message"] for result in answer.get("results", []) if result.get("error")]
    told += [f"{entry['kind']} {entry['name']} is different still" for entry in answer.get("remaining", [])]
    return "; ".join(told)
