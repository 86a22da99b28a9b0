#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""poolkit.storage.volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume
short_description: A volume of a storage pool
version_added: "0.1.0"
description:
  - Makes, enlarges and deletes one volume of an active pool.
  - The content of a volume that is there is never looked at, and never replaced without I(replace).
options:
  pool:
    description: Name of its pool, which is active.
    type: str
    required: true
  name:
    description: Name of the volume. Needed unless I(xml) is given.
    type: str
  xml:
    description: The document of the volume, instead of the options that describe it; I(content) may be given beside it.
    type: str
  capacity:
    description: Its size, such as C(20GiB); bytes without a unit. Not needed where the content or the backing image has one.
    type: str
  allocation:
    description: How much of it is reserved when it is made; all by default, C(0) for a sparse volume.
    type: str
  format:
    description: Its format; the default of the pool's type otherwise.
    type: str
  backing:
    description: Path of the image that it is an overlay of.
    type: path
  backing_format:
    description: Format of that image.
    type: str
  owner:
    description: Number of the user it belongs to.
    type: int
  group:
    description: Number of the group it belongs to.
    type: int
  mode:
    description: Its permission bits, octal, in quotes.
    type: str
  content:
    description: Where its content comes from when it is made.
    type: dict
    suboptions:
      file:
        description: Path of an image on the target.
        type: path
      volume:
        description: Name of another volume.
        type: str
      pool:
        description: The pool of that volume; its own by default.
        type: str
      checksum:
        description: What the bytes of the file must add up to, as C(sha256:HEX) or C(sha512:HEX).
        type: str
  state:
    description: C(absent) is deleted, with its data.
    type: str
    choices: [present, absent]
    default: present
  shrink:
    description: Let it become smaller. Data beyond the new end is lost.
    type: bool
    default: false
  replace:
    description: Let it be deleted and made anew with what cannot be changed in place. Its data is lost.
    type: bool
    default: false
extends_documentation_fragment: poolkit.storage.command
author: The poolkit authors (@poolkit)
"""

EXAMPLES = r"""
- name: The disk of a machine, of an image that was downloaded
  poolkit.storage.volume:
    pool: images
    name: web1
    format: qcow2
    capacity: 20GiB
    content:
      file: /srv/downloads/debian-12.qcow2
      checksum: sha256:{{ debian_sum }}

- name: It is not needed any more
  poolkit.storage.volume:
    pool: images
    name: web1
    state: absent
"""

RETURN = r"""
volume:
  description: The facts of the volume as C(poolkit vol-info --json) prints them; null for one that is not there.
  returned: success
  type: dict
  sample: {"name": "web1", "pool": "images", "path": "/srv/images/web1", "format": "qcow2", "capacity": 21474836480}
entries:
  description: What would be done, in check mode.
  returned: in check mode
  type: list
  elements: dict
results:
  description: What was done.
  returned: success, but in check mode
  type: list
  elements: dict
"""

import re
from xml.sax.saxutils import escape, quoteattr

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.poolkit.storage.plugins.module_utils.command import (
    ARGUMENTS,
    WORDS,
    Poolkit,
    chosen,
    named,
    within,
)

VOLUME = "urn:poolkit:volume:1"
SPECIFICATION = {
    "pool": {"type": "str", "required": True},
    "name": {"type": "str"},
    "xml": {"type": "str"},
    "capacity": {"type": "str"},
    "allocation": {"type": "str"},
    "format": {"type": "str"},
    "backing": {"type": "path"},
    "backing_format": {"type": "str"},
    "owner": {"type": "int"},
    "group": {"type": "int"},
    "mode": {"type": "str"},
    "content": {
        "type": "dict",
        "options": {
            "file": {"type": "path"},
            "volume": {"type": "str"},
            "pool": {"type": "str"},
            "checksum": {"type": "str"},
        },
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "shrink": WORDS["shrink"],
    "replace": WORDS["replace"],
    **ARGUMENTS,
}
DESCRIBING = ("capacity", "allocation", "format", "backing", "backing_format", "owner", "group", "mode")


def size(name, text):
    """An element with a size, in the unit that was said."""
    number, unit = re.fullmatch(r"\s*(.*?)\s*([A-Za-z]*)\s*", text, re.DOTALL).groups()
    of = f" unit={quoteattr(unit)}" if unit else ""
    return f"<{name}{of}>{escape(number)}</{name}>"


def described(params):
    """The document of the volume."""
    parts = [f"<name>{escape(params['name'])}</name>"]
    parts += [size(name, params[name]) for name in ("capacity", "allocation") if params[name] is not None]
    target = f"<format type={quoteattr(params['format'])}/>" if params["format"] is not None else ""
    owned = "".join(
        f"<{name}>{escape(str(params[name]))}</{name}>"
        for name in ("mode", "owner", "group")
        if params[name] is not None
    )
    parts.append(f"<target>{target}{f'<permissions>{owned}</permissions>' if owned else ''}</target>")
    if params["backing"] is not None:
        format = params["backing_format"]
        of = f"<format type={quoteattr(format)}/>" if format is not None else ""
        parts.append(f"<backingStore><path>{escape(params['backing'])}</path>{of}</backingStore>")
    return "".join(parts)


def wanted(params):
    """The document with its pool and state, and where its content comes from."""
    attributes = f"pool={quoteattr(params['pool'])} state={quoteattr(params['state'])}"
    own = f"<pkv:wanted xmlns:pkv='{VOLUME}' {attributes}/>"
    given = {key: value for key, value in (params["content"] or {}).items() if value is not None}
    if given:
        attributes = " ".join(f"{key}={quoteattr(value)}" for key, value in given.items())
        own += f"<pkv:content xmlns:pkv='{VOLUME}' {attributes}/>"
    if params["xml"] is None:
        return f"<volume>{described(params)}{own}</volume>"
    return within(params["xml"], own)


def main():
    """Run by Ansible."""
    module = AnsibleModule(
        SPECIFICATION,
        supports_check_mode=True,
        required_one_of=[("name", "xml")],
        mutually_exclusive=[("name", "xml")],
        required_by={"backing_format": "backing"},
    )
    params = module.params
    if params["xml"] is not None and any(params[name] is not None for name in DESCRIBING):
        module.fail_json(msg="xml describes the volume: leave the other options that do so out")
    poolkit = Poolkit(module)
    words = chosen(params) + (["--delete"] if params["state"] == "absent" else [])
    done = poolkit.make([wanted(params)], words)
    name = named(wanted(params))
    done["volume"] = poolkit.ask("vol-info", "--pool", params["pool"], "--", name, missing={}) or None
    module.exit_json(**done)


if __name__ == "__main__":
    main()
