"""How the JSON of an exported graph writes names and arguments."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from ...errors import ModelError
from ..operators import schema
from .archive import SCALAR_TYPES, Json

# What each name of a graph stands for: a Ref, a literal, or a list of these. Any, as in
# Step.args.
Scope: TypeAlias = dict[str, Any]

_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_STRIDED = 7
_POSITIONAL, _KEYWORD = 1, 2
# Kinds of arguments (torch._export.serde.schema.Argument) by how they are read.
_LITERALS = frozenset({"as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_int_lists"})
_SYMBOLS = frozenset({"as_sym_int", "as_sym_float", "as_sym_bool"})
_SYMBOL_LISTS = frozenset({"as_sym_ints", "as_sym_floats", "as_sym_bools"})
LISTS = frozenset({"as_tensors", "as_ints", "as_floats", "as_strings", "as_bools"}) | _SYMBOL_LISTS


def content(item: Json) -> Json:
    """Return the content of a JSON union, ``{"as_tensor": content}``."""
    ((_, inner),) = item.items()
    return inner


def defined_name(item: Json) -> str | None:
    """Return the name that an output or a formal input defines, if it defines one."""
    if "name" in item:
        return str(item["name"])
    if "as_name" in item:
        return str(item["as_name"])
    ((kind, inner),) = item.items()
    if kind == "as_tensor" or (kind.startswith("as_sym") and kind not in LISTS):
        return defined_name(inner)
    return None


def read_arguments(op: str, inputs: Json, scope: Scope) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an operator's positional and keyword arguments."""
    found = schema(op)
    given = {str(entry["name"]): entry for entry in inputs}
    if found is None or len(given) < len(inputs):
        return tuple(read_argument(entry["arg"], scope) for entry in inputs), {}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for formal in found.arguments:
        if formal.name not in given:
            continue
        entry = given.pop(formal.name)
        kind = entry.get("kind")
        if kind is None:
            plain = not formal.has_default_value() and not formal.kwarg_only
            kind = _POSITIONAL if plain else _KEYWORD
        if kind == _POSITIONAL:
            args.append(read_argument(entry["arg"], scope))
        else:
            kwargs[formal.name] = read_argument(entry["arg"], scope)
    if given:
        raise ModelError(
            f"{op} has no argument {next(iter(given))!r} in PyTorch {torch.__version__}"
        )
    return tuple(args), kwargs


def read_argument(item: Json, scope: Scope) -> Any:
    """Return one argument: a literal, a Ref, or a list of these."""
    ((kind, value),) = item.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return scope[value["name"]]
    if kind in ("as_tensors", "as_nested_tensors"):
        return _named(value, scope)
    if kind == "as_optional_tensor":
        return read_argument(value, scope)
    if kind == "as_optional_tensors":
        return [read_argument(item, scope) for item in value]
    if kind in _SYMBOLS:
        return _symbol(value, scope)
    if kind in _SYMBOL_LISTS:
        return [_symbol(item, scope) for item in value]
    if kind in _LITERALS:
        return value
    if kind == "as_float":
        return float(value)
    if kind == "as_floats":
        return [float(item) for item in value]
    if kind == "as_complex":
        return complex(float(value["real"]), float(value["imag"]))
    if kind == "as_scalar_type":
        return SCALAR_TYPES[value]
    if kind == "as_memory_format":
        return _MEMORY_FORMATS[value]
    if kind == "as_layout" and value == _STRIDED:
        return torch.strided
    if kind == "as_device":
        return torch.device("cpu")
    raise ModelError(f"an operator has an argument of the kind {kind}, which cannot be run here")


def _named(value: Json, scope: Scope) -> Any:
    if isinstance(value, list):
        return [_named(item, scope) for item in value]
    return scope[value["name"]]


def _symbol(value: Json, scope: Scope) -> Any:
    ((kind, inner),) = value.items()
    if kind == "as_name":
        return scope[inner]
    return float(inner) if kind == "as_float" else inner
