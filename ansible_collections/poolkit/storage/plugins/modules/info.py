#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""poolkit.storage.info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: info
short_description: The facts of storage pools, and of their volumes
version_added: "0.1.0"
description: Changes nothing.
options:
  pools:
    description: Names of the pools that are asked for; all by default.
    type: list
    elements: str
  volumes:
    description: Whether the volumes of active pools are listed, too, as of the last refresh.
    type: bool
    default: false
  secrets:
    description: Whether secrets are listed, too, without their values.
    type: bool
    default: false
extends_documentation_fragment: poolkit.storage.command
attributes:
  diff_mode:
    description: There is nothing to show.
    support: none
author: The poolkit authors (@poolkit)
"""

EXAMPLES = r"""
- name: What there is
  poolkit.storage.info:
    volumes: true
  register: storage

- name: No pool is nearly full
  ansible.builtin.assert:
    that: storage.pools | selectattr('active') | rejectattr('available', 'ge', 10737418240) | length == 0
"""

RETURN = r"""
pools:
  description: The facts of each pool as C(poolkit info --json) prints them.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "images", "state": "active", "type": "dir", "available": 53687091200}]
volumes:
  description: The volumes of active pools, by the name of the pool.
  returned: when asked for
  type: dict
  sample: {"images": [{"name": "web1", "format": "qcow2", "capacity": 21474836480}]}
secrets:
  description: The secrets.
  returned: when asked for
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.poolkit.storage.plugins.module_utils.command import ARGUMENTS, Poolkit

SPECIFICATION = {
    "pools": {"type": "list", "elements": "str"},
    "volumes": {"type": "bool", "default": False},
    "secrets": {"type": "bool", "default": False},
    **ARGUMENTS,
}


def main():
    """Run by Ansible."""
    module = AnsibleModule(SPECIFICATION, supports_check_mode=True)
    params = module.params
    poolkit = Poolkit(module)
    pools = poolkit.ask("list", "--all", missing=[])
    if params["pools"] is not None:
        missing = sorted(set(params["pools"]) - {pool["name"] for pool in pools})
        if missing:
            module.fail_json(msg=f"there is no pool '{missing[0]}'")
        pools = [pool for pool in pools if pool["name"] in params["pools"]]
    facts = {"pools": pools}
    if params["volumes"]:
        facts["volumes"] = {
            pool["name"]: poolkit.ask("vol-list", "--", pool["name"]) for pool in pools if pool["active"]
        }
    if params["secrets"]:
        facts["secrets"] = poolkit.ask("secret-list", missing=[])
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
