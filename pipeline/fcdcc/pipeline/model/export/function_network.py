"""Networks that a function of the user's own code makes: ``package.module:function``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import OptionError
from ..description import ModelDescription
from .live_network import LiveNetwork, errors_refused

MEMBERS = ("preparation", "class_names", "output", "input_shape")
"""What a function may return beside its network."""


def function_network(name: str) -> LiveNetwork:
    """Return the network that ``package.module:function`` makes.

    The function takes no arguments. It returns a :class:`torch.nn.Module`, or one together with a
    dictionary of :data:`MEMBERS`, of which all but ``input_shape``, (C, *space), are those of the
    description in a model file. In place of a function there may be a class of modules, or a
    module itself. Modules in the current folder are found, too.

    Raises
    ------
    OptionError
        If there is no such function, it raises, or what it returns is no network.
    """
    place, _, path = name.partition(":")
    with errors_refused(f"{name} cannot be used", "expected package.module:function"):
        with _current_folder():
            found: Any = import_module(place)
        for part in path.split("."):
            found = getattr(found, part)
        made = found if isinstance(found, nn.Module) or not callable(found) else found()
    members: Mapping[str, Any] = {}
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping):
        made, members = made
    if not isinstance(made, nn.Module):
        raise OptionError(
            f"{name} gives {type(made).__name__}; expected a torch.nn.Module, or one with a "
            f"dictionary of {', '.join(MEMBERS)}"
        )
    unknown = sorted(str(key) for key in members if key not in MEMBERS)
    if unknown:
        raise OptionError(
            f"{name} gives {', '.join(unknown)} with its network; expected some of "
            f"{', '.join(MEMBERS)}"
        )
    told = {key: value for key, value in members.items() if key != "input_shape"}
    description = ModelDescription.of({"version": 1, **told}, name)
    return LiveNetwork(
        name,
        made,
        _shape(members.get("input_shape"), name),
        description.preparation,
        description.class_names,
        description.output,
    )


def _shape(shape: Any, name: str) -> tuple[int, ...] | None:
    if shape is None:
        return None
    sizes = tuple(shape) if isinstance(shape, list | tuple) else ()
    if len(sizes) < 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise OptionError(f"{name} gives the input_shape {shape!r:.80}; expected (C, *space)")
    return sizes


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules be imported from the current folder, as ``python -m`` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
