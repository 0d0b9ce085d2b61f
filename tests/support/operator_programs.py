"""Random calls of all operators of the list, right ones and wrong ones.

A call is made from a sample by changing shapes, axes, numbers and types of some arguments. Where
the rule of the operator accepts it, the operator must run, give a result of the shape and type
that the rule says, and treat images one by one.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any

import torch
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model.image_analysis import analyse_images
from fcdcc.pipeline.model.image_rules import RULES
from fcdcc.pipeline.model.image_rules.element_types import check_kinds, check_types
from fcdcc.pipeline.model.image_rules.facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    OperatorCall,
)
from fcdcc.pipeline.model.interpreter import run_network
from fcdcc.pipeline.model.network import Network, Step
from fcdcc.pipeline.model.operator_list import CALLED
from fcdcc.pipeline.model.operators import argument_kinds, bound_arguments, resolve
from support.model_nodes import node, number, value, with_nodes
from support.operator_samples import (
    BOOL,
    COUNT,
    F32,
    F64,
    INT,
    Constant,
    Images,
    Sample,
    known,
    sample,
)
from support.pt2 import pt2

OPERATORS = sorted(CALLED)
MAX_ELEMENTS = 1 << 16
TYPES = (F32, F32, F32, F64, INT, BOOL, torch.float16, torch.complex64, torch.uint8, torch.int32)
NUMBERS = (-3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 64, 2**31, 2**63 - 1, 0.5, -1.5, True, None, COUNT, "x")


def facts_of(call: Sample) -> Any:
    """Return what the rule says about the result of a call.

    Raises
    ------
    ArgumentsError, NotPerImageError
        If it refuses the call.
    """
    kwargs = {name: known(value) for name, value in call.kwargs.items()}
    step = Step("y", f"aten.{call.op}", tuple(map(known, call.args)), kwargs)
    packet, _, overload = call.op.partition(".")
    checked = OperatorCall(packet, overload, bound_arguments(step))
    check_kinds(checked, argument_kinds(step.op))
    check_types(checked)
    return RULES[packet](checked)


def run(call: Sample, images: Any) -> Any:
    """OperatorCall the operator."""
    args, kwargs = call.arguments(images)
    with torch.no_grad():
        return resolve(f"aten.{call.op}")(*args, **kwargs)


def each_image(value: torch.Tensor, facts: Facts, images: int) -> list[torch.Tensor]:
    """Return the part of each image in a value."""
    if facts.axis is None:
        return [value] * images
    parts = value.unflatten(facts.axis, (facts.outer, images, facts.inner))
    return list(parts.unbind(facts.axis + 1))


def as_list(value: Any) -> list[Any]:
    """Return several results as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_result(call: Sample, facts: Any) -> None:
    """Check that a call does what its rule says, image by image."""
    images, shuffled, padded = (0, 1, 2), (2, 0, 1), (0, 1, 2, 9, 8)
    whole = as_list(run(call, images))
    each = as_list(facts)
    assert len(whole) == len(each), (call, facts)
    for result, fact in zip(whole, each, strict=True):
        if isinstance(result, torch.Tensor):
            sizes = [n * 3 if a == fact.axis else n for a, n in enumerate(fact.sizes)]
            assert list(result.shape) == sizes, (call, fact, result.shape)
            assert result.dtype == fact.dtype, (call, fact, result.dtype)
        elif isinstance(fact, BatchSize):
            assert fact.factor is None or result == 3 * fact.factor, (call, fact, result)
    if not all(isinstance(result, torch.Tensor) for result in whole):
        return
    others = [as_list(run(call, batch)) for batch in (shuffled, padded, (0,))]
    for place, fact in enumerate(each):
        parts = each_image(whole[place], fact, 3)
        again = each_image(others[0][place], fact, 3)
        longer = each_image(others[1][place], fact, 5)
        (alone,) = each_image(others[2][place], fact, 1)
        close(alone, parts[0], call)
        for image, part in enumerate(parts):
            close(again[shuffled.index(image)], part, call)
            close(longer[image], part, call)


def close(one: torch.Tensor, other: torch.Tensor, call: Sample) -> None:
    """Compare two values up to rounding."""
    loose = one.dtype in (torch.float16, torch.bfloat16)
    exact = not (one.dtype.is_floating_point or one.dtype.is_complex)
    rtol, atol = (0, 0) if exact else (2e-2, 2e-2) if loose else (1e-3, 1e-4)
    torch.testing.assert_close(
        one, other, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{call}: {text}"
    )


def changed(call: Sample, draw: random.Random) -> Sample:
    """Return a call with one to three of its arguments changed."""
    args, kwargs = list(call.args), dict(call.kwargs)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        place = draw.randrange(len(args) + len(kwargs)) if args or kwargs else 0
        if place < len(args):
            args[place] = _changed(args[place], draw)
        elif kwargs:
            name = list(kwargs)[place - len(args)]
            kwargs[name] = _changed(kwargs[name], draw)
    return Sample(call.op, tuple(args), kwargs)


def _changed(value: Any, draw: random.Random) -> Any:
    if isinstance(value, (Images, Constant)):
        return _changed_tensor(value, draw)
    if isinstance(value, list) and value:
        items = list(value)
        place = draw.randrange(len(items))
        action = draw.choice(("change", "change", "drop", "double"))
        if action == "change":
            items[place] = _changed(items[place], draw)
        elif action == "drop":
            items.pop(place)
        else:
            items.insert(place, items[place])
        return items
    if isinstance(value, bool):
        return not value
    return draw.choice(NUMBERS)


def _changed_tensor(value: Images | Constant, draw: random.Random) -> Images | Constant:
    shape = list(value.shape)
    action = draw.choice(("size", "size", "drop", "add", "axis", "type", "kind", "below"))
    if action == "size" and shape:
        shape[draw.randrange(len(shape))] = draw.choice((0, 1, 2, 3, 5, 6))
    elif action == "drop" and shape:
        shape.pop(draw.randrange(len(shape)))
    elif action == "add":
        shape.insert(draw.randrange(len(shape) + 1), draw.choice((1, 2, 3)))
    elif action == "type":
        return replace(value, dtype=draw.choice(TYPES))
    elif action == "below":
        return replace(value, below=draw.choice((1, 2, 5, 20)))
    elif action == "kind":
        other = Constant if isinstance(value, Images) else Images
        return other(tuple(shape), value.dtype, below=value.below)
    if isinstance(value, Images):
        axis = draw.randrange(len(shape) + 1) if action == "axis" else min(value.axis, len(shape))
        return replace(value, shape=tuple(shape), axis=axis)
    return replace(value, shape=tuple(shape))


def small_enough(facts: Any) -> bool:
    """Return whether a result is small enough to be computed in a test."""
    return all(not isinstance(f, Facts) or f.elements <= MAX_ELEMENTS for f in as_list(facts))


def random_call(seed: int, op: str | None = None) -> Sample:
    """Return a random call of an operator, of any operator if none is given."""
    draw = random.Random(seed)
    return changed(sample(op or draw.choice(OPERATORS)), draw)


def accepted(call: Sample) -> Any:
    """Return what the rule says about a call; None if it refuses it."""
    try:
        return facts_of(call)
    except (ArgumentsError, NotPerImageError):
        return None


SHAPE = (3, 8, 8)


@cache
def base_model() -> bytes:
    """Return a model file with a convolution, to whose result programs are added."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 2, 3), nn.Flatten())
    return pt2(nn.Sequential(*layers).eval(), (2, *SHAPE))


def random_model(seed: int) -> bytes:
    """Return a model file that uses one to three operators of the list, rightly or wrongly."""
    draw = random.Random(seed)
    program = _Program()
    for place in range(draw.choice((1, 1, 2, 3))):
        call = sample(draw.choice(OPERATORS))
        program.add(f"c{place}", changed(call, draw) if draw.random() < 0.7 else call)
    return program.file()


class _Program:
    """Nodes that read the result of the first convolution, and change it."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.last = "sigmoid"
        self.nodes = [
            node("aten.sym_size.int", "n", value(self.last), 0, makes=[number("n")]),
            node("aten.flatten.using_ints", "flat", value(self.last), 1),
        ]

    def add(self, name: str, call: Sample) -> None:
        """Add a call, and its result to the values of each image."""
        args = [self._argument(f"{name}a{i}", a) for i, a in enumerate(call.args)]
        kwargs = {key: self._argument(f"{name}{key}", v) for key, v in call.kwargs.items()}
        facts = accepted(call)
        results = as_list(facts)
        if not results:  # an axis without elements, split into no tensors
            return
        names = [f"{name}r{i}" for i in range(len(results))]
        if facts is not None and not isinstance(results[0], Facts):
            makes = [number(names[0])]
        elif isinstance(facts, list) and len({f.sizes for f in facts}) == 1 and len(facts) > 3:
            makes = [{"as_tensors": [{"name": own} for own in names]}]
        else:
            makes = [value(own) for own in names]
        self.nodes.append(node(f"aten.{call.op}", names[0], *args, makes=makes, **kwargs))
        if facts is None or not isinstance(results[0], Facts):
            if facts is None:
                self._join(f"{name}s", value(names[0]), None)
            return
        self._join(f"{name}s", value(names[0]), results[0])

    def _join(self, name: str, result: Any, facts: Facts | None) -> None:
        """Add a result to the values that go on, summed for each image."""
        self.nodes.append(node("aten.to.dtype", f"{name}0", result, F32))
        axes = [a for a in range(facts.ndim) if a != facts.axis] if facts is not None else [0]
        if axes:
            self.nodes.append(node("aten.sum.dim_IntList", f"{name}1", value(f"{name}0"), axes))
        shape: list[Any] = [1, 1, 1, 1]
        if facts is not None and facts.axis is not None:
            shape = [number("n"), -1, 1, 1]
            tail = value(f"{name}1" if axes else f"{name}0")
            self.nodes.append(node("aten.reshape.default", f"{name}2", tail, shape))
            self.nodes.append(node("aten.amax.default", f"{name}3", value(f"{name}2"), [1], True))
        else:
            tail = value(f"{name}1" if axes else f"{name}0")
            self.nodes.append(node("aten.reshape.default", f"{name}3", tail, shape))
        self.nodes.append(node("aten.add.Tensor", f"{name}4", value(self.last), value(f"{name}3")))
        self.last = f"{name}4"

    def _argument(self, name: str, given: Any) -> Any:
        if given is COUNT:
            return number("n")
        if isinstance(given, list):
            return [self._argument(f"{name}i{i}", item) for i, item in enumerate(given)]
        if isinstance(given, Constant):
            self.tensors[name] = given.of(())
            return value(name)
        if isinstance(given, Images):
            return self._images(name, given)
        return given

    def _images(self, name: str, given: Images) -> Any:
        """Take values of each image from the convolution, in the wanted shape and type."""
        count = prod(given.shape)
        shape = [number("n"), *given.shape]
        steps = [
            node("aten.slice.Tensor", f"{name}1", value("flat"), 1, 0, count),
            node("aten.reshape.default", f"{name}2", value(f"{name}1"), shape),
            node("aten.mul.Tensor", f"{name}3", value(f"{name}2"), float(given.below)),
            node("aten.movedim.int", f"{name}4", value(f"{name}3"), 0, given.axis),
            node("aten.to.dtype", f"{name}5", value(f"{name}4"), given.dtype),
        ]
        self.nodes.extend(steps)
        return value(f"{name}5")

    def file(self) -> bytes:
        """Return the model file."""
        return with_nodes(base_model(), self.nodes, self.tensors, {"sigmoid": self.last})


def check_images_apart(network: Network, shape: tuple[int, ...]) -> None:
    """Check that a network gives each image the same prediction alone and among others."""
    found = analyse_images(network, shape).values
    if not all(small_enough(value) for value in found.values()):
        return
    images = network.input_shape[0] or 3
    x = torch.rand(images, *shape, generator=torch.Generator().manual_seed(1))
    x = x.to(network.input_dtype)
    order = list(range(images))[::-1]
    try:
        whole, other = run_network(network, x), run_network(network, x[order])
    except ModelError:  # places and divisors that are values
        return
    made = found[network.output]
    assert tuple(whole.shape) == (images, *made.sizes[1:]), (whole.shape, made)
    assert whole.dtype == made.dtype, (whole.dtype, made)
    close(other[order], whole, Sample("network", ()))


def opened(data: bytes) -> None:
    """Open a model file and run it, image by image."""
    network = open_model(data).network
    if all(size is not None for size in network.input_shape[1:]):
        check_images_apart(network, tuple(size or 0 for size in network.input_shape[1:]))
