"""Make a :class:`~fcdcc.pipeline.model.network.Network` of an archive.

The passes, in order: read the graph as one sequence of steps; drop steps that do nothing in
inference; compute constants; replace steps that change their arguments; recognise convolutions;
drop steps whose results are not used; fold batch normalisation; cut into stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..errors import ModelError
from .budget import ImportBudget
from .image_analysis import analyse_images
from .network import Network, network_fingerprint
from .passes.constants import fold_constants
from .passes.convolution_stages import fold_batch_norms_into, recognise_convolutions
from .passes.cutting import cut, joined
from .passes.mutation import functional_steps
from .passes.simplification import in_plain_form, simplified
from .pt2.archive import Archive, as_model_errors
from .pt2.program import Program, read_program
from .rewriting import Item, inputs_of, live_items
from .symbolic_shapes import check_recorded

_REAL = (torch.float32, torch.float64)


def import_network(archive: Archive, source: str, *, fold: bool = True) -> Network:
    """Return the network in an archive.

    Parameters
    ----------
    archive
        See :func:`fcdcc.pipeline.model.pt2.archive.read_archive`.
    source
        The name of the model in messages.
    fold
        Whether to fold batch normalisation into convolutions.

    Raises
    ------
    ModelError
        If the pipeline cannot run the model; the message says why.
    """
    budget = ImportBudget()
    program = read_program(archive, source, budget)
    network: Network = as_model_errors(source, _network, program, fold, budget)
    return network


def _network(program: Program, fold: bool, budget: ImportBudget) -> Network:
    images = program.metas[program.input]
    if images.dtype not in _REAL:
        raise ModelError(
            f"the model takes images of the type {images.dtype}; expected float32 or float64: "
            "convert it with model.float() before the export"
        )
    if len(images.sizes) < 2:
        raise ModelError(
            f"the model takes an input of shape {images.sizes}; expected (batch, C, *space)"
        )
    steps, output = simplified(program.steps, program.output, program.metas)
    steps, output, metas = functional_steps(steps, program.tensors, program.metas, output, budget)
    needed = live_items(steps, output)
    names = {step.name for step in needed}
    unused = [step for step in steps if step.name not in names]
    steps = in_plain_form(needed, metas)
    steps, tensors = fold_constants(
        live_items(steps, output), program.tensors, output, budget, unused
    )
    items = recognise_convolutions(steps, tensors, metas, program.modules, images.dtype)
    items = live_items(items, output)
    if fold:
        items, tensors, output = fold_batch_norms_into(items, tensors, output)
    shape = tuple(size if isinstance(size, int) else None for size in images.sizes)
    sizes = {name: meta.sizes for name, meta in metas.items()}
    network = _assembled(items, output, tensors, sizes, program.input, shape, images.dtype, budget)
    space = shape[1:]
    if all(size is not None for size in space):
        found = analyse_images(network, [size for size in space if size is not None])
        check_recorded(found.values, metas, program.input, shape[0])
    return network


def fold_batch_norms(network: Network) -> Network:
    """Return the network with batch normalisation folded into the convolutions.

    A normalisation by fixed statistics becomes part of the weight and bias of a convolution
    whose output nothing else reads. The new values are computed in float64 and rounded once.
    Other normalisations stay glue.
    """
    items, tensors, output = fold_batch_norms_into(
        joined(network.stages), network.tensors, network.output
    )
    described = (network.input, network.input_shape, network.input_dtype)
    return _assembled(items, output, tensors, network.sizes, *described, ImportBudget())


def _assembled(
    items: Sequence[Item],
    output: str,
    tensors: Mapping[str, torch.Tensor],
    sizes: Mapping[str, tuple[int | str, ...]],
    input_name: str,
    input_shape: tuple[int | None, ...],
    input_dtype: torch.dtype,
    budget: ImportBudget,
) -> Network:
    live = live_items(items, output)
    stages = cut(live, output, tensors, sizes, budget)
    read = dict.fromkeys(name for item in joined(stages) for name in inputs_of(item))
    used = {name: tensors[name].contiguous() for name in read if name in tensors}
    passed = [input_name, *(name for stage in stages for name in stage.outputs)]
    return Network(
        stages=stages,
        input=input_name,
        output=output,
        input_shape=input_shape,
        input_dtype=input_dtype,
        tensors=used,
        fingerprint=network_fingerprint(stages, input_name, output, used),
        sizes={name: sizes[name] for name in passed if name in sizes},
    )
