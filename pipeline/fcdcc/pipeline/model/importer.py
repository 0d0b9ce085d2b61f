"""Make a :class:`~fcdcc.pipeline.model.network.Network` of an archive.

The passes, in order: read the graph as one sequence of steps; drop steps that do nothing in
inference; compute constants; replace steps that change their arguments; recognise convolutions;
drop steps whose results are not used; fold batch normalisation; cut into stages. A network of a
fixed batch is then made one for any number of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from ..errors import ModelError, UnsafeModelError, one_line
from ..formatting import printable
from .budget import ImportBudget
from .exported_input import with_plain_input
from .fixed_batch import freed, looped, spread_by_images
from .image_analysis import analyse_images, example_space
from .network import ExportedInput, Network, Step, network_fingerprint
from .output_bundle import BUNDLE
from .outputs import bundled, chosen_outputs, names_in, per_image_outputs
from .passes.constants import fold_constants
from .passes.convolution_stages import fold_batch_norms_into, recognise_convolutions
from .passes.cutting import cut, joined
from .passes.mutation import functional_steps
from .passes.simplification import in_plain_form, simplified
from .pt2.archive import Archive, as_model_errors
from .pt2.fixed_inputs import InputValue
from .pt2.program import Program, read_program
from .rewriting import Item, inputs_of, live_items
from .symbolic_shapes import check_recorded

MAX_REASON = 400
"""Characters that say why an output is left out."""

_Made: TypeAlias = tuple[list[Item], dict[str, torch.Tensor], str]


def import_network(
    archive: Archive,
    source: str,
    *,
    fold: bool = True,
    inputs: Mapping[str, InputValue] | None = None,
) -> Network:
    """Return the network in an archive.

    Parameters
    ----------
    archive
        See :func:`fcdcc.pipeline.model.pt2.archive.read_archive`.
    source
        The name of the model in messages.
    fold
        Whether to fold batch normalisation into convolutions.
    inputs
        Values of numbers that the model takes beside the images, by name.

    Raises
    ------
    ModelError
        If the pipeline cannot run the model; the message says why.
    """
    budget = ImportBudget()
    program = read_program(archive, source, budget, inputs)
    network: Network = as_model_errors(source, _network, program, fold, budget)
    return network


def _network(program: Program, fold: bool, budget: ImportBudget) -> Network:
    program, exported = with_plain_input(program)
    network = _imported(program, fold, budget)
    return network if exported == ExportedInput() else replace(network, exported=exported)


def _imported(program: Program, fold: bool, budget: ImportBudget) -> Network:
    outputs, left_out = per_image_outputs(program)
    try:
        return _with_outputs(program, outputs, left_out, fold, budget)
    except UnsafeModelError:
        raise
    except ModelError:
        usable = dict(outputs)
        for name in outputs if len(outputs) > 1 else ():
            budget.take_steps(len(program.steps))
            try:
                _with_outputs(program, {name: outputs[name]}, {}, fold, budget)
            except UnsafeModelError:
                raise
            except ModelError as error:
                left_out[name] = printable(one_line(error))[:MAX_REASON]
                del usable[name]
        if len(usable) in (0, len(outputs)):
            raise
    return _with_outputs(program, usable, left_out, fold, budget)


def _with_outputs(
    program: Program,
    outputs: Mapping[str, str],
    left_out: Mapping[str, str],
    fold: bool,
    budget: ImportBudget,
) -> Network:
    """Return the network that computes some outputs of a program."""
    network = _computing(program, outputs, fold, budget)
    return replace(network, output_name=next(iter(outputs)), left_out=dict(left_out))


def _computing(
    program: Program, outputs: Mapping[str, str], fold: bool, budget: ImportBudget
) -> Network:
    images = program.metas[program.input]
    last, output = bundled(outputs, names_in(program.steps))
    steps, output = simplified((*program.steps, *last), output, program.metas)
    steps, output, metas = functional_steps(steps, program.tensors, program.metas, output, budget)
    needed = live_items(steps, output)
    names = {step.name for step in needed}
    unused = [step for step in steps if step.name not in names]
    steps = in_plain_form(needed, metas)

    def made(steps: Sequence[Step], budget: ImportBudget) -> _Made:
        steps, tensors = fold_constants(
            live_items(steps, output), program.tensors, output, budget, unused
        )
        items = recognise_convolutions(steps, tensors, metas, program.modules, images.dtype)
        items = live_items(items, output)
        return fold_batch_norms_into(items, tensors, output) if fold else (items, tensors, output)

    shape = tuple(size if isinstance(size, int) else None for size in images.sizes)
    sizes = {name: meta.sizes for name, meta in metas.items()}
    described = (program.input, shape, images.dtype)
    items, tensors, made_output = made(steps, budget)
    network = _assembled(items, made_output, tensors, sizes, *described, budget)
    space = _numbers(shape[1:])
    if space is not None:
        found = analyse_images(network, space)
        check_recorded(found.values, metas, program.input, shape[0])
    batch = shape[0]
    if batch is None:
        return network
    space = example_space(network) if space is None else space
    if space is None:
        return looped(network, "it takes images of many sizes, but only so many of them")
    spread = spread_by_images(steps, program.input, batch)
    reason = ""
    for given in (spread, steps) if len(spread) > len(steps) else (steps,):
        try:
            items, tensors, made_output = made(given, ImportBudget())
            free = freed(items, tensors, program.input, (batch, *space), images.dtype, sizes)
            described = (program.input, (None, *shape[1:]), images.dtype)
            network_of_any = _assembled(
                free.items, made_output, tensors, free.sizes, *described, ImportBudget()
            )
            found = analyse_images(network_of_any, space)
            if None not in shape[1:]:
                check_recorded(found.values, metas, program.input, batch)
        except ModelError as error:
            reason = reason or str(error).partition("; expected")[0]
        else:
            return network_of_any
    return looped(network, reason)


def _numbers(sizes: Sequence[int | None]) -> list[int] | None:
    """Return sizes that are all known; else None."""
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def with_outputs(network: Network, names: Sequence[str]) -> Network:
    """Return the network that computes some of its outputs, and nothing that only others need.

    Parameters
    ----------
    network
        The network.
    names
        Of its outputs, in any order; none means all of them.

    Raises
    ------
    OptionError
        If it has no such output.
    """
    outputs = chosen_outputs(network, names) if names else network.outputs
    if len(outputs) == len(network.outputs):
        return network
    items = [
        item
        for item in joined(network.stages)
        if not (isinstance(item, Step) and item.op == BUNDLE)
    ]
    last, output = bundled(outputs, names_in(items))
    fixed, shape = network.fixed_batch, network.input_shape
    if fixed is not None:
        shape = (fixed.images, *shape[1:])
    described = (network.input, shape, network.input_dtype)
    chosen = _assembled(
        [*items, *last], output, network.tensors, network.sizes, *described, ImportBudget()
    )
    if fixed is not None:
        chosen = looped(chosen, fixed.reason)
    return replace(
        chosen,
        output_name=next(iter(outputs)),
        left_out=network.left_out,
        exported=network.exported,
    )


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
    folded = _assembled(items, output, tensors, network.sizes, *described, ImportBudget())
    return replace(folded, output_name=network.output_name, left_out=network.left_out)


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
    if live and isinstance(live[-1], Step) and live[-1].op == BUNDLE:
        passed.extend(live[-1].references)
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
