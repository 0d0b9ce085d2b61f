"""What a model file says about itself beside its graph: preparation, class names, output.

``fcdcc export`` writes it as the record ``extra/fcdcc.json`` of the archive, as
``torch.export.save(program, file, extra_files={"fcdcc.json": text})`` does. It is one JSON object
and is only parsed. A file may come from anybody, so every value is checked: types, lengths, sizes,
finite numbers, text without control characters. What is wrong is refused in one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fcdcc.storage.pictures import MODES, Fit, Interpolation, PictureForm

from ..errors import ModelError, one_line
from ..formatting import printable
from ..heads import HEAD_KINDS, HeadKind

DESCRIPTION_RECORD = "extra/fcdcc.json"
"""The record of a ``.pt2`` archive that holds the description."""

DESCRIPTION_FILE = "fcdcc.json"
"""The name of that record for ``extra_files`` of ``torch.export.save``."""

FORMAT_VERSION: Literal[1] = 1

MAX_DESCRIPTION_BYTES = 2**24
"""Largest record that is read: 100,000 names of classes fit."""

MAX_CLASSES = 100_000
MAX_TEXT = 1000
"""Longest name of a class, in characters."""

MAX_CHANNELS = 4096
MAX_SIDE = 2**15
MAX_VALUE, MIN_STD = 1e12, 1e-12
"""Limits of means, standard deviations and ranges, which float32 can still divide by."""

MAX_NUMBERS_SHOWN = 4
MAX_SHOWN = 200
"""Characters of an error about a description."""

OutputKind = HeadKind
"""What the output of a network is, as ``--head`` names it."""

ChannelOrder = Literal["rgb", "bgr", "grey"]


def _plain_text(text: str) -> str:
    """Return a text that can be shown and stored; control characters and halves are refused."""
    if printable(text) != text or not text.strip():
        raise ValueError("expected a text of printable characters")
    return text


def _finite(number: float) -> float:
    if not math.isfinite(number) or abs(number) > MAX_VALUE:
        raise ValueError(f"expected a finite number of at most {MAX_VALUE:g}")
    return number


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_plain_text)]
Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain_text)]
Number = Annotated[float, AfterValidator(_finite)]
Numbers = Annotated[tuple[Number, ...], Field(min_length=1, max_length=MAX_CHANNELS)]
ClassNames = Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_CLASSES)]
Versions = Annotated[Mapping[Label, Label], Field(max_length=50)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class _Strict(BaseModel):
    """Members of a JSON object: of exactly these types, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelPreparation(_Strict):
    """How pictures become the input of a network.

    Everything may be missing; then the options of the commands, or their defaults, decide.

    Parameters
    ----------
    size
        Height and width in pixels.
    fit, resize, interpolation
        As ``fcdcc ingest`` takes them; only with ``size``.
    channel_order
        Of the input.
    value_range
        What black and white become before the mean is subtracted: 0 and 1, or 0 and 255. Black is
        always 0.
    mean, std
        Subtracted, and divided by, after that: one number, or one per channel.
    """

    size: tuple[Side, Side] | None = None
    fit: Fit | None = None
    resize: Side | None = None
    interpolation: Interpolation | None = None
    channel_order: ChannelOrder | None = None
    value_range: tuple[Number, Number] | None = None
    mean: Numbers | None = None
    std: Numbers | None = None

    @model_validator(mode="after")
    def _values_go_together(self) -> Self:
        if self.value_range is not None:
            black, white = self.value_range
            if black != 0 or not white >= MIN_STD:
                raise ValueError(
                    "value_range: expected 0 and a number above it; other ranges are a mean and std"
                )
        if any(value < MIN_STD for value in self.std or ()):
            raise ValueError(f"std: expected numbers of at least {MIN_STD:g}")
        channels = {len(values) for values in (self.mean, self.std) if values is not None} - {1}
        if self.channel_order is not None:
            channels |= {1 if self.channel_order == "grey" else 3}
        if len(channels) > 1:
            raise ValueError("mean, std and channel_order are for different numbers of channels")
        if self.size is not None:
            self.picture_form()
        elif self.fit is not None or self.resize is not None:
            raise ValueError("fit and resize without a size")
        return self

    @classmethod
    def of(cls, **members: Any) -> ModelPreparation:
        """Return a preparation of plain values; those that are None are left out.

        Raises
        ------
        ModelError
            If they cannot be used.
        """
        given = {name: value for name, value in members.items() if value is not None}
        try:
            return cls.model_validate_json(json.dumps(given))
        except ValidationError as error:
            reason = _bounded(_first_problem(error))
            raise ModelError(f"a preparation cannot be stored: {reason}") from error

    def summary(self) -> str:
        """Return in one line how images are prepared; empty if that is not said."""
        parts = []
        if self.size is not None:
            form = self.picture_form()
            resized = f", shorter side {form.resize}" if form.resize else ""
            height, width = self.size
            parts.append(f"{height} × {width} ({form.fit}{resized}, {form.interpolation})")
        if self.channel_order is not None:
            parts.append(self.channel_order)
        if self.value_range is not None:
            parts.append(f"values 0 to {self.value_range[1]:g}")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None:
                parts.append(f"{name} {numbers_in_words(numbers)}")
        return ", ".join(parts)

    @property
    def channels(self) -> int | None:
        """How many channels the images have; None if that is not said."""
        if self.channel_order is not None:
            return MODES["grey" if self.channel_order == "grey" else "rgb"][1]
        lengths = {len(values) for values in (self.mean, self.std) if values is not None} - {1}
        return lengths.pop() if lengths else None

    def picture_form(self) -> PictureForm:
        """Return the form of the pictures that the network takes.

        Raises
        ------
        ValueError
            If there is no size, or the values do not go together.
        """
        if self.size is None:
            raise ValueError("size is missing")
        return PictureForm(
            *self.size,
            self.fit or "crop",
            self.resize,
            "grey" if self.channel_order == "grey" else "rgb",
            interpolation=self.interpolation or "bilinear",
        )


class ModelDescription(_Strict):
    """What a model file says about its network.

    Parameters
    ----------
    version
        Of the format.
    network
        The NAME that was exported.
    preparation
        How images are prepared.
    class_names
        In the order of the classes.
    output
        What the main output of the network is.
    versions
        Of the libraries that made the file, by their names.
    """

    version: Literal[1] = FORMAT_VERSION
    network: Text | None = None
    preparation: ModelPreparation = ModelPreparation()
    class_names: ClassNames | None = None
    output: OutputKind | None = None
    versions: Versions = {}

    def to_json(self) -> str:
        """Return the text of the record; values that are not known are left out."""
        return self.model_dump_json(exclude_none=True)

    def summary(self) -> str:
        """Return in one line what the description says."""
        parts = [self.preparation.summary()]
        if self.class_names is not None:
            count = len(self.class_names)
            parts.append(f"the names of {count} classes" if count > 1 else "the name of 1 class")
        if self.output is not None:
            parts.append(f"output: {self.output}")
        return "; ".join(part for part in parts if part) or (
            "nothing about its images and classes; --size, --mean, --classes and others add that"
        )

    @classmethod
    def of(cls, members: Mapping[str, Any], source: str) -> ModelDescription:
        """Return a description of decoded JSON, or of plain values in Python.

        Raises
        ------
        ModelError
            If something in it cannot be used; ``source`` is who says it.
        """
        try:
            return cls.model_validate_json(json.dumps(members))
        except ValidationError as error:
            reason = _first_problem(error)
        except (TypeError, ValueError, RecursionError) as error:
            reason = one_line(error)
        raise ModelError(f"{source} describes its network wrongly: {_bounded(reason)}")


def numbers_in_words(numbers: Sequence[float] | float) -> str:
    """Return the numbers of a mean or standard deviation, the first if they are many."""
    values = [numbers] if isinstance(numbers, int | float) else [*numbers]
    more = ", …" if len(values) > MAX_NUMBERS_SHOWN else ""
    return ", ".join(f"{value:g}" for value in values[:MAX_NUMBERS_SHOWN]) + more


def read_description(text: bytes, source: str) -> ModelDescription:
    """Return the description in a record.

    Raises
    ------
    ModelError
        If the record is none, or holds something that cannot be used; in one short line.
    """
    try:
        members = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        _refuse(source, one_line(error))
    if not isinstance(members, dict):
        _refuse(source, "expected a JSON object")
    version = members.get("version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        _refuse(
            source,
            f"it has the version {version!s:.20}; this version of fcdcc reads {FORMAT_VERSION}",
        )
    try:
        return ModelDescription.model_validate_json(json.dumps(members))
    except ValidationError as error:
        _refuse(source, _first_problem(error))
    except (ValueError, RecursionError) as error:
        _refuse(source, one_line(error))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _first_problem(error: ValidationError) -> str:
    """Return what is wrong with the first wrong member; its value is not shown."""
    problem = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "there is no such member"
    return f"{place:.80}: {message}" if place else message


def _bounded(reason: str) -> str:
    """Return an error of a bounded length and without control characters."""
    return printable(" ".join(reason.split()))[:MAX_SHOWN]


def _refuse(source: str, reason: str) -> NoReturn:
    raise ModelError(
        f"{source}: its description ({DESCRIPTION_RECORD}) cannot be used: {_bounded(reason)}; "
        "export the model again with fcdcc export"
    )


OUTPUT_KINDS: tuple[str, ...] = HEAD_KINDS
"""All kinds of output."""
