"""The header of every product: what it is, in which form, and which version wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import SpikeDeblurError
from ...version import __version__


@dataclass(frozen=True, slots=True)
class ProductFormat:
    """A kind of product, and the one form of it that this release reads and writes."""

    name: str
    """Value of `format`, such as spikedeblur.evaluation."""
    schema_version: int

    def header(self) -> dict[str, Any]:
        """Return the first entries of a product."""
        return {"format": self.name, "schema_version": self.schema_version, "version": __version__}

    def heads(self, content: object) -> bool:
        """Whether parsed content is a product of this kind, in any form."""
        return isinstance(content, dict) and content.get("format") == self.name

    def require(
        self, content: object, where: object, error: type[SpikeDeblurError], remedy: str
    ) -> None:
        """Refuse content that is another product, or in another form.

        Args:
            content: the parsed file.
            where: the file, for the message.
            error: class to raise.
            remedy: what to do about it, in the imperative: "evaluate again".

        Raises:
            SpikeDeblurError: it is one of them; the message names what was expected and found.
        """
        if not self.heads(content):
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise error(
                f'{where}: expected "format": "{self.name}", found {str(found)[:40]!r}; {remedy}'
            )
        assert isinstance(content, dict)
        version = content.get("schema_version")
        if version != self.schema_version:
            newer = isinstance(version, int) and version > self.schema_version
            raise error(
                f"{where}: expected {self.name} schema {self.schema_version}, found "
                f"{str(version)[:40]} (written by spikedeblur {str(content.get('version'))[:40]}); "
                + ("install that release or a later one" if newer else remedy)
            )
