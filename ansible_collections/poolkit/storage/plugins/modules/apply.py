#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""poolkit.storage.apply."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apply
short_description: Make pools, volumes and secrets what documents want
version_added: "0.1.0"
description:
  - Compares a host with folders of documents, or with documents in the play, and makes it what they want, as C(poolkit apply).
  - What is as it is wanted already is not touched. Nothing that destroys data is done without a word for it.
options:
  src:
    description: Folders of documents, or documents, on the target.
    type: list
    elements: path
    default: []
  documents:
    description: Documents as text, such as from a lookup of files or templates.
    type: list
    elements: str
    default: []
  prune:
    description: Remove what an earlier apply of the same I(src) made and no document describes any more.
    type: bool
    default: false
  restart:
    description: Stop and start active pools for what waits for their next start.
    type: bool
    default: false
  shrink:
    description: Let volumes become smaller. Data beyond their new ends is lost.
    type: bool
    default: false
  replace:
    description: Let volumes be deleted and made anew with what cannot be changed in place. Their data is lost.
    type: bool
    default: false
  delete:
    description: Let volumes that are to be absent be deleted, and values of secrets.
    type: bool
    default: false
  overwrite:
    description: Let the build of a pool destroy what its source holds.
    type: bool
    default: false
extends_documentation_fragment: poolkit.storage.command
author: The poolkit authors (@poolkit)
"""

EXAMPLES = r"""
- name: Make the storage what the repository says
  poolkit.storage.apply:
    src: /srv/storage-as-code/{{ inventory_hostname }}

- name: The same with documents of the control host
  poolkit.storage.apply:
    documents: "{{ query('ansible.builtin.template', 'images.xml.j2', 'backups.xml.j2') }}"

- name: Remove also what is no longer in the folder, volumes with their data
  poolkit.storage.apply:
    src: /srv/storage-as-code/{{ inventory_hostname }}
    prune: true
    delete: true
"""

RETURN = r"""
entries:
  description: What would be done, in check mode, as C(poolkit plan --json) has it.
  returned: in check mode
  type: list
  elements: dict
  sample: [{"action": "add", "kind": "pool", "name": "images", "steps": ["define", "build", "start"]}]
results:
  description: What became of each pool, volume and secret.
  returned: success, and when something failed
  type: list
  elements: dict
  sample: [{"kind": "pool", "name": "images", "result": "done", "messages": ["pool 'images' is defined"]}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.poolkit.storage.plugins.module_utils.command import ARGUMENTS, WORDS, Poolkit, chosen

SPECIFICATION = {
    "src": {"type": "list", "elements": "path", "default": []},
    "documents": {"type": "list", "elements": "str", "default": []},
    "prune": {"type": "bool", "default": False},
    **WORDS,
    **ARGUMENTS,
}


def main():
    """Run by Ansible."""
    module = AnsibleModule(SPECIFICATION, supports_check_mode=True)
    params = module.params
    if not params["src"] and not params["documents"]:
        module.fail_json(msg="one of src and documents is needed")
    words = chosen(params) + (["--prune"] if params["prune"] else [])
    module.exit_json(**Poolkit(module).make(params["documents"], words, paths=params["src"]))


if __name__ == "__main__":
    main()
