"""Which of the outputs of a program its network has, and the choice of some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import ModelError, OptionError
from .network import Network, Ref, Step
from .output_bundle import BUNDLE
from .pt2.program import Program
from .rewriting import Item, NameSource, inputs_of, output_of

MAIN_OUTPUTS = ("logits", "out", "prediction", "last_hidden_state")
"""Names of main outputs of networks with several, the most usual first."""

MAX_OUTPUTS = 256
"""Most outputs of a program: each is an array of its own."""

AUXILIARY = "aux"
"""How the names of auxiliary heads begin, which only training needs."""


def main_output(names: Iterable[str]) -> str:
    """Return the name of the main output: one of the usual names, or else the first.

    >>> main_output(["features", "logits"]), main_output(["output_0", "output_1"])
    ('logits', 'output_0')
    """
    found = list(names)
    return next((name for name in MAIN_OUTPUTS if name in found), found[0])


def per_image_outputs(program: Program) -> tuple[dict[str, str], dict[str, str]]:
    """Return the outputs of a program that have an entry for each image, and why others do not.

    Raises
    ------
    ModelError
        If there is none.
    """
    if len(program.outputs) > MAX_OUTPUTS:
        raise ModelError(
            f"the model returns {len(program.outputs)} tensors; expected at most {MAX_OUTPUTS}: "
            "return fewer from forward"
        )
    if len(program.outputs) == 1:  # the analysis of the images says what is wrong with it
        return dict(program.outputs), dict(program.left_out)
    depending = _depending_on_images(program)
    images = program.metas[program.input].sizes[0]
    outputs: dict[str, str] = {}
    left_out = dict(program.left_out)
    for name, value in program.outputs.items():
        meta = program.metas.get(value)
        if value not in depending:
            left_out[name] = "it does not depend on the images"
        elif meta is not None and meta.sizes[:1] != (images,):
            left_out[name] = "its first axis is not that of the images"
        else:
            outputs[name] = value
    if not outputs:
        raise ModelError(
            f"no output has one entry for each image along the first axis ({_listed(left_out)}); "
            "expected one that has: return the prediction from forward"
        )
    return outputs, left_out


def _depending_on_images(program: Program) -> set[str]:
    """Return the values that are computed from the images, or from how many there are."""
    found = {program.input}
    for step in program.steps:
        if not found.isdisjoint(step.references):
            found.add(step.name)
    return found


def bundled(outputs: Mapping[str, str], taken: Iterable[str]) -> tuple[list[Step], str]:
    """Return the step that makes one value of several outputs, and the name of that value.

    There is no step for one output.

    Parameters
    ----------
    outputs
        The values by the names of the outputs.
    taken
        Names that values have already.
    """
    if len(outputs) == 1:
        return [], next(iter(outputs.values()))
    own = NameSource(taken).fresh("outputs")
    values = tuple(Ref(value) for value in outputs.values())
    return [Step(own, BUNDLE, values, {"names": list(outputs)})], own


def names_in(items: Iterable[Item]) -> Iterator[str]:
    """Yield the names of values that items read and make."""
    for item in items:
        yield output_of(item)
        yield from inputs_of(item)


def chosen_outputs(network: Network, names: Sequence[str]) -> dict[str, str]:
    """Return the values of some outputs of a network by their names, in the network's order.

    Raises
    ------
    OptionError
        If the network has no such output.
    """
    for name in names:
        if name in network.outputs:
            continue
        reason = network.left_out.get(name)
        expected = f"expected {' or '.join(network.outputs)}"
        if reason is not None:
            raise OptionError(f"--output {name} cannot be predicted: {reason}; {expected}")
        raise OptionError(f"--output {name!r:.80}: the network has no such output; {expected}")
    return {name: value for name, value in network.outputs.items() if name in names}


def _listed(left_out: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {reason}" for name, reason in left_out.items())
