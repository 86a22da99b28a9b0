"""What ``--json`` prints."""

from __future__ import annotations

SHAPES = {
    "outcome": "object: verb, pool, changed, message; and where they apply uuid, volume (as vol-info prints it), pending "
    "(list of path, running, new), warnings (list), dry_run and plan (list of lines)",
    "outcomes": "list of objects: pool, result (started, unchanged, failed, timed-out, skipped), seconds; and changed, message, "
    "or error (an error object)",
    "pool": "object: name, uuid, type, state, active, persistent, autostart, target, capacity, allocation, available (bytes), "
    "refreshed (seconds since 1970 or null), reason",
    "pools": "list of the objects that info prints",
    "volume": "object: pool, name, key, path, type, format, capacity, allocation, physical (bytes), mode (octal text), owner, "
    "group, atime, mtime, ctime (seconds since 1970 as text), and rarer facts where known: backing, backing_format, "
    "backing_kind, data_file, encryption, compat, cluster_size, features, extents, content, also, ambiguous, looks_like, "
    "extent_files, missing (paths of what it stands on that are not there), half_written (what was broken off), link (where a "
    "symbolic link leads to), replaced, unread, unseen, warning, error, of "
    "Sheepdog vdi_id, lineage, object_size, copies, snapshot_of, snapshot_id, and of rbd id, order, parent, snapshots",
    "volumes": "list of the objects that vol-info prints",
    "links": "list of objects: path, format, pool, volume, capacity (null where unknown), kind, problem (empty if none)",
    "secrets": "list of objects: uuid, usage_type, usage, has_value, ephemeral, private, description",
    "flavors": "list of objects: name, description, policy, backends (list of names of pools)",
    "sm": "as the action: the object that flavor-define prints, a list of objects name, description; a list of objects, or one, "
    "number, flavor, pool, uuid, type, config (object); an object verb, changed, message",
    "flavor-outcome": "object: verb, flavor, changed, message; and where they apply warnings, dry_run and plan",
    "backends": "list of objects: pool, turn (from 1; 0 if it would not be tried), why, priority, total, free, provisioned, "
    "promised, reserved, ratio, room",
    "secret-outcome": "object: verb, changed, message, secret (as secret-list prints it)",
    "locks": "object: lock, node, role, attached (object: names of nodes by volume), and what the type tells",
    "document": "object: xml (text)",
    "documents": "list of objects: file, xml",
    "verdicts": "list of objects: file, valid, kind, problems (list of source, line, column, path, message), judges",
    "plan": "object: version, changed, entries (list of action add|change|remove|none, kind pool|volume|secret|flavor, name, "
    "pool, changes (list of field, old, new, when now|next-start|shrink|replace), steps, needs, after (lists), place, note, "
    "pending (as changes))",
    "applied": "object: changed, results (list of kind, name, pool, result done|unchanged|failed|skipped, messages, warnings, "
    "and error), remaining (entries as plan has them: what is different still)",
    "diff": "object: changed, diff (text)",
    "imported": "object: changed, results (list of kind, name, result taken|unchanged|different|failed, messages, warnings, and "
    "error), marks (list of commands that remove libvirt's marks for autostart), warnings",
    "exported": "object: files, left (lists)",
    "text": "object: the one value that was asked for, by its name",
    "types": "list of objects: type, supported, verbs, source_formats, volume_formats, tools, error",
    "sources": "list of objects: xml, and the fields of the source",
    "images": "list of objects: path, format, virtual_size, actual_size (bytes), backing_file, backing_format, backing_kind, "
    "data_file, encrypted, encryption, compat, cluster_size, also, ambiguous, error, and more; null where unknown",
    "health": "object: ok, checks (list of name, status ok|note|problem, message, hint)",
    "units": "list of objects: name, text",
    "recovered": "object: recovered (list of lines), failed (list of files)",
    "verbs": "list of objects: name, aliases, group, help, arguments, json",
    "none": "nothing",
}
"""What ``--json`` prints, by the name that a verb's ``json`` has."""
