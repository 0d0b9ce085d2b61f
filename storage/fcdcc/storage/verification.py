"""Verification: reads every stored file and compares it with the recorded checksums."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

from .checksummed_json import unseal
from .errors import DamageError, OutputError
from .files import MAX_RECORD_BYTES, Folder
from .foreign_files import is_foreign
from .journals import JOURNALS, damaged_journals
from .layout import BlockLayout
from .locations import normalise, shown
from .objects import open_folder
from .outputs import check_is_output
from .records import RECORDS, BlockRecord, Chunk, read_records
from .regular_files import NotRegularError
from .runs import CONTENTS, PRIVATE, RUN, StoredRun, copies, marker, read_contents, read_run

__all__ = ["Damage", "damaged_blocks", "find_foreign_files", "verify"]

_READING_THREADS = 4

T = TypeVar("T")

Kind = Literal["changed", "truncated", "missing", "record", "unrecorded"]


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with an output.

    Parameters
    ----------
    path
        The file, relative to the output.
    kind
        ``changed``: its bytes differ from what was written; ``truncated``: its size differs,
        too; ``missing``: it does not exist; ``record``: a record that cannot be read or belongs
        to another run; ``unrecorded``: data without a record.
    block
        The block that the file belongs to; None if it belongs to no block.
    detail
        A description for messages.
    """

    path: str
    kind: Kind
    block: int | None
    detail: str

    def __str__(self) -> str:
        where = "" if self.block is None else f" (block {self.block})"
        return f"{self.path}{where}: {self.detail}"


def verify(url: str | os.PathLike[str]) -> list[Damage]:
    """Read all files of an output and return what is damaged, sorted by path.

    Blocks that are not done yet are no damage. The caller should hold the output's lock: a block
    that is being written looks like data without a record.

    Raises
    ------
    OutputError
        If there is no output, or its files cannot be read.
    """
    folder = open_folder(normalise(url))
    check_is_output(folder)
    try:
        return _verified(folder)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{shown(folder.location)} cannot be read: {error.strerror or error}"
        ) from error


def _verified(folder: Folder) -> list[Damage]:
    found = [*_check_copies(folder)]
    run, contents = _whole(read_run, folder), _whole(read_contents, folder)
    records: dict[int, BlockRecord] = {}
    for name, record in read_records(folder):
        if isinstance(record, BlockRecord):
            records[record.block] = record
        else:
            found.append(Damage(name, "record", _block_of(name), f"the record: {record}"))
    expected: dict[str, tuple[int | None, Chunk]] = {}
    for block, record in records.items():
        expected |= {name: (block, chunk) for name, chunk in record.chunks.items()}
    if contents is not None:
        expected |= {name: (None, chunk) for name, chunk in contents.files.items()}
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        results = pool.map(lambda item: _check(folder, item[0], *item[1]), expected.items())
        found += [damage for damage in results if damage is not None]
    if run is not None:
        layout = None if contents is None else run.layout(contents.images)
        found += _strangers(folder, run, layout, records)
    if contents is None:
        found += _unvouched(folder, run)
    found += [
        Damage(name, "changed", None, f"the journal of a run: {reason}")
        for name, reason in damaged_journals(folder).items()
    ]
    return sorted(found, key=lambda damage: (damage.path, damage.kind))


def find_foreign_files(url: str | os.PathLike[str]) -> list[str]:
    """Return the files and folders in an output that are no part of it, sorted.

    Operating systems and other programs leave such files. They are no damage: nothing reads them.

    Raises
    ------
    OutputError
        If there is no output, or it cannot be read.
    """
    folder = open_folder(normalise(url))
    check_is_output(folder)
    run, contents = _whole(read_run, folder), _whole(read_contents, folder)
    found = [
        n for part in (PRIVATE, RECORDS, JOURNALS) for n in folder.sizes(part) if is_foreign(n)
    ]
    if run is None or contents is None:
        return sorted(found)
    arrays = {array.name for array in run.arrays}
    others = {name.partition("/")[0] for name in contents.files} - arrays
    found += sorted({*(folder.entries() or ())} - arrays - others - {PRIVATE})
    for array in run.arrays:
        known = f"{array.name}/zarr.json"
        names = folder.sizes(array.name)
        found += [n for n in names if n != known and array.block_of(n, run.batch) is None]
    for name in others - {"zarr.json"}:
        found += folder.sizes(name).keys() - contents.files.keys()
    return sorted(found)


def damaged_blocks(found: Iterable[Damage]) -> list[int]:
    """Return the blocks that have to be computed again because of damage, ascending."""
    return sorted({damage.block for damage in found if damage.block is not None})


def _whole(read: Callable[[Folder], T], folder: Folder) -> T | None:
    """Return the contents of a file, None if all copies are damaged."""
    try:
        return read(folder)
    except DamageError:
        return None


def _check(folder: Folder, name: str, block: int | None, wanted: Chunk) -> Damage | None:
    try:
        data = folder.read(name, max(wanted.size, 0))
    except FileNotFoundError:
        what = "a record says that it was written" if block is not None else "the output needs it"
        return Damage(name, "missing", block, f"the file is missing, and {what}")
    except NotRegularError as error:
        what = f"{error.strerror}, and was written with {wanted.size} bytes"
        return Damage(name, "truncated", block, what)
    if len(data) != wanted.size:
        return Damage(
            name, "truncated", block, f"it has {len(data)} bytes and was written with {wanted.size}"
        )
    if Chunk.of(data) != wanted:
        return Damage(name, "changed", block, "its bytes are not the ones that were written")
    return None


def _check_copies(folder: Folder) -> Iterator[Damage]:
    for name in (*copies(RUN), *copies(CONTENTS)):
        try:
            data = folder.read(name, MAX_RECORD_BYTES)
            if not data.endswith(b"\n"):
                yield Damage(name, "truncated", None, "it is cut off")
            else:
                unseal(data[:-1])
        except FileNotFoundError:
            yield Damage(name, "missing", None, "the file is missing")
        except NotRegularError as error:
            yield Damage(name, "changed", None, str(error.strerror))
        except DamageError as error:
            yield Damage(name, "changed", None, str(error))


def _block_of(name: str) -> int | None:
    stem = name.removeprefix(f"{RECORDS}/").removesuffix(".json")
    return int(stem) if stem.isdecimal() else None


def _unvouched(folder: Folder, run: StoredRun | None) -> Iterator[Damage]:
    """Yield the files whose checksums are lost with ``contents.json``; a run writes them again."""
    ours = {array.name for array in run.arrays} if run is not None else set()
    for entry in folder.entries() or ():
        if is_foreign(entry):
            continue
        for name in ("zarr.json",) if entry == "zarr.json" else sorted(folder.sizes(entry)):
            if (entry not in ours or name.endswith("/zarr.json")) and not is_foreign(name):
                reason = f"its checksum is lost, since {CONTENTS} is damaged"
                yield Damage(name, "changed", None, reason)


def _strangers(
    folder: Folder, run: StoredRun, layout: BlockLayout | None, records: dict[int, BlockRecord]
) -> Iterator[Damage]:
    """Yield records of other runs, chunks without a record, and a missing marker of the output.

    Without a layout, the number of blocks is not checked.
    """
    digest = run.fingerprint.digest
    for block, record in records.items():
        if record.fingerprint != digest:
            yield Damage(
                f"{RECORDS}/{block:08d}.json", "record", block, "the record is of another run"
            )
        elif layout is not None and block >= layout.blocks:
            yield Damage(
                f"{RECORDS}/{block:08d}.json", "record", block,
                f"the record is of a block that does not exist: the last is {layout.blocks - 1}",
            )  # fmt: skip
    known = {name for record in records.values() for name in record.chunks}
    for array in run.arrays:
        for name in sorted(folder.sizes(array.name).keys() - known - {f"{array.name}/zarr.json"}):
            owner = array.block_of(name, run.batch)
            if owner is None:
                continue  # no chunk by its name
            if owner in records:
                continue  # left by a failed attempt, which has a record
            yield Damage(name, "unrecorded", owner, "data without a record")
    if folder.size(marker(run.output)) is None:
        yield Damage(marker(run.output), "missing", None, "the marker of the output is missing")
