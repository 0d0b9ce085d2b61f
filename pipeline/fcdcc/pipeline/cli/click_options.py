"""Command-line options made from the checked options, so that both say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

F = TypeVar("F", bound=Callable[..., Any])

FLAGS = frozenset({"restart", "calibrate"})
"""What is off unless it is said."""

PAIRS = {"processes": "--processes/--threads", "progress": "--progress/--no-progress"}
"""The switches, which have a name for either position."""


class _Numbers(click.ParamType[tuple[float, ...]]):
    """One number, or several with commas between."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: expected numbers, such as 0.5 or 0.485,0.456,0.406", param, ctx)


def options_of(model: type[BaseModel], leave_out: Iterable[str] = ()) -> Callable[[F], F]:
    """Return a decorator that gives a command one option per field of a pydantic model.

    Every option is None where it was not given, so that the model's defaults hold and a file
    can be overridden by what was given.
    """
    skipped = frozenset(leave_out)

    def decorate(command: F) -> F:
        for name, field in reversed(model.model_fields.items()):
            if name not in skipped:
                command = _option(field.alias or name, field)(command)
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[F], F]:
    """Return the click option of one field."""
    default = field.default
    words = [field.description or ""]
    declaration = PAIRS.get(name, "--" + name.replace("_", "-"))
    if name in FLAGS:
        return click.option(declaration, name, is_flag=True, default=None, help=words[0])
    if name not in PAIRS and default is not None:
        words.append(f"[default: {default}]")
    kind = None if name in PAIRS else _kind(field.annotation)
    return click.option(declaration, name, type=kind, default=None, help="  ".join(words))


def _kind(annotation: Any) -> click.ParamType[Any]:
    """Return the click type of an annotation such as ``int | None`` or a Literal."""
    if get_origin(annotation) is UnionType or type(None) in get_args(annotation):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
        if annotation is int:  # a number with a unit
            return click.STRING
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if get_origin(annotation) is tuple:
        return _Numbers()
    plain: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT}
    return plain.get(annotation, click.STRING)
