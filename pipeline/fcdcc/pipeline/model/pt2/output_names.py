"""The names of a program's outputs, from the form in which it returns them.

A program returns a tensor, or tuples, lists and dictionaries of tensors, also nested. The file
describes the form as a tree in JSON, whose leaves are the outputs in order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..output_bundle import SINGLE_OUTPUT

_MAX_TREE_CHARACTERS = 1 << 20
_MAX_DEPTH = 16
_MAX_NAME = 80
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.-]+")


def output_names(tree: Any, count: int) -> list[str]:
    r"""Return a name for each output: no two are equal, and each may name an array.

    A member of a dictionary has its key as its name. A member of a tuple or list is
    ``output_0``, ``output_1`` and so on. Names of members of members are joined by dots. If the
    tree cannot be read, the outputs are numbered.

    Parameters
    ----------
    tree
        The description in the file, as ``torch.utils._pytree.treespec_dumps`` writes it.
    count
        How many outputs there are.

    >>> leaf = '{"type": null, "context": null, "children_spec": []}'
    >>> kind = '"type": "builtins.dict", "context": "[\\"out\\", \\"aux\\"]"'
    >>> output_names(f'[1, {{{kind}, "children_spec": [{leaf}, {leaf}]}}]', 2)
    ['out', 'aux']
    >>> output_names(None, 2)
    ['output_0', 'output_1']
    """
    paths = _paths(tree)
    if paths is None or len(paths) != count:
        paths = [(number,) for number in range(count)]
    names: dict[str, None] = {}
    for path in paths:
        name = name_of_output(path)
        own, number = name, 1
        while own in names:
            number += 1
            own = f"{name}_{number}"
        names[own] = None
    return list(names)


def name_of_output(path: tuple[str | int, ...]) -> str:
    """Return the name of an output, given the keys and numbers that lead to it."""
    if not path:
        return SINGLE_OUTPUT
    text = ".".join(str(part) for part in path)
    name = _UNUSUAL.sub("_", text)[:_MAX_NAME]
    usual = isinstance(path[0], str) and not name.startswith((".", "__")) and name != ""
    return name if usual else f"output_{name}"


def _paths(tree: Any) -> list[tuple[str | int, ...]] | None:
    """Return the way to each leaf of a tree; None if it cannot be read."""
    if not isinstance(tree, str) or len(tree) > _MAX_TREE_CHARACTERS:
        return None
    try:
        _, root = json.loads(tree)
        return list(_leaves(root, ()))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _leaves(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if len(path) > _MAX_DEPTH:
        raise ValueError("it is too deep")
    children = node["children_spec"]
    if node["type"] is None:
        yield path
        return
    for key, child in zip(_keys(node["context"], len(children)), children, strict=True):
        yield from _leaves(child, (*path, key))


def _keys(context: Any, count: int) -> list[str | int]:
    """Return what the children of a node are called: their keys, or else their numbers."""
    try:
        keys = json.loads(context) if isinstance(context, str) else context
    except ValueError:
        keys = None
    if isinstance(keys, list) and len(keys) == 2 and isinstance(keys[1], list):
        keys = keys[1]  # the keys of a defaultdict come after what makes its values
    if not isinstance(keys, list) or len(keys) != count:
        return list(range(count))
    is_usable = all(isinstance(key, str) or type(key) is int for key in keys)
    return keys if is_usable else list(range(count))
