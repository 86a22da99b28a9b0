"""``sm ACTION ...``: flavors and storage repositories in the words of the XenAPI storage manager's manual."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from poolkit import errors
from poolkit.cli import flavor_verbs
from poolkit.cli.arguments import Values

if TYPE_CHECKING:
    from poolkit.cli.session import Session

_USAGE = {
    "flavor-create": "FLAVOR [DESCRIPTION]",
    "flavor-delete": "FLAVOR",
    "flavor-list": "[FLAVOR]",
    "backend-add": "FLAVOR TYPE KEY=VALUE ...",
    "backend-remove": "NUMBER",
    "backend-list": "[FLAVOR]",
}
ACTIONS = tuple(_USAGE)
_Words = list[str]


def run(session: Session, values: Values) -> None:
    """``sm ACTION WORD ...``."""
    actions: dict[str, tuple[int, int | None, Callable[[Session, Values, _Words], None]]] = {
        "flavor-create": (1, 2, _flavor_create), "flavor-delete": (1, 1, _flavor_delete), "flavor-list": (0, 1, _flavor_list),
        "backend-add": (2, None, _backend_add), "backend-remove": (1, 1, _backend_remove), "backend-list": (0, 1, _backend_list),
    }  # fmt: skip
    least, most, function = actions[values.action]
    words: _Words = values.words
    if len(words) < least or (most is not None and len(words) > most):
        raise errors.InvalidArgument(
            f"sm {values.action} takes {_USAGE[values.action]}",
            hint=f"poolkit sm {values.action} {_USAGE[values.action]}",
        )
    function(session, values, words)


def _flavor_create(session: Session, _: Values, words: _Words) -> None:
    from poolkit.documents import Flavor

    name, description = words[0], words[1] if len(words) > 1 else None
    if any(flavor.name == name for flavor in session.engine.flavors.list()):
        raise errors.AlreadyExists(
            f"there is a flavor '{name}' already", hint=errors.Hint("change it: ", errors.remedy("flavor-define", ...))
        )
    made = session.engine.flavors.define(Flavor(name=name, description=description))
    flavor_verbs.done(session, made.outcome, name)


def _flavor_delete(session: Session, _: Values, words: _Words) -> None:
    flavor = session.engine.flavors.get(words[0])
    pools = [backend.pool for backend in flavor.definition.backends]
    flavor_verbs.done(session, flavor.delete(), flavor.name)
    if pools and not session.options.dry_run:
        session.note(f"the pools of its backends stay, without numbers: {errors.some(pools)}")


def _flavor_list(session: Session, _: Values, words: _Words) -> None:
    found = [session.engine.flavors.get(words[0])] if words else session.engine.flavors.list()
    if session.json:
        session.value([{"name": one.name, "description": one.definition.description} for one in found])
        return
    session.rows(("Name", "Description"), [(one.name, one.definition.description or "-") for one in found])


def _backend_add(session: Session, values: Values, words: _Words) -> None:
    config: dict[str, str] = {}
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise errors.InvalidArgument(
                f"'{word[:80]}' is no KEY=VALUE", hint="quote values with blanks: 'KEY=two words'"
            )
        if key in config:
            raise errors.InvalidArgument(f"the key '{key}' is given twice")
        config[key] = value
    made = session.engine.storage_manager.add(words[0], words[1], config, overwrite=values.overwrite)
    dry = session.options.dry_run
    if session.json:
        session.value({**made._asdict(), **({"dry_run": True} if dry else {})})
        return
    session.print(
        f"backend {made.number} of flavor '{made.flavor}' {'would be' if dry else 'is'} pool '{made.pool}', "
        + (f"repository {made.uuid}" if made.uuid else "a new repository unless the hosts know it" if dry else "-")
    )


def _backend_remove(session: Session, _: Values, words: _Words) -> None:
    if not (words[0].isascii() and words[0].isdigit()):
        raise errors.InvalidArgument(
            f"'{words[0][:80]}' is no number of a backend",
            hint=errors.Hint("the numbers are told by ", errors.remedy("sm", "backend-list")),
        )
    outcome = session.engine.storage_manager.remove(int(words[0]))
    if session.json:
        session.value({"verb": session.verb, **session.outcome_facts(outcome)})
    else:
        session.print(outcome.message)


def _backend_list(session: Session, _: Values, words: _Words) -> None:
    if words:
        session.engine.flavors.get(words[0])
    found = [one for one in session.engine.storage_manager.backends() if not words or one.flavor == words[0]]
    if session.json:
        session.value([one._asdict() for one in found])
        return
    session.rows(
        ("Number", "Flavor", "Pool", "SR UUID", "Type", "Configuration"),
        [
            (
                str(one.number), one.flavor, one.pool, one.uuid or "-", one.type or "-",
                " ".join(f"{key}={value}" for key, value in one.config.items()) or "-",
            )
            for one in found
        ],
        right=("Number",),
    )  # fmt: skip
