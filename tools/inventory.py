"""What is installed beside this project: licences, or a software bill of materials.

    python tools/inventory.py licences
    python tools/inventory.py sbom > sbom.json

From the metadata of the packages in this environment that the project needs, directly or through
others. The bill of materials is CycloneDX 1.5 in JSON, without the moment at which it was made: the
same environment gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement

PROJECT = "fcdcc"
EXTRAS = ("", "dev")


def needed(name: str, extras: tuple[str, ...] = ("",)) -> dict[str, Distribution]:
    """Return the installed distributions that one needs, itself included, by name."""
    found: dict[str, Distribution] = {}
    pending = [(name, extras)]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while pending:
        current, wanted = pending.pop()
        if (current, wanted) in seen:
            continue
        seen.add((current, wanted))
        try:
            known = distribution(current)
        except PackageNotFoundError:
            continue  # of another platform, or an extra that is not installed
        found[normal(known.name)] = known
        for requirement in map(Requirement, known.requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted):
                pending.append((normal(requirement.name), ("", *sorted(requirement.extras))))
    return dict(sorted(found.items()))


def normal(name: str) -> str:
    """Return a package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(known: Distribution) -> str:
    """Return the licence of a distribution as it is declared, in a line; 'unknown' if it is not."""
    meta = known.metadata
    expression = meta.get("License-Expression")
    if expression:
        return str(expression)
    classes = [
        line.rpartition("::")[2].strip()
        for line in meta.get_all("Classifier") or ()
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    if classes:
        return ", ".join(classes)
    lines = str(meta.get("License") or "unknown").strip().splitlines()
    return lines[0] if lines else "unknown"


def licences() -> Iterator[str]:
    """Yield a line for each package: name, version, licence."""
    for name, known in needed(PROJECT, EXTRAS).items():
        yield f"{name:<32} {known.version:<18} {licence(known)}"


def bill() -> dict[str, Any]:
    """Return the bill of materials."""
    packages = needed(PROJECT, EXTRAS)
    own = packages.pop(PROJECT)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(PROJECT, own, "application")},
        "components": [component(name, known, "library") for name, known in packages.items()],
    }


def component(name: str, known: Distribution, kind: str) -> dict[str, Any]:
    """Return one entry of the bill of materials."""
    reference = f"pkg:pypi/{name}@{known.version}"
    entry: dict[str, Any] = {
        "type": kind,
        "bom-ref": reference,
        "name": name,
        "version": known.version,
        "purl": reference,
        "licenses": [{"license": {"name": licence(known)}}],
    }
    origin = json.loads(known.read_text("direct_url.json") or "{}")
    hashes = origin.get("archive_info", {}).get("hashes", {})
    if hashes:
        names = {"sha256": "SHA-256", "sha512": "SHA-512"}
        entry["hashes"] = [
            {"alg": names[kind], "content": value}
            for kind, value in hashes.items()
            if kind in names
        ]
    return entry


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("licences", "sbom"))
    if parser.parse_args().what == "licences":
        sys.stdout.writelines(f"{line}\n" for line in licences())
    else:
        sys.stdout.write(json.dumps(bill(), indent=2) + "\n")


if __name__ == "__main__":
    main()
