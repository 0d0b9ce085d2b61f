"""Tools of the passes: substitution of references, fresh names, removal of dead steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, TypeAlias, TypeVar

from .network import ConvStage, Ref, Step

# The passes of the import work on a sequence of items. A ConvStage in it has no valid index yet.
Item: TypeAlias = Step | ConvStage
AnyItem = TypeVar("AnyItem", Step, Item)


class NameSource:
    """Makes names that are not in use yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """Return the name, with a number appended if it is in use."""
        own = name
        if own in self._taken:
            numbers = count(self._next.get(name, 1))
            number = next(i for i in numbers if f"{name}_{i}" not in self._taken)
            self._next[name] = number + 1
            own = f"{name}_{number}"
        self._taken.add(own)
        return own


def convert(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return an argument with a function applied to each leaf, literal or reference."""
    if isinstance(value, list):
        return [convert(item, function) for item in value]
    if isinstance(value, tuple):
        return tuple(convert(item, function) for item in value)
    if isinstance(value, Mapping):
        return {key: convert(item, function) for key, item in value.items()}
    return function(value)


def substitute(value: Any, replacement: Callable[[Ref], Any]) -> Any:
    """Return an argument with every reference replaced."""
    return convert(value, lambda leaf: replacement(leaf) if isinstance(leaf, Ref) else leaf)


def redirect_step(step: Step, targets: Mapping[str, Any]) -> Step:
    """Return a step with references replaced; the targets are a Ref, a literal or a list."""
    if not any(name in targets for name in step.references):
        return step

    def replacement(ref: Ref) -> Any:
        return targets.get(ref.name, ref)

    args, kwargs = substitute(step.args, replacement), substitute(step.kwargs, replacement)
    return Step(step.name, step.op, args, kwargs)


def redirect(item: Item, targets: Mapping[str, Ref]) -> Item:
    """Return an item with references replaced."""
    if isinstance(item, Step):
        return redirect_step(item, targets)
    target = targets.get(item.input)
    return item if target is None else replace(item, input=target.name)


def inputs_of(item: Item) -> tuple[str, ...]:
    """Return the names that an item reads, tensors of the model included."""
    if isinstance(item, Step):
        return item.references
    tensors = (item.weight,) if item.bias is None else (item.weight, item.bias)
    return (item.input, *tensors)


def output_of(item: Item) -> str:
    """Return the name of the value that an item makes."""
    return item.name if isinstance(item, Step) else item.output


def live_items(items: Sequence[AnyItem], output: str) -> list[AnyItem]:
    """Return the items that the output depends on, in their order."""
    needed = {output}
    kept: list[AnyItem] = []
    for item in reversed(items):
        if output_of(item) in needed:
            needed.update(inputs_of(item))
            kept.append(item)
    return kept[::-1]
