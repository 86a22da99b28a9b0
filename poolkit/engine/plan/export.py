"""What there is as a folder of documents, which plans to nothing at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from poolkit import xmlmap
from poolkit.engine.describe import with_secret
from poolkit.engine.plan.present import Listing, Present
from poolkit.model import WantedPool, WantedVolume
from poolkit.xmlmap import replace, without_reports

if TYPE_CHECKING:  # an engine imports this package, and hands itself over
    from poolkit.engine.engine import Engine

_LONGEST = 200  # bytes of a file's name, of the 255 that Linux takes: the ending and a digest fit behind


class Exported(NamedTuple):
    """``files`` has the text of each document by its path in the folder; ``left`` says, a sentence each, what is not in them."""

    files: dict[str, str]
    left: tuple[str, ...]


def documents(engine: Engine, *, volumes: bool = False, secrets: bool = True) -> Exported:
    """See :meth:`poolkit.engine.engine.Engine.export`."""
    present = Present(engine)
    files: dict[str, str] = {}
    left: list[str] = []
    for name in present.names():
        facts = present.pool(name)
        if facts is None:
            continue
        if facts.stored is None:
            why = "its definition cannot be read" if facts.persistent else "it is transient: it has no definition"
            left.append(f"pool '{name}' was left out: {why}")
            continue
        wanted = WantedPool(state="active" if facts.active else "inactive", autostart=facts.autostart)
        files[f"{_file(name)}.xml"] = xmlmap.write(replace(facts.stored, wanted=wanted))
        if not volumes:
            continue
        listing = present.listing(name) if facts.active else None
        if listing is None:
            left.append(f"the volumes of pool '{name}' were left out: it is not active")
            continue
        for volume in sorted(listing.volumes):
            if listing.volumes[volume].type == "dir":
                left.append(f"'{volume}' of pool '{name}' was left out: it is a folder")
                continue
            document = with_secret(_volume(listing, volume, name), engine.core)
            document = replace(document, target=replace(document.target, path=None))
            files[f"{_file(name)}/{_file(volume)}.xml"] = xmlmap.write(document)
    for secret in present.secrets() if secrets else ():
        files[_free(f"secrets/{secret.uuid}", files)] = secret.xml()
    for flavor in present.flavors().values():
        files[_free(f"flavors/{_file(flavor.name)}", files)] = xmlmap.write(flavor)
    return Exported(files, tuple(left))


def _volume(listing: Listing, name: str, pool: str) -> Any:
    document = without_reports(listing.document(name))
    target = document.target
    if target.format == "iso":  # what is read from the content is no format to make a volume of
        target = replace(target, format="raw")
    return replace(document, target=target, wanted=WantedVolume(pool=pool))


def _free(path: str, files: dict[str, str]) -> str:
    """The name of a file that has not got another document: pools may be called secrets and flavors."""
    while f"{path}.xml" in files:
        path += "%"
    return f"{path}.xml"


def _file(name: str) -> str:
    """The name of a file for a pool or volume, whose own name may be hidden or as long as any name can be."""
    shown = name.replace("%", "%25")
    if shown.startswith("."):
        shown = "%2E" + shown[1:]
    if len(shown.encode("utf-8")) > _LONGEST:
        import hashlib

        kept = shown.encode("utf-8")[: _LONGEST - 34].decode("utf-8", "ignore")
        shown = f"{kept}%{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return shown
