"""Compares the shapes and types that a file records with those that values have.

The importer relies on recorded shapes where it decides which values share memory and which
sizes are equal. If only the batch size of the images is free, every recorded size is a number or
an expression in one symbol, the batch size. Expressions with other symbols are not compared.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import reduce
from operator import add, floordiv, mod, mul, sub
from typing import Any

from ..errors import ModelError
from .image_analysis import shape_in_batch
from .image_rules.facts import Facts
from .pt2.checks import check_expression
from .pt2.program import TensorMeta

_EXAMPLE_IMAGES = 7
_OPERATORS = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.FloorDiv: floordiv, ast.Mod: mod}
_FUNCTIONS = {"Add": add, "Mul": mul, "Max": max, "Min": min, "FloorDiv": floordiv, "Mod": mod}


class _UnknownError(Exception):
    """An expression with a part that cannot be evaluated here."""


def check_recorded(
    values: Mapping[str, Any],
    recorded: Mapping[str, TensorMeta],
    images: str,
    batch: int | None,
) -> None:
    """Refuse a file that records other shapes or types of values than they have.

    Parameters
    ----------
    values
        What is known about each value; see :func:`.image_analysis.analyse_images`.
    recorded
        What the file says about values.
    images
        The name of the input.
    batch
        The number of images, if the model takes no other; else None.

    Raises
    ------
    ModelError
        If the file says something else. Sizes that it gives as expressions are compared as far
        as they depend on the batch alone.
    """
    first = recorded[images].sizes[0]
    example = _EXAMPLE_IMAGES if batch is None else batch
    try:
        symbols = {_symbol(first): example} if isinstance(first, str) else {}
    except _UnknownError:
        symbols = {}
    known: dict[str, int | None] = {}
    for name, meta in recorded.items():
        found = values.get(name)
        if not isinstance(found, Facts):
            continue
        shape = shape_in_batch(found, example)
        fits = len(shape) == len(meta.sizes) and meta.dtype == found.dtype
        for size, own in zip(meta.sizes, shape, strict=False):
            if isinstance(size, str):
                if size not in known:
                    known[size] = _value_or_none(size, symbols)
                fits = fits and known[size] in (None, own)
            else:
                fits = fits and size == own
        if not fits:
            raise ModelError(
                f"the file records the shape {meta.sizes} and the type {meta.dtype} for %{name}, "
                f"which has the shape {shape} and the type {found.dtype} for {example} images: "
                "it is damaged, or was not written by torch.export.save"
            )


def _value_or_none(text: str, symbols: dict[str, int]) -> int | None:
    try:
        return _evaluated(_parsed(text), symbols)
    except _UnknownError:
        return None


def _symbol(text: str) -> str:
    """Return the name of a symbol, ``Symbol('s77', integer=True)`` or ``s77``."""
    tree = _parsed(text)
    if isinstance(tree, ast.Name):
        return tree.id
    if isinstance(tree, ast.Call) and _name(tree) == "Symbol":
        return str(_constant(tree.args[0]))
    raise _UnknownError(text)


def _parsed(text: str) -> ast.expr:
    check_expression(text)
    return ast.parse(text, mode="eval").body


def _evaluated(node: ast.expr, symbols: dict[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name) and node.id in symbols:
        return symbols[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluated(node.operand, symbols)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluated(node.left, symbols), _evaluated(node.right, symbols)
        return _applied(_OPERATORS[type(node.op)], [left, right])
    if isinstance(node, ast.Call):
        name = _name(node)
        if name == "Symbol" and (symbol := _constant(node.args[0])) in symbols:
            return symbols[symbol]
        values = [_evaluated(argument, symbols) for argument in node.args]
        if name == "Integer":
            return values[0]
        if name in _FUNCTIONS:
            return _applied(_FUNCTIONS[name], values)
    raise _UnknownError(ast.unparse(node))


def _applied(function: Any, values: list[int]) -> int:
    try:
        return int(reduce(function, values))
    except ZeroDivisionError as error:
        raise _UnknownError(str(error)) from error


def _name(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _constant(node: ast.expr) -> Any:
    return node.value if isinstance(node, ast.Constant) else None
