"""Reads a ``.pt2`` file without running anything that is in it.

``torch.export.save`` writes a zip: the graph as JSON (``models/model.json``), the weights
and constants as raw bytes with a JSON table of their types and shapes, example inputs as a
pickle, and possibly pickled objects and compiled libraries. ``torch.export.load`` unpickles,
loads libraries and evaluates text from the JSON as expressions, so a file from elsewhere
can run any command in it.

Here a file is only *parsed*: JSON, and bytes that become tensors. The example inputs are
ignored, and everything that could only be read by running code is refused by name. The
result, an :class:`Archive`, holds numbers, names and tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch

from fcdcc.storage.regular_files import NotRegularError, open_regular

from ...errors import EXPECTED_MODEL, ModelError, UnsafeModelError, one_line
from ..description import (
    DESCRIPTION_RECORD,
    MAX_DESCRIPTION_BYTES,
    ModelDescription,
    read_description,
)
from ..tensor_pickle import hash_tensors
from .checks import check_program

# Decoded JSON. Any, because each access would need a cast otherwise; everything that is
# read from it goes through a check or a conversion whose error names the field.
Json: TypeAlias = Any

MAX_MODEL_BYTES = 1 << 35
"""Largest model file that is read."""

_SCHEMA_MAJOR = 8
_MAX_JSON_BYTES = 1 << 28
_READ_BYTES = 1 << 22
_ZIP_HEADER_BYTES = 30
# A tensor whose elements share memory (an expanded one) may have more bytes than its record.
_MAX_EXPANDED_BYTES = 1 << 28

# torch._export.serde.schema.ScalarType
SCALAR_TYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    34: torch.uint32,
    35: torch.uint64,
}
# torch._export.serde.schema.Layout
_STRIDED = 7


# What reading a field that is missing, or of an unexpected type, raises.
_FIELD_ERRORS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    OverflowError,
)

# Fields of a model's JSON that do not change what it computes.
_NOTE_FIELDS = frozenset(
    {"metadata", "hint", "requires_grad", "device", "is_hop_single_tensor_return"}
)

# What zipfile raises for a file that is not a zip file, or whose directory is damaged.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    UnicodeError,
    NotImplementedError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class Archive:
    """The contents of a ``.pt2`` file; none of it can run.

    Parameters
    ----------
    program
        ``models/model.json``, decoded; operators and expressions are checked.
    tensors
        Parameters, buffers and constants by their name in the model, on the CPU.
    description
        What the file says about the network beside its graph; None if it says nothing.
    """

    program: Json
    tensors: Mapping[str, torch.Tensor]
    description: ModelDescription | None = None


def read_archive(file: bytes | Path, source: str) -> Archive:
    """Read a ``.pt2`` file.

    Parameters
    ----------
    file
        The file's bytes, or where it is.
    source
        What to call it in messages.

    Raises
    ------
    ModelError
        If it cannot be read or is not a file of ``torch.export.save``.
    UnsafeModelError
        If reading it whole would run what is in it.
    """
    with _opened(file, source) as reader:
        read: Archive = as_model_errors(source, reader.read)
        return read


def read_archive_description(file: bytes | Path, source: str) -> ModelDescription | None:
    """Return what a ``.pt2`` file says about its network; its graph and tensors are not read.

    Raises
    ------
    ModelError
        As :func:`read_archive`.
    """
    with _opened(file, source) as reader:
        read: ModelDescription | None = as_model_errors(source, reader.read_description)
        return read


@contextlib.contextmanager
def _opened(file: bytes | Path, source: str) -> Iterator[_Reader]:
    """Open a file; errors of the zip archive and of the file system become ModelErrors."""
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else open_regular(file) as stream:
            _check_size(stream, source)
            with zipfile.ZipFile(stream) as archive:
                yield _Reader(archive, source)
    except FileNotFoundError as error:
        raise ModelError(f"{source}: no such file; {EXPECTED_MODEL}") from error
    except NotRegularError as error:
        raise ModelError(f"{source} cannot be read: {error.strerror}; {EXPECTED_MODEL}") from error
    except _ZIP_ERRORS as error:
        raise ModelError(
            f"{source} is not a .pt2 file ({one_line(error)}); {EXPECTED_MODEL}"
        ) from error
    except (OSError, EOFError) as error:
        raise ModelError(f"{source} cannot be read: {one_line(error)}") from error


def _check_size(stream: BinaryIO, source: str) -> None:
    """Refuse a file that is larger than any model."""
    size = stream.seek(0, io.SEEK_END)
    if size > MAX_MODEL_BYTES:
        raise ModelError(
            f"{source} has {size} bytes; expected a model of at most {MAX_MODEL_BYTES} bytes"
        )


class _Reader:
    """One open file: the records in it, by their name without the leading folder."""

    def __init__(self, archive: zipfile.ZipFile, source: str) -> None:
        self.archive = archive
        self.source = source
        infos = archive.infolist()
        root = infos[0].filename.split("/")[0] if infos else ""
        self.records: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            folder, _, name = info.filename.partition("/")
            if folder != root or not name:
                raise self._foreign()
            if name in self.records:
                raise UnsafeModelError(
                    f"{source} holds the record {name!r} twice; {EXPECTED_MODEL}"
                )
            self.records[name] = info

    def read(self) -> Archive:
        self._check_layout()
        self._check_sizes()
        program = self._json("models/model.json")
        check_program(program)
        version = program["schema_version"]["major"]
        if version != _SCHEMA_MAJOR:
            raise ModelError(
                f"{self.source} has version {version!r:.100} of the export format; expected "
                f"{_SCHEMA_MAJOR}: export the model again with PyTorch {torch.__version__}"
            )
        tensors = {
            **self._tensors("data/weights/", "model_weights_config.json"),
            **self._tensors("data/constants/", "model_constants_config.json"),
        }
        return Archive(program, tensors, self._description())

    def read_description(self) -> ModelDescription | None:
        self._check_layout()
        self._check_sizes()
        return self._description()

    def _description(self) -> ModelDescription | None:
        if DESCRIPTION_RECORD not in self.records:
            return None
        if self.records[DESCRIPTION_RECORD].file_size > MAX_DESCRIPTION_BYTES:
            raise UnsafeModelError(
                f"{self.source}: the record {DESCRIPTION_RECORD!r} has "
                f"{self.records[DESCRIPTION_RECORD].file_size} bytes; expected at most "
                f"{MAX_DESCRIPTION_BYTES}"
            )
        return read_description(self._bytes(DESCRIPTION_RECORD), self.source)

    def _check_layout(self) -> None:
        names = self.records
        if "archive_format" not in names or self._text("archive_format") != "pt2":
            raise self._foreign()
        models = [name for name in names if name.startswith("models/")]
        if models != ["models/model.json"]:
            found = ", ".join(models) or "none"
            raise ModelError(f"{self.source} holds these models: {found}; {EXPECTED_MODEL}")
        if any(name.startswith("data/aotinductor/") for name in names):
            raise UnsafeModelError(
                f"{self.source} holds compiled code (data/aotinductor), which would run when "
                f"loaded; {EXPECTED_MODEL}"
            )
        for legacy in ("data/weights/model.pt", "data/constants/model.pt"):
            if legacy in names:
                raise UnsafeModelError(
                    f"{self.source} holds its tensors as a pickle ({legacy}), as PyTorch before "
                    "2.9 wrote them; export the model again with a newer one"
                )
        if "byteorder" in names and self._text("byteorder") != sys.byteorder:
            raise ModelError(
                f"{self.source} was written on a machine of the other byte order; expected "
                f"{sys.byteorder}: export the model again on a machine like this one"
            )

    def _check_sizes(self) -> None:
        """Refuse records that would unpack to more bytes than they have in the file."""
        for name, info in self.records.items():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise UnsafeModelError(
                    f"{self.source}: the record {name!r} is compressed; {EXPECTED_MODEL}, which "
                    "stores records as they are"
                )
        infos = sorted(self.records.values(), key=lambda info: info.header_offset)
        starts = [info.header_offset for info in infos[1:]] + [self.archive.start_dir]
        for info, following in zip(infos, starts, strict=True):
            if info.header_offset + _ZIP_HEADER_BYTES + info.file_size > following:
                raise UnsafeModelError(f"{self.source}: records overlap; {EXPECTED_MODEL}")

    def _foreign(self) -> ModelError:
        names = [info.filename for info in self.archive.infolist()]
        if "serialized_exported_program.json" in names:
            kind = "was written by torch.export.save of PyTorch before 2.8"
        elif any(name.endswith("/constants.pkl") for name in names):
            kind = "is a TorchScript file, which is a pickle"
        elif any(name.endswith("/data.pkl") for name in names):
            kind = "is a file of torch.save, which is a pickle"
        else:
            kind = "is a zip file of another kind"
        return ModelError(
            f"{self.source} {kind}; {EXPECTED_MODEL}: "
            "torch.export.save(torch.export.export(model.eval(), (images,)), 'model.pt2')"
        )

    def _bytes(self, name: str) -> bytes:
        if name not in self.records:
            raise ModelError(f"{self.source} has no record {name!r}; {EXPECTED_MODEL}")
        return self.archive.read(self.records[name])

    def _text(self, name: str) -> str:
        return self._bytes(name)[:64].decode("ascii", errors="replace").strip()

    def _json(self, name: str) -> Json:
        if name in self.records and self.records[name].file_size > _MAX_JSON_BYTES:
            raise UnsafeModelError(
                f"{self.source}: the record {name!r} has {self.records[name].file_size} bytes; "
                f"expected at most {_MAX_JSON_BYTES}"
            )
        try:
            return json.loads(self._bytes(name))
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"{self.source}: the record {name!r} is damaged: {one_line(error)}"
            ) from error

    def _tensors(self, folder: str, table: str) -> dict[str, torch.Tensor]:
        config = self._json(folder + table)
        return dict(self._load_tensors(folder, config))

    def _load_tensors(self, folder: str, config: Json) -> Iterable[tuple[str, torch.Tensor]]:
        memory: dict[str, torch.Tensor] = {}
        loaded = []
        for name, entry in config["config"].items():
            path = str(entry["path_name"])
            if entry["use_pickle"] or not path.startswith(("weight_", "tensor_")):
                raise UnsafeModelError(
                    f"{self.source}: {name!r} is stored as a pickle ({folder}{path}), which would "
                    "run code when loaded; expected plain tensors: no tensor subclasses and no "
                    "custom objects in the model"
                )
            record = folder + path
            if record not in memory:
                memory[record] = self._raw(record)
            loaded.append((name, _as_tensor(memory[record], entry["tensor_meta"], name)))
        return loaded

    def _raw(self, record: str) -> torch.Tensor:
        if record not in self.records:
            raise ModelError(f"{self.source} has no record {record!r}; {EXPECTED_MODEL}")
        raw = torch.empty(self.records[record].file_size, dtype=torch.uint8)
        target = raw.numpy().data
        with self.archive.open(self.records[record]) as stream:
            for start in range(0, len(target), _READ_BYTES):
                part = stream.read(min(_READ_BYTES, len(target) - start))
                target[start : start + len(part)] = part
        return raw


def _as_tensor(raw: torch.Tensor, meta: Json, name: str) -> torch.Tensor:
    """Return the tensor that a table entry describes over its record's bytes."""
    if meta["layout"] != _STRIDED or meta["dtype"] not in SCALAR_TYPES:
        raise ModelError(
            f"the tensor {name!r} is sparse, quantised or of an unknown type; expected plain "
            "tensors of numbers"
        )
    dtype = SCALAR_TYPES[meta["dtype"]]
    sizes = [_extent(size) for size in meta["sizes"]]
    strides = [_extent(stride) for stride in meta["strides"]]
    offset = _extent(meta["storage_offset"])
    if len(sizes) != len(strides):
        raise ModelError(f"the tensor {name!r} has {len(sizes)} sizes and {len(strides)} strides")
    count = 1
    for size in sizes:
        count *= size
    if not count:
        return torch.empty(sizes, dtype=dtype) if max(sizes) < 1 << 31 else _too_large(name, sizes)
    reach = offset + 1 + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if reach * dtype.itemsize > raw.numel():
        raise ModelError(
            f"the tensor {name!r} of shape {tuple(sizes)} needs {reach * dtype.itemsize} bytes and "
            f"the file has {raw.numel()} for it: it is damaged, or was exported without weights"
        )
    if count * dtype.itemsize > max(_MAX_EXPANDED_BYTES, raw.numel()):
        return _too_large(name, sizes)
    whole = raw[: raw.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
    return torch.as_strided(whole, sizes, strides, offset)


def _too_large(name: str, sizes: list[int]) -> torch.Tensor:
    raise UnsafeModelError(
        f"the tensor {name!r} has the shape {tuple(sizes)}; expected one that fits its record"
    )


def archive_fingerprint(archive: Archive) -> str:
    """Return the SHA-256, in hexadecimal, of a model file's graph, signature and tensors.

    It stays the same when the same model is exported again, and when a later version of this
    project imports models differently: source locations, example sizes and versions are left
    out.
    """
    graph = archive.program["graph_module"]
    hashed = {name: _without_notes(graph[name]) for name in ("graph", "signature")}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode())
    hash_tensors(digest, archive.tensors)
    return digest.hexdigest()


def _without_notes(value: Json) -> Json:
    if isinstance(value, dict):
        return {k: _without_notes(inner) for k, inner in value.items() if k not in _NOTE_FIELDS}
    if isinstance(value, list):
        return [_without_notes(inner) for inner in value]
    return value


def _extent(size: Json) -> int:
    value = size["as_int"]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"a size or stride is {value!r}")
    return value


def as_model_errors(source: str, function: Any, *arguments: Any) -> Any:
    """Call a function on decoded JSON; a missing or malformed field becomes a ModelError."""
    try:
        return function(*arguments)
    except ModelError as error:
        message = " ".join(str(error).split())  # names in a file may have line breaks
        if not message.startswith(source):
            message = f"{source}: {message}"
        elif message == str(error):
            raise
        raise type(error)(message) from error
    except _FIELD_ERRORS as error:
        raise ModelError(
            f"{source} is damaged or of an unknown version: {type(error).__name__} "
            f"{one_line(error):.200}; "
            f"{EXPECTED_MODEL}"
        ) from error
