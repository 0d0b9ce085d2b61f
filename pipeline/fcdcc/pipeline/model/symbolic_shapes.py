"""Shapes of values, from the symbolic shapes that the export recorded.

If only the batch size of the images is free, every recorded shape consists of numbers and
expressions in one symbol, the batch size, and substituting a number for the symbol gives the
shape. If other sizes are free as well, the recorded shapes do not decide whether the network
takes images of a given size, and :func:`recorded_shapes` returns None.
"""

from __future__ import annotations

import ast
from functools import reduce
from operator import add, floordiv, mod, mul, sub
from typing import Any

from .network import Network
from .pt2.checks import check_expression

_OPERATORS = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.FloorDiv: floordiv, ast.Mod: mod}
_FUNCTIONS = {"Add": add, "Mul": mul, "Max": max, "Min": min, "FloorDiv": floordiv, "Mod": mod}


class _UnknownError(Exception):
    """An expression with a part that cannot be evaluated here."""


def recorded_shapes(
    network: Network, input_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]] | None:
    """Return the shape of every value that passes between stages.

    Parameters
    ----------
    network
        The network.
    input_shape
        (batch, C, *space) of the images.

    Returns
    -------
    The shapes by name, or None where the recorded ones do not decide them.
    """
    names = [network.input, *(name for stage in network.stages for name in stage.outputs)]
    recorded = network.sizes.get(network.input, ())
    batch = recorded[0] if recorded else None
    if any(name not in network.sizes for name in names) or recorded[1:] != input_shape[1:]:
        return None
    if isinstance(batch, int) and batch != input_shape[0]:
        return None
    try:
        symbols = {_symbol(batch): input_shape[0]} if isinstance(batch, str) else {}
        shapes = {
            name: tuple(_value(size, symbols) for size in network.sizes[name]) for name in names
        }
    except _UnknownError:
        return None
    return shapes if all(size > 0 for shape in shapes.values() for size in shape) else None


def _symbol(text: str) -> str:
    """Return the name of a symbol, ``Symbol('s77', integer=True)`` or ``s77``."""
    tree = _parsed(text)
    if isinstance(tree, ast.Name):
        return tree.id
    if isinstance(tree, ast.Call) and _name(tree) == "Symbol":
        return str(_constant(tree.args[0]))
    raise _UnknownError(text)


def _value(size: int | str, symbols: dict[str, int]) -> int:
    return size if isinstance(size, int) else _evaluated(_parsed(size), symbols)


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
