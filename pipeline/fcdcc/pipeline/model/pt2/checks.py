"""Checks of the JSON of a ``.pt2`` file: operators, arguments and shape expressions.

``torch.export.load`` looks operators up by attribute access from ``torch``, ``operator`` and
``math``, and hands shape expressions to SymPy, which evaluates them as Python. This importer
does neither. The checks refuse files that could run code in such a loader, so a file that is
accepted here is not dangerous elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from ...errors import ModelError, UnsafeModelError
from ..operators import check_operator, operator_name, words

# Operators whose argument is a graph that can replace them.
WRAPPERS = frozenset({"higher_order.wrap_with_set_grad_enabled", "higher_order.wrap_with_autocast"})

_MAX_EXPRESSION_CHARACTERS = 4096
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z_0-9]{0,63}")
_NUMBER = re.compile(r"-?[0-9]{0,40}\.?[0-9]{0,40}(e[-+]?[0-9]{1,3})?")
_FUNCTIONS = words(
    """
    Symbol Integer Float Rational Add Mul Pow Max Min Mod Abs floor ceiling
    Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan
    And Or Not FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv
    LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt
    RoundToInt RoundDecimal ToFloat Identity
    """
)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_SIGNS = (ast.UAdd, ast.USub)
_ASSUMPTIONS = frozenset({"positive", "integer", "nonnegative", "negative", "real", "zero"})


def check_program(program: Any) -> None:
    """Check all operators, arguments and expressions in ``models/model.json``.

    Raises
    ------
    UnsafeModelError
        If an operator, an argument or an expression is not one of those allowed.
    """
    for key, value in _fields(program):
        if key == "target":
            _check_operator(value)
        elif key == "expr_str":
            check_expression(value)
        elif key in ("as_custom_obj", "custom_obj"):
            raise UnsafeModelError("the model holds a custom object; expected tensors only")
        elif key == "as_operator":
            raise UnsafeModelError("an operator has an operator as its argument; expected tensors")


def _fields(program: Any) -> Iterator[tuple[str, Any]]:
    """Yield every (key, value) of the nested JSON, without those inside metadata."""
    pending = [program]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key, inner
                if key != "metadata":
                    pending.append(inner)
        elif isinstance(value, list):
            pending.extend(value)


def _check_operator(target: Any) -> None:
    if not isinstance(target, str):
        raise UnsafeModelError(f"an operator is named {target!r:.80}; expected text")
    name = operator_name(target)
    if name.startswith("higher_order."):
        if name not in WRAPPERS:
            raise ModelError(
                f"the model uses control flow or a wrapper ({target}); expected a graph of plain "
                "operators: write the model without it before the export"
            )
        return
    check_operator(name)


def check_expression(text: Any) -> None:
    """Check that a shape expression is made of integers, symbols and arithmetic.

    >>> check_expression("Symbol('s77', positive=True, integer=True) + 3*s0")
    >>> check_expression("().__class__")
    Traceback (most recent call last):
    ...
    fcdcc.pipeline.errors.UnsafeModelError: the shape expression '().__class__' is not ...
    """
    if not isinstance(text, str) or len(text) > _MAX_EXPRESSION_CHARACTERS:
        raise UnsafeModelError(f"a shape expression is {text!r:.80}; expected arithmetic")
    try:
        tree = ast.parse(text, mode="eval")
        allowed = _is_arithmetic(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        allowed = False
    if not allowed:
        raise UnsafeModelError(
            f"the shape expression {text!r:.80} is not one of integers, symbols and arithmetic; "
            "it could run code"
        )


def _is_arithmetic(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (bool, int, float))
    if isinstance(node, ast.Name):
        return _SYMBOL.fullmatch(node.id) is not None and "__" not in node.id
    if isinstance(node, ast.BinOp):
        return (
            isinstance(node.op, _ARITHMETIC)
            and _is_arithmetic(node.left)
            and _is_arithmetic(node.right)
            and not (isinstance(node.op, ast.Pow) and not _is_small(node.right))
        )
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, _SIGNS) and _is_arithmetic(node.operand)
    if isinstance(node, ast.Compare):
        return all(isinstance(op, _COMPARISONS) for op in node.ops) and all(
            _is_arithmetic(side) for side in (node.left, *node.comparators)
        )
    if isinstance(node, ast.Call):
        return _is_known_call(node)
    return False


def _is_known_call(node: ast.Call) -> bool:
    if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
        return False
    keywords = all(
        keyword.arg in _ASSUMPTIONS
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, bool)
        for keyword in node.keywords
    )
    if node.func.id == "Float":
        return _is_float(node)
    if node.func.id == "Symbol":
        names = [a.value if isinstance(a, ast.Constant) else None for a in node.args]
        return (
            keywords
            and len(names) == 1
            and isinstance(names[0], str)
            and _SYMBOL.fullmatch(names[0]) is not None
        )
    if node.func.id in ("Pow", "PowByNatural", "FloatPow", "LShift") and not (
        len(node.args) == 2 and _is_small(node.args[1])
    ):
        return False
    return not node.keywords and all(_is_arithmetic(argument) for argument in node.args)


def _is_float(node: ast.Call) -> bool:
    """Return whether a call is ``Float('0.5', precision=53)``, as SymPy writes numbers."""
    value = node.args[0] if len(node.args) == 1 else None
    precisions = [keyword.value for keyword in node.keywords if keyword.arg == "precision"]
    return (
        isinstance(value, ast.Constant)
        and _NUMBER.fullmatch(str(value.value)) is not None
        and len(precisions) == len(node.keywords)
        and all(_is_small(precision) for precision in precisions)
    )


def _is_small(node: ast.expr) -> bool:
    """Return whether an exponent is a small number; larger powers take unbounded time."""
    if isinstance(node, ast.UnaryOp):
        return _is_small(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("Integer", "Rational", "Float") and all(
            _is_small(argument) for argument in node.args
        )
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float))
        and abs(node.value) <= 64
    )
