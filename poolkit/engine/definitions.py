"""Definitions in memory: from a document to a value, from a value to its backend, and those that were read last."""

from __future__ import annotations

from poolkit.later import later
from poolkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from typing import Any

    from poolkit import model, registry
    from poolkit.backend import Backend
    from poolkit.host.port import Host
    from poolkit.state.inventory import Record
    from poolkit.state.store import Store
else:
    registry = later(globals(), "registry", "poolkit.registry")

_KEPT = 64
"""Definitions that are kept in memory: a host can have thousands, and works on few."""


class Definitions:
    """The definitions of one root; thread-safe, since definitions are values that do not change."""

    def __init__(self, store: Store, host: Host) -> None:
        self._store = store
        self._host = host
        self._texts: dict[str, Any] = {}
        self._loaded: dict[str, tuple[int, Any, str]] = {}

    def parse(
        self, source: str | bytes | os.PathLike[str] | model.Pool, *, filename: str = "<string>", strict: bool = True
    ) -> Any:
        """A pool definition from XML text, the path of a document or the definition itself; all that is wrong in one error.

        ``strict`` makes unknown elements an error; without it they are dropped. Raises as :func:`poolkit.xmlmap.given`.
        """
        from poolkit import model, xmlmap

        return xmlmap.given(source, model.Pool, registry.candidates, filename=filename, strict=strict)

    def given(self, source: str | bytes | os.PathLike[str] | model.Pool, filename: str, strict: bool) -> Any:
        """As :meth:`parse`, without what a dump of a running pool reports: sizes are not part of a definition."""
        from poolkit import xmlmap

        return xmlmap.definition_alone(self.parse(source, filename=filename, strict=strict))

    def running(self, record: Record) -> Any:
        """The definition a pool was started with."""
        return self.from_text(record.live or "")

    def from_text(self, live: str) -> Any:
        """The definition that was stored as ``live``, when its pool was started."""
        return self._read(live, "<string>")

    def load(self, name: str, stamp: int | None = None) -> Any:
        """The stored definition of a pool; ``PoolNotFound``, or ``InvalidDefinition`` if its file was damaged.

        With the ``stamp`` that its file has now, a file that did not change is not read again.
        """
        kept = self._loaded.get(name)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        text, settled = self._store.read_with_stamp(name)
        definition = self._read(text, self._store.path(name))
        if settled is not None and settled == stamp:
            if len(self._loaded) >= _KEPT:
                self._loaded.clear()
            self._loaded[name] = (settled, definition, text)
        return definition

    def text(self, definition: Any) -> str:
        """The document of a definition. What reads it next in this process finds the definition without parsing."""
        kept = self._loaded.get(definition.name)
        if kept is not None and kept[1] is definition:
            return kept[2]
        from poolkit import xmlmap

        text = xmlmap.write(definition)
        self._keep(text, definition)
        return text

    def backend(self, definition: Any, host: Host | None = None) -> Backend:
        """The executor for a definition."""
        return registry.executor(definition, host or self._host.operation())

    def _read(self, text: str, filename: str) -> Any:
        found = self._texts.get(text)
        if found is None:
            found = self.parse(text, filename=filename, strict=False)
            self._keep(text, found)
        return found

    def _keep(self, text: str, definition: Any) -> None:
        if len(self._texts) >= _KEPT:
            self._texts.clear()
        self._texts[text] = definition
