"""Flavors as files ``NAME.xml`` beside the definitions of pools; all writes are durable."""

from __future__ import annotations

import os

from poolkit import errors
from poolkit.host import private
from poolkit.lean import TYPE_CHECKING
from poolkit.state.store import LARGEST, check_pool_name

if TYPE_CHECKING:
    from poolkit.documents import Flavor
    from poolkit.host.port import Host
    from poolkit.state.store import Locations


class FlavorStore:
    """The folder of flavors. All methods raise ``HostError`` for what the machine refuses."""

    def __init__(self, locations: Locations) -> None:
        self.directory = locations.flavors

    def path(self, name: str) -> str:
        """The file of a flavor; ``InvalidArgument`` for what cannot be a name."""
        return f"{self.directory}/{check_pool_name(name)}.xml"

    def names(self) -> list[str]:
        """All flavors, by name."""
        private.check(self.directory)
        try:
            found = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise errors.from_os_error(error, f"read the folder '{self.directory}'") from error
        return sorted(name.removesuffix(".xml") for name in found if name.endswith(".xml") and name[0] != ".")

    def load(self, name: str) -> Flavor:
        """One flavor; ``FlavorNotFound``, ``InvalidDefinition`` for a file that was damaged by hand."""
        from poolkit import documents, xmlmap

        path = self.path(name)
        private.check(self.directory)
        try:
            with open(path, "rb") as file:
                data = file.read(LARGEST + 1)
        except FileNotFoundError:
            import difflib

            near = difflib.get_close_matches(name, self.names(), 1)
            hint = f"did you mean '{near[0]}'?" if near else errors.Hint("list them: ", errors.remedy("flavor-list"))
            raise errors.FlavorNotFound(f"there is no flavor '{name}'", hint=hint) from None
        except OSError as error:
            raise errors.from_os_error(error, f"read the flavor '{path}'") from error
        found: Flavor = xmlmap.read(data, [documents.Flavor], filename=path, strict=False)
        return found

    def save(self, flavor: Flavor, host: Host) -> None:
        """Write a flavor durably."""
        from poolkit import xmlmap

        host.files.mkdir(self.directory, 0o700, keep=True)
        private.check(self.directory)
        host.files.replace(self.path(flavor.name), xmlmap.write(flavor).encode(), 0o600)

    def remove(self, name: str, host: Host) -> bool:
        """Remove a flavor; whether there was one."""
        return host.files.unlink(self.path(name))
