"""Opening a model: from a path, an address or bytes to a network that can be planned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import fsspec
import torch

from fcdcc.storage.locations import is_local, normalise, scrubbed, shown
from fcdcc.storage.reachability import as_unreachable

from ..errors import ModelError, bad_values_refused, one_line
from ..formatting import counted
from .description import DESCRIPTION_RECORD, ModelDescription
from .exported_input import in_bfloat16
from .importer import import_network, with_outputs
from .network import ConvStage, Network, Stage, Step, network_fingerprint
from .outputs import main_output
from .pt2.archive import (
    MAX_MODEL_BYTES,
    archive_fingerprint,
    read_archive,
    read_archive_description,
)
from .pt2.fixed_inputs import InputValue, number_of
from .rewriting import convert


@dataclass(frozen=True, eq=False)
class Model:
    """A model that has been opened.

    Parameters
    ----------
    network
        What the model computes.
    fingerprint
        A hash of the file's graph and tensors; the same in every precision.
    source
        Its name in messages: the path or address that it was read from.
    description
        What the file says about the network beside its graph, such as how images are prepared;
        None if it says nothing.

    ``print`` shows its source and its network. Other processes receive it by pickle; they need
    neither the file nor ``torch.export``.

    Examples
    --------
    >>> model = open_model("model.pt2")
    >>> model
    <Model model.pt2: (n, 3, 16, 16) to (n, 10), 2 convolutions, 21,298 parameters>
    """

    network: Network
    fingerprint: str
    source: str
    description: ModelDescription | None = None

    def to(self, dtype: torch.dtype) -> Model:
        """Return the model in float32, float64 or bfloat16.

        Raises
        ------
        ModelError
            If ``dtype`` is another type.
        """
        return replace(self, network=in_precision(self.network, dtype))

    def with_outputs(self, names: Sequence[str] | None) -> Model:
        """Return the model with some of its outputs, by their names; None means all.

        Raises
        ------
        OptionError
            If it has no such output.
        """
        return replace(self, network=with_outputs(self.network, names or ()))

    def __str__(self) -> str:
        return f"{self.source}: {self.network}"

    def __repr__(self) -> str:
        name = self.source.rstrip("/").rpartition("/")[2]
        return f"<Model {name}: {', '.join(self._facts())}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a line for each fact."""
        from ..templates import render  # workers show nothing

        package = __name__.rpartition(".")[0]
        return render(package, "model.html", source=self.source, facts=self._facts())

    def _facts(self) -> list[str]:
        """Return in a few words what goes in, what comes out, and how large the network is."""
        network = self.network
        found = [_shape(network.input_shape)]
        known = {n: network.sizes.get(value) for n, value in network.outputs.items()}
        shapes = {name: _shape(sizes) for name, sizes in known.items() if sizes is not None}
        if len(shapes) == 1:
            found[0] += f" to {next(iter(shapes.values()))}"
        elif shapes:
            found[0] += f" to {', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
        found.append(counted(len(network.convolutions), "convolution"))
        parameters = sum(tensor.numel() for tensor in network.tensors.values())
        found.append(counted(parameters, "parameter"))
        said = "" if self.description is None else self.description.summary()
        return [*found, *([said] if said else [])]


def _shape(sizes: Sequence[object]) -> str:
    """Return a shape in words, of which the first number is that of the images.

    >>> _shape((None, 3, None, 32))
    '(n, 3, any, 32)'
    """
    rest = (str(size) if isinstance(size, int) else "any" for size in sizes[1:])
    first = str(sizes[0]) if isinstance(sizes[0], int) else "n"
    return f"({', '.join([first, *rest])})"


@bad_values_refused()
def open_model(
    source: str | PathLike[str] | bytes, *, inputs: Mapping[str, InputValue] | None = None
) -> Model:
    """Open a ``.pt2`` file that ``torch.export.save`` has written.

    Parameters
    ----------
    source
        A path, an address that fsspec understands, or the file's bytes.
    inputs
        Values of numbers that the model takes beside the images, by name. Other numbers are
        another model: its fingerprint is another, too.

    Raises
    ------
    ModelError
        If it cannot be read or cannot be run here.
    UnsafeModelError
        If loading all of it would run code from the file.

    Examples
    --------
    >>> model = open_model("model.pt2")
    >>> model.network.input_shape
    (None, 3, 16, 16)
    """
    file, name = _file(source)
    archive = read_archive(file, name)
    network = import_network(archive, name, inputs=inputs)
    if archive.description is not None:
        _check_description(archive.description, network, name)
    fingerprint = archive_fingerprint(archive)
    if inputs:
        fixed = "".join(f" {key}={number_of(inputs[key])!r}" for key in sorted(inputs))
        fingerprint = hashlib.sha256(f"{fingerprint}{fixed}".encode()).hexdigest()
    return Model(network, fingerprint, name, archive.description)


@bad_values_refused()
def open_description(source: str | PathLike[str] | bytes) -> ModelDescription | None:
    """Return what a ``.pt2`` file says about its network, without reading the network.

    Raises
    ------
    ModelError
        If the file cannot be read, or what it says cannot be used.
    """
    return read_archive_description(*_file(source))


def _file(source: str | PathLike[str] | bytes) -> tuple[bytes | Path, str]:
    """Return a local path or the contents of a file, and its name in messages."""
    if isinstance(source, bytes):
        return source, "the given file"
    name = shown(fspath(source))
    return _fetched(fspath(source), name), name


def _check_description(description: ModelDescription, network: Network, name: str) -> None:
    """Raise ModelError if a description contradicts the network, as far as that is known."""
    channels = description.preparation.channels
    expected = network.input_shape[1] if len(network.input_shape) > 2 else None
    if channels is not None and expected is not None and channels != expected:
        raise ModelError(
            f"{name}: its description ({DESCRIPTION_RECORD}) prepares images of {channels} "
            f"channels, and the network takes {expected}: export the model again with fcdcc export"
        )
    main = network.outputs[main_output(network.outputs)]
    names, sizes = description.class_names, network.sizes.get(main, ())
    classes = sizes[1] if len(sizes) > 1 else None
    if names is not None and isinstance(classes, int) and classes != len(names):
        raise ModelError(
            f"{name}: its description ({DESCRIPTION_RECORD}) names {len(names)} classes, and the "
            f"network predicts {classes}: export the model again with fcdcc export"
        )


def _fetched(source: str, name: str) -> bytes | Path:
    """Return a local path as it is, and the content of a remote file."""
    location = normalise(source)
    if is_local(location):
        return Path(location)
    try:
        files, path = fsspec.url_to_fs(location)
        size = files.info(path).get("size")
        if size is not None and size <= MAX_MODEL_BYTES:
            content: bytes = files.cat_file(path)
        else:  # a server may send without an end
            with files.open(path, "rb") as stream:
                content = stream.read(MAX_MODEL_BYTES + 1)
    except Exception as error:  # noqa: BLE001 - each kind of storage has errors of its own
        unreachable = as_unreachable(error, location)
        reason = scrubbed(one_line(error if unreachable is None else unreachable), location)
        # No other cause: its text may contain the address with its credentials.
        raise ModelError(f"{name} cannot be read: {reason}") from unreachable
    return content


_PRECISIONS = (torch.float32, torch.float64, torch.bfloat16)


def in_precision(network: Network, dtype: torch.dtype) -> Network:
    """Return a network that computes in float32, float64 or bfloat16.

    Tensors and casts of the network's own precision are changed. Casts to other types, which
    the model asks for explicitly, stay. In bfloat16 the network has no convolutions that can be
    coded, and takes and returns float32.

    Raises
    ------
    ModelError
        If ``dtype`` is another type.
    """
    if dtype not in _PRECISIONS:
        raise ModelError(
            f"a network in {dtype}; expected torch.float32, torch.float64 or torch.bfloat16"
        )
    if dtype == torch.bfloat16:
        return in_bfloat16(network)
    own = network.input_dtype
    if dtype == own:
        return network

    def converted(value: Any) -> Any:
        return dtype if value is own else value

    def stage_in_precision(stage: Stage) -> Stage:
        if isinstance(stage, ConvStage):
            return stage
        steps = tuple(
            Step(s.name, s.op, convert(s.args, converted), convert(s.kwargs, converted))
            for s in stage.steps
        )
        return replace(stage, steps=steps)

    stages = tuple(stage_in_precision(stage) for stage in network.stages)
    tensors = {
        name: tensor.to(dtype) if tensor.dtype == own else tensor
        for name, tensor in network.tensors.items()
    }
    return replace(
        network,
        stages=stages,
        tensors=tensors,
        input_dtype=dtype,
        fingerprint=network_fingerprint(stages, network.input, network.output, tensors),
    )
