"""Make the options of commands from the fields of option models, so that both always agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..options import SCALE_WORDS, Scale, flag_of

Command = TypeVar("Command", bound=Callable[..., Any])

ONE_WAY_FLAGS = frozenset({"restart", "calibrate"})
"""Switches that are off unless they are given."""

TWO_WAY_FLAGS = {
    "processes": "--processes/--threads",
    "progress": "--progress/--no-progress",
}
"""Switches with a name for each of their two positions."""


SEVERAL_TIMES = frozenset({"input_array", "channels", "inputs", "outputs"})
"""Options that may be given several times."""


class NumbersType(click.ParamType[tuple[float, ...]]):
    """One number, or several separated by commas."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers; text that is none ends the command."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: expected numbers, such as 0.5 or 0.485,0.456,0.406", param, ctx)


class _CountOrAuto(click.ParamType[int | str]):
    """A whole number, or ``auto``."""

    name = "integer|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        try:
            return "auto" if value == "auto" else int(value)
        except ValueError:
            self.fail(f"{value!r}: expected a whole number, or auto", param, ctx)


class _Scale(click.ParamType[float | str]):
    """A number, or a word that stands for one; the option model checks both."""

    name = f"{'|'.join(SCALE_WORDS)}|number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        try:
            return value if value in SCALE_WORDS else float(value)
        except ValueError:
            words = ", ".join(SCALE_WORDS)
            self.fail(f"{value!r}: expected {words}, or a number to divide by", param, ctx)


def _none_if_empty(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,  # noqa: ARG001 - click's signature
    values: tuple[str, ...],
) -> tuple[str, ...] | None:
    """Return None for an option that may be given several times and is not given."""
    return values or None


def options_of(
    model: type[BaseModel], leave_out: Iterable[str] = ()
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command one option per field of a pydantic model.

    An option that is not given is None. So the defaults of the model apply, and the command can
    tell which options override those of a job file.
    """
    skipped = frozenset(leave_out)

    def decorate(command: Command) -> Command:
        for name, field in reversed(model.model_fields.items()):
            if name not in skipped:
                command = _option(field.alias or name, field)(command)
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    """Return the click option of one field."""
    default = field.default
    help_texts = [field.description or ""]
    declaration = TWO_WAY_FLAGS.get(name, flag_of(name))
    if name in ONE_WAY_FLAGS:
        return click.option(declaration, name, is_flag=True, default=None, help=help_texts[0])
    if name not in TWO_WAY_FLAGS and default is not None:
        help_texts.append(f"[default: {default}]")
    help_text = "  ".join(help_texts)
    kind = None if name in TWO_WAY_FLAGS else _click_type(field.annotation)
    if name in SEVERAL_TIMES:
        return click.option(
            declaration, name, type=kind, multiple=True, callback=_none_if_empty, help=help_text
        )
    return click.option(declaration, name, type=kind, default=None, help=help_text)


def _click_type(annotation: Any) -> click.ParamType[Any]:
    """Return the click type of an annotation such as ``int | None`` or a Literal."""
    if annotation == get_args(Scale)[0]:
        return _Scale()
    if get_origin(annotation) is Union and type(None) not in get_args(annotation):
        return _CountOrAuto()
    if get_origin(annotation) is UnionType or type(None) in get_args(annotation):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
        if annotation is int:  # a number of bytes, which may be given with a unit
            return click.STRING
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if get_origin(annotation) is tuple:
        return NumbersType() if get_args(annotation)[0] is float else click.STRING
    plain: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT}
    return plain.get(annotation, click.STRING)
