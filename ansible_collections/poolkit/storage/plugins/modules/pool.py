#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""poolkit.storage.pool."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pool
short_description: A storage pool, and whether it is active
version_added: "0.1.0"
description:
  - Defines, builds, starts, stops, marks and forgets one pool.
  - The pool is described by a document of libvirt's form, or by options for simple ones. A pool that is defined already needs
    no more than its name.
options:
  name:
    description: Name of the pool. Needed unless I(xml) is given.
    type: str
  xml:
    description: The document of the pool.
    type: str
  type:
    description: The pool's type, such as C(dir), instead of a document.
    type: str
  target:
    description: With I(type), the directory of its volumes.
    type: path
  source:
    description: With I(type), where the storage is.
    type: dict
    suboptions:
      host:
        description: Server.
        type: str
      path:
        description: Directory on the server.
        type: str
      dev:
        description: Device.
        type: str
      name:
        description: Name, such as that of a volume group.
        type: str
      format:
        description: Format of the source.
        type: str
  state:
    description:
      - C(present) is defined, and active or not as it was; C(absent) is stopped and forgotten, and its storage stays.
      - A pool that is made is not built unless I(build) says so.
    type: str
    choices: [present, active, inactive, absent]
    default: present
  autostart:
    description: Whether it is marked to be started at boot; as it was by default.
    type: bool
  build:
    description: Whether its storage is made when the pool is, if there is nothing yet.
    type: str
    choices: [never, if-empty]
  restart:
    description: Stop and start an active pool for what waits for its next start.
    type: bool
    default: false
  overwrite:
    description: Let the build destroy what the source holds.
    type: bool
    default: false
extends_documentation_fragment: poolkit.storage.command
author: The poolkit authors (@poolkit)
"""

EXAMPLES = r"""
- name: A directory of images, started at boot
  poolkit.storage.pool:
    name: images
    type: dir
    target: /srv/images
    build: if-empty
    state: active
    autostart: true

- name: An export of NFS, as a document says it
  poolkit.storage.pool:
    xml: "{{ lookup('ansible.builtin.file', 'exports.xml') }}"
    state: active

- name: Stop a pool, whatever its definition is
  poolkit.storage.pool:
    name: images
    state: inactive
"""

RETURN = r"""
pool:
  description: The facts of the pool as C(poolkit info --json) prints them; null for one that is not there.
  returned: success
  type: dict
  sample: {"name": "images", "state": "active", "autostart": true, "capacity": 107374182400}
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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.poolkit.storage.plugins.module_utils.command import (
    ARGUMENTS,
    WORDS,
    Poolkit,
    chosen,
    named,
    wanting,
)

PLACES = ("host", "path", "dev", "name", "format")
SPECIFICATION = {
    "name": {"type": "str"},
    "xml": {"type": "str"},
    "type": {"type": "str"},
    "target": {"type": "path"},
    "source": {"type": "dict", "options": {place: {"type": "str"} for place in PLACES}},
    "state": {"type": "str", "choices": ["present", "active", "inactive", "absent"], "default": "present"},
    "autostart": {"type": "bool"},
    "build": {"type": "str", "choices": ["never", "if-empty"]},
    "restart": WORDS["restart"],
    "overwrite": WORDS["overwrite"],
    **ARGUMENTS,
}


def described(params, poolkit):
    """The document of the pool; None for one that is not there, and that nothing describes."""
    if params["xml"] is not None:
        return params["xml"]
    name = params["name"]
    if params["type"] is None or params["state"] == "absent":
        return poolkit.ask("dumpxml", "--inactive", "--", name, missing={"xml": None})["xml"]
    words = [f"--target={params['target']}"] if params["target"] is not None else []
    for place, value in (params["source"] or {}).items():
        words += [f"--source-{place}={value}"] if value is not None else []
    return poolkit.ask("define-as", *words, "--print-xml", "--", name, params["type"])["xml"]


def main():
    """Run by Ansible."""
    module = AnsibleModule(
        SPECIFICATION,
        supports_check_mode=True,
        required_one_of=[("name", "xml")],
        mutually_exclusive=[("name", "xml"), ("type", "xml")],
        required_by={"target": "type", "source": "type"},
    )
    params = module.params
    poolkit = Poolkit(module)
    document = described(params, poolkit)
    state = params["state"]
    if document is None:
        if state != "absent":
            module.fail_json(msg=f"there is no pool '{params['name']}': say its type, or give its document as xml")
        module.exit_json(changed=False, pool=None, results=[])
    wanted = {"state": None if state == "present" else state}
    if state != "absent":
        marked = params["autostart"]
        wanted |= {"autostart": None if marked is None else "yes" if marked else "no", "build": params["build"]}
    done = poolkit.make([wanting(document, **wanted)], chosen(params))
    done["pool"] = poolkit.ask("info", "--", named(document), missing={}) or None
    module.exit_json(**done)


if __name__ == "__main__":
    main()
