"""The options that all modules have."""

from __future__ import annotations


class ModuleDocFragment:
    """Read by ansible-doc."""

    DOCUMENTATION = r"""
options:
  root:
    description:
      - Folder below which poolkit keeps definitions and state (C(--root)).
      - By default the system's folders for root, and the user's for others.
    type: path
  executable:
    description:
      - The command C(poolkit) on the target; a name is looked for in C(PATH).
      - Where there is none of that name, the module's own Python is tried, which may have poolkit as a package.
    type: str
    default: poolkit
  wait:
    description: Seconds to wait for other work on the same pool.
    type: float
    default: 60
requirements:
  - poolkit on the target
attributes:
  check_mode:
    description: Says what would be done, and changes nothing.
    support: full
  diff_mode:
    description: Shows a unified diff of the documents, what there is against what is wanted.
    support: full
"""
