"""Values of fields for people and programs: numbers and texts as they are, elements by what is said in them."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """A value that JSON can hold."""
    return value if value is None or isinstance(value, (bool, int, str)) else word(value)


def word(value: Any) -> str:
    """The value of a field for people: elements by what is said in them."""
    if value is None or value == ():
        return "nothing"
    if isinstance(value, tuple):
        return ", ".join(map(word, value))
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is None:
        return str(value)
    said = {name: getattr(value, name) for name in fields}
    words = {name: f"{one:04o}" if name == "mode" and isinstance(one, int) else word(one) for name, one in said.items()}
    return ", ".join(f"{name.replace('_', ' ')} {one}" for name, one in words.items() if one != "nothing") or "nothing"
