"""Everything that determines a job's predictions, as a value that two runs can compare.

Model weights, preparation, data type, stored form, and the identity of the input without its
length: two runs with the same fingerprint make the same predictions, so that one may continue
the output of the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .checksummed_json import Json, canonical, digest

__all__ = ["Fingerprint"]


@dataclass(frozen=True)
class Fingerprint:
    """Named values that determine the predictions.

    Parameters
    ----------
    text
        Their canonical JSON; :meth:`of` makes it.

    Examples
    --------
    >>> ours = Fingerprint.of({"model": "1f3a", "preparation": {"scale": "auto"}})
    >>> theirs = Fingerprint.of({"model": "1f3a", "preparation": {"scale": "none"}})
    >>> ours.digest == theirs.digest
    False
    >>> ours.differences(theirs)
    ['preparation.scale: "auto" here, "none" there']
    """

    text: str

    @classmethod
    def of(cls, fields: Mapping[str, Json]) -> Fingerprint:
        """Return the fingerprint of named JSON values; their order does not matter."""
        return cls(canonical(dict(fields)))

    def without(self, *names: str) -> Fingerprint:
        """Return the fingerprint without some of the named values.

        >>> Fingerprint.of({"model": "1f3a", "code": "crme"}).without("code").fields
        {'model': '1f3a'}
        """
        return Fingerprint.of({k: v for k, v in self.fields.items() if k not in names})

    @property
    def fields(self) -> dict[str, Json]:
        """The named values."""
        fields: dict[str, Json] = json.loads(self.text)
        return fields

    @property
    def digest(self) -> str:
        """32 hexadecimal digits of the SHA-256 of all values."""
        return digest(self.text.encode())[:32]

    def differences(self, other: Fingerprint) -> list[str]:
        """Return a line for each value that differs: its name, its value here and there."""
        here, there = dict(_leaves("", self.fields)), dict(_leaves("", other.fields))
        return [
            f"{_shown(canonical(name)[1:-1])}: {_shown(here.get(name))} here, "
            f"{_shown(there.get(name))} there"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]


def _leaves(prefix: str, fields: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _leaves(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", canonical(value)


def _shown(text: str | None) -> str:
    if text is None:
        return "absent"
    if text == "null":
        return "nothing"
    return text if len(text) <= 60 else text[:57] + "..."
