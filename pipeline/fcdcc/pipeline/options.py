"""The options of a job: one definition for the command line, job files and Python.

A field name here is the option of the command line with ``_`` for ``-``, the key of a job file,
and the keyword in Python. Field descriptions are the help texts of the command line.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict, TypeVar, get_args

from dask.utils import parse_bytes
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from fcdcc.coding.errors import FcdccError

from .errors import OptionError, bad_values_refused
from .heads import HeadKind
from .stored_forms import StoredForm


def _as_tuple(value: object) -> object:
    """Return a number or a list of numbers as a tuple."""
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, int | float) else value


def _as_names(value: object) -> object:
    """Return names or numbers in a text, separated by commas, or in a list, as a tuple of texts."""
    values = [value] if isinstance(value, str | int) else value
    if not isinstance(values, list | tuple):
        return value
    return tuple(part.strip() for item in values for part in str(item).split(","))


def _as_sizes(value: object) -> object:
    """Return a whole number, or several in a list or in a text with commas, as a tuple."""
    values = value.split(",") if isinstance(value, str) else value
    if isinstance(values, int) and not isinstance(values, bool):
        values = [values]
    if not isinstance(values, list | tuple) or not values or len(values) > MAX_SPACE:
        raise ValueError(f"expected a number of pixels, or up to {MAX_SPACE}: one for each axis")
    return tuple(part.strip() if isinstance(part, str) else part for part in values)


def _as_text(value: object) -> object:
    """Return a path as text."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _as_scale(value: object) -> object:
    """Return the number that a text is, if it is one, or a word that stands for a scale."""
    if value in SCALE_WORDS:
        return value
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 < number < math.inf:
        raise ValueError("expected auto, none, max, or a number above 0 to divide by")
    return number


def _as_bytes(value: object) -> object:
    """Return a text such as 4GB as a number of bytes."""
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except (OverflowError, ValueError):
        raise ValueError("expected a size in bytes, such as 4GB or 900MiB") from None


MAX_BYTES = 2**60
MAX_BATCH = 2**20
MAX_IMAGES = 2**53
MAX_ROWS = 2**31
MAX_SPACE = 3
MAX_IN_FLIGHT = 2**16
MAX_WORKERS = 4096
MAX_THREADS = 1024
"""Largest values of options: beyond what any job needs, and small enough to compute with."""

MAX_SHOWN = 80
"""Characters of a wrong value in a message."""

DASHBOARD_ADDRESS = re.compile(r"(?:[^\s:,/]*:)?([0-9]{1,5})")
"""HOST:PORT, :PORT or PORT."""

_NO_SUCH_OPTION = ": there is no such option"

ARGUMENTS = ("model", "input", "output")
"""Options that are positional arguments on the command line."""

FLAGS = {"inputs": "input", "outputs": "output"}
"""Options that the command line calls by another name, because it is given once for each value."""

CodeName = Literal[
    "systematic", "crme", "polynomial", "chebyshev", "khatri-rao", "replication", "uncoded"
]
SCALE_WORDS = ("auto", "none", "max")
LogFormat = Literal["text", "json"]
Blend = Literal["hann", "linear", "gaussian", "constant"]
"""How the weights of a tile's prediction fall off towards its edges. hann: as a raised cosine over
the overlap; linear: as a straight line over the overlap; gaussian: as a bell over the whole tile;
constant: not at all."""
AUTO: Literal["auto"] = "auto"
"""Value of ``n`` and ``tolerate`` that leaves the number to the planner."""

MAX_SHARES = 4096
"""Most shares of a coded layer."""


NUMBER = "number"
"""Tag of the numbers among the values of an option that may also be ``auto``."""


def _kind_of_count(value: object) -> str:
    """Return the tag of the member of :data:`ShareCount` that a value is checked as."""
    return AUTO if value == AUTO else NUMBER


# Each member has a tag, so that an error names the one that was meant.
ShareCount = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SHARES), Tag(NUMBER)] | Annotated[Literal["auto"], Tag(AUTO)],
    Discriminator(_kind_of_count),
]
Tolerance = Annotated[
    Annotated[int, Field(ge=0, lt=MAX_SHARES), Tag(NUMBER)] | Annotated[Literal["auto"], Tag(AUTO)],
    Discriminator(_kind_of_count),
]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_as_tuple)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_ROWS)], ...], BeforeValidator(_as_sizes)]
"""Numbers of pixels: one for all spatial axes, or one for each."""
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_names)]
SCHEDULER_FILE = ".json"
"""How the name of a file ends in which a scheduler says where it is."""

Place = Annotated[str, BeforeValidator(_as_text)]
"""A path or URL; in Python also a :class:`os.PathLike`."""
Scale = Annotated[Literal["auto", "none", "max"] | float, BeforeValidator(_as_scale)]
Bytes = Annotated[int, BeforeValidator(_as_bytes), Field(gt=0, le=MAX_BYTES)]


class _Options(BaseModel):
    """Immutable options; invalid ones raise an OptionError of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    if not TYPE_CHECKING:  # type checkers know the options from the fields

        def __init__(self, **options: Any) -> None:
            with keywords_named(), _option_errors():
                super().__init__(**options)

        # So that model_validate, which the command line uses, goes on without it.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Return checked options of the command line; those that are None keep their defaults.

        Raises
        ------
        OptionError
            If options are invalid; the message names each, what was given and what was expected.
        """
        given = {name: value for name, value in options.items() if value is not None}
        with _option_errors():
            return cls.model_validate(given)


def flag_of(option: str) -> str:
    """Return what the command line calls an option.

    >>> flag_of("in_flight"), flag_of("outputs")
    ('--in-flight', '--output')
    """
    return "--" + FLAGS.get(option, option).replace("_", "-")


def shown_value(value: object) -> str:
    """Return a wrong value for a message, cut off if it is long.

    >>> shown_value("six"), shown_value(1 << 20_000)
    ("'six'", 'a number of more than 4300 digits')
    """
    try:
        text = repr(value)
    except ValueError:
        return f"a number of more than {sys.get_int_max_str_digits()} digits"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


@contextmanager
def _option_errors() -> Iterator[None]:
    """Raise a validation error of pydantic as an OptionError of one line."""
    try:
        yield
    except ValidationError as error:
        messages = [_message_of(item) for item in error.errors()]
        raise OptionError("; ".join(messages)) from None


def _message_of(item: Mapping[str, Any]) -> str:
    """Return a validation error of pydantic as a message about the option."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    option = str(item["loc"][0])
    name = option.upper() if option in ARGUMENTS else flag_of(option)
    if item["type"] == "extra_forbidden":
        return name + _NO_SUCH_OPTION
    if item["type"] == "missing":
        return f"{name} is needed"
    if item["loc"][1:] == (NUMBER,):
        message += ", or auto"
    return f"{name} was given as {shown_value(item['input'])}: {message[0].lower()}{message[1:]}"


class PlanOptions(_Options):
    """Options that determine the plan and the predictions."""

    n: ShareCount = Field(
        AUTO,
        description="shares per coded layer; auto: as many as there are workers, at most 6",
    )
    tolerate: Tolerance = Field(
        AUTO,
        description="γ: how many of the n shares may be lost; auto: what one of 2 or 3 workers "
        "holds, or two of more; none with one worker",
    )
    code: CodeName = Field("systematic", description="the code that the shares are made with")
    split: Literal["auto", "rows", "images"] = Field(
        "auto",
        description="how a block is split into parts. images: by its images; rows: every layer "
        "into strips of rows; auto: by images if the blocks have enough of them",
    )
    redundancy: Literal["eager", "standby", "off"] = Field(
        "standby",
        description="eager: all n shares start at once; standby: parity shares start when a share "
        "is late (with codes without parity, all n shares start at once); off: no parity shares, "
        "and no share may be lost",
    )
    verify: Literal["off", "spare", "all", "checksum"] = Field(
        "off",
        description="spare: check a layer if more shares than needed are done anyway; all: wait "
        "for one share more than needed and check every layer. If shares contradict each other, "
        "the block is computed again with all n shares, and wrong ones are left out. checksum: "
        "check every convolution and linear layer by itself, where it is computed; if one is "
        "wrong, the block is computed again on other workers",
    )
    batch: int | None = Field(
        None, ge=1, le=MAX_BATCH, description="images per block  [default: planned]"
    )
    limit: int | None = Field(
        None,
        ge=1,
        le=MAX_IMAGES,
        description="use only this many images, from the first on  [default: all]",
    )
    dtype: Literal["auto", "float32", "float64", "bfloat16"] = Field(
        "float32",
        description="data type of the computation. bfloat16: nothing is coded; auto: the one in "
        "which the model was exported, float32 for float16",
    )
    engine: Literal["auto", "eager", "fused"] = Field(
        "auto",
        description="how a worker computes between coded points. eager: operation by operation; "
        "fused: convolutions with packed weights and fused activations; auto: the fastest that "
        "needs nothing but PyTorch",
    )
    objective: Literal["time", "paper"] = Field(
        "time",
        description="what the plan minimises. time: the time of the run; paper: communication and "
        "storage (FCDCC, section V), with every layer gathered on one worker",
    )
    memory: Bytes | None = Field(
        None,
        description="memory per worker, such as 4GB; a plan that needs more is refused  [default: "
        "from the workers]",
    )
    in_flight: int | None = Field(
        None, ge=1, le=MAX_IN_FLIGHT, description="blocks computed at a time  [default: planned]"
    )
    band: int | None = Field(
        None,
        ge=1,
        le=MAX_ROWS,
        description="rows of a dense prediction per block, for images that are too large to "
        "compute whole  [default: planned]",
    )
    tile: Sizes | None = Field(
        None,
        description="runs a sliding window of so many pixels over each image: one number, or one "
        "for each spatial axis, separated by commas  [default: the size that the model takes, if "
        "images are larger; else whole images]",
    )
    overlap: Sizes | None = Field(
        None,
        description="pixels that neighbouring tiles have in common, at least: one number, or one "
        "for each axis  [default: an eighth of a tile]",
    )
    blend: Blend = Field(
        "hann",
        description="how predictions of overlapping tiles are weighted where they are blended. "
        "hann, linear: they fall off over the overlap; gaussian: from the middle of the tile on; "
        "constant: they are averaged",
    )
    calibrate: bool = Field(
        False, description="measure the workers' speed for this plan, and save it for later plans"
    )
    input_array: Names | None = Field(
        None,
        description="name of the image array in a group; several, separated by commas or given one "
        "by one, are stacked as channels  [default: image, or the only array]",
    )
    channels: Names | None = Field(
        None,
        description="the channels to use, in this order: numbers that count from 0, or names, "
        "separated by commas  [default: all]",
    )
    scale: Scale = Field(
        "auto",
        description="auto: divide unsigned bytes by 255; none: use the values as they are; max: "
        "divide integers by the largest of their type; a number: divide by it",
    )
    mean: Numbers | None = Field(
        None,
        description="subtracted from the scaled values: one number, or one per channel  [default: "
        "as the model file says, else none]",
    )
    std: Numbers | None = Field(
        None,
        description="divides the values after that: one number, or one per channel  [default: as "
        "the model file says, else none]",
    )

    head: HeadKind | None = Field(
        None,
        description="what the network predicts: logits, probabilities, score (one number), labels "
        "(several that do not exclude each other), label-map (class numbers), mask, embedding or "
        "dense (a number per class and place)  [default: found out]",
    )
    outputs: Names | None = Field(
        None,
        description="name of an output of the network that is predicted; may be given several "
        "times  [default: all that have an entry for each image]",
    )

    @field_validator("tile")
    @classmethod
    def _tiles_have_pixels(cls, tile: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if tile is not None and min(tile) < 1:
            raise ValueError("expected 1 pixel or more along each axis")
        return tile

    @model_validator(mode="after")
    def _some_shares_must_remain(self) -> Self:
        most = MAX_SHARES if self.n == AUTO else self.n
        if self.tolerate != AUTO and self.tolerate >= most:
            raise ValueError(
                f"--tolerate {self.tolerate} of --n {self.n} shares leaves none to decode from: "
                f"expected at most {most - 1}"
            )
        return self

    @model_validator(mode="after")
    def _uncoded_tolerates_no_loss(self) -> Self:
        if self.code == "uncoded" and self.tolerate not in (AUTO, 0):
            raise ValueError(
                f"--tolerate {self.tolerate} with --code uncoded, which tolerates no loss: leave "
                "--tolerate out, or use another code"
            )
        return self

    @model_validator(mode="after")
    def _verify_needs_spare_shares(self) -> Self:
        no_spare = self.code == "uncoded" or self.tolerate == 0
        if self.compares_shares and (self.redundancy == "off" or no_spare):
            raise ValueError(
                f"--verify {self.verify} compares more shares than are needed, and there are none "
                + ("with --redundancy off" if self.redundancy == "off" else "if none may be lost")
                + ": leave one of the two options out"
            )
        return self

    @property
    def compares_shares(self) -> bool:
        """Whether shares of a layer are compared with each other, which needs a spare one."""
        return self.verify in ("spare", "all")

    @property
    def shares(self) -> int:
        """The number n.

        Raises
        ------
        ValueError
            If it is ``auto``: :func:`..planner.share_counts.with_share_counts` chooses it.
        """
        if self.n == AUTO:
            raise ValueError("n is auto: it must be chosen for the workers first")
        return self.n

    @property
    def delta(self) -> int:
        """δ = n − γ: the number of shares that suffice.

        Raises
        ------
        ValueError
            If n or γ is ``auto``.
        """
        if self.code == "uncoded":
            return self.shares
        if self.tolerate == AUTO:
            raise ValueError("tolerate is auto: it must be chosen for the workers first")
        return self.shares - self.tolerate


class PlanKeywords(TypedDict, total=False):
    """The options of :class:`PlanOptions` as keywords, as type checkers and editors see them."""

    n: int | Literal["auto"]
    tolerate: int | Literal["auto"]
    code: CodeName
    split: Literal["auto", "rows", "images"]
    redundancy: Literal["eager", "standby", "off"]
    verify: Literal["off", "spare", "all", "checksum"]
    batch: int | None
    limit: int | None
    dtype: Literal["auto", "float32", "float64", "bfloat16"]
    engine: Literal["auto", "eager", "fused"]
    objective: Literal["time", "paper"]
    memory: int | str | None
    in_flight: int | None
    band: int | None
    tile: int | str | Sequence[int] | None
    overlap: int | str | Sequence[int] | None
    blend: Blend
    calibrate: bool
    input_array: str | Sequence[str] | None
    channels: int | str | Sequence[int | str] | None
    scale: float | Literal["auto", "none", "max"]
    mean: float | Sequence[float] | None
    std: float | Sequence[float] | None
    head: HeadKind | None
    outputs: str | Sequence[str] | None


Function = TypeVar("Function", bound=Callable[..., Any])


def shows_options(function: Function) -> Function:
    """Have ``help`` and notebooks show the options of a function as keywords with their defaults.

    Type checkers know them from :class:`PlanKeywords`. An option that is not given is not passed
    on, so the function can tell which are.
    """
    signature = inspect.signature(function)
    named = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    types = PlanKeywords.__annotations__
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=types[name])
        for name, field in PlanOptions.model_fields.items()
    ]
    shown: Any = function
    shown.__signature__ = signature.replace(parameters=[*named, *options])
    return function


class JobConfig(PlanOptions):
    """A job: its model, images and output, and how to run it.

    Raises
    ------
    OptionError
        If an option is invalid; the message names each, what was given and what was expected.

    Examples
    --------
    >>> job = JobConfig(model="model.pt2", input="images.zarr", output="out.zarr", workers=4)
    >>> job.workers, job.n, job.dtype
    (4, 'auto', 'float32')
    >>> JobConfig(model="model.pt2", input="images.zarr", output="out.zarr", batch=0)
    Traceback (most recent call last):
    fcdcc.pipeline.errors.OptionError: batch was given as 0: input should be greater than or ...
    """

    model: Place = Field(description="a .pt2 file")
    input: Place = Field(description="a Zarr array or group: path or URL")
    output: Place = Field(description="a Zarr group, created if it does not exist")
    inputs: Names | None = Field(
        None,
        description="NAME=VALUE: fixes a number that the model takes beside the images; may be "
        "given several times  [default: none]",
    )
    absent: Literal["redo", "fail"] = Field(
        "redo",
        description="chunks of the images that are not stored. redo: they are read as the fill "
        "value, and blocks that need them are made again once they are there; fail: these blocks "
        "fail",
    )
    compare: Literal["listing", "contents"] = Field(
        "listing",
        description="how images are found that changed since their blocks were made. listing: by "
        "the sizes, times and ETags that their store lists; contents: all images are read and "
        "compared",
    )
    plan: Place | None = Field(
        None, description="use the plan saved in this file by fcdcc plan --json FILE"
    )
    store: str = Field(
        "logits", description="what is stored: logits, probabilities, classes or top:K"
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="the probability above which a score, a label or a place of a mask is 1, with "
        "--store classes  [default: 0.5]",
    )
    classes: Place | None = Field(None, description="text file with the class names, one per line")
    scheduler: str | None = Field(
        None,
        description="address of a running Dask scheduler, or its scheduler file (.json); without "
        "it, a local cluster is started",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=MAX_WORKERS,
        description="number of workers of the local cluster; without it, one for each core of this "
        "process, as far as memory allows",
    )
    processes: bool = Field(
        True,
        description="local workers are processes, or threads of this process  [default: processes]",
    )
    threads_per_worker: int = Field(
        1, ge=1, le=MAX_THREADS, description="tasks that a local worker runs at a time"
    )
    torch_threads: int = Field(1, ge=1, le=MAX_THREADS, description="threads per PyTorch operation")
    dashboard_address: str = Field(
        ":8787",
        description="address of the dashboard of the local cluster. :PORT: for this machine only; "
        "HOST:PORT: where HOST is, such as 0.0.0.0 for all interfaces",
    )
    tls_ca_file: Place | None = Field(
        None, description="TLS: file with the certificate authority of the scheduler"
    )
    tls_cert: Place | None = Field(None, description="TLS: file with the certificate of the client")
    tls_key: Place | None = Field(None, description="TLS: file with the key of that certificate")
    restart: bool = Field(
        False, description="if OUTPUT belongs to another job, rename it and start a new one"
    )
    progress: bool | None = Field(None, description="show a progress bar  [default: on a terminal]")

    @field_validator("store")
    @classmethod
    def _store_names_a_form(cls, text: str) -> str:
        StoredForm.parse(text)
        return text

    @field_validator("inputs")
    @classmethod
    def _inputs_have_values(cls, items: tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = [item.partition("=")[0] for item in items or ()]
        for item, name in zip(items or (), names, strict=True):
            if not name or not item.partition("=")[2]:
                raise ValueError("expected NAME=VALUE, such as threshold=0.5")
            if names.count(name) > 1:
                raise ValueError(f"{name} has two values: leave one of them out")
        return items

    @property
    def fixed_inputs(self) -> dict[str, str]:
        """The values of ``inputs`` by the names."""
        pairs = (item.partition("=") for item in self.inputs or ())
        return {name: value for name, _, value in pairs}

    @field_validator("dashboard_address")
    @classmethod
    def _dashboard_has_a_port(cls, text: str) -> str:
        found = DASHBOARD_ADDRESS.fullmatch(text)
        if found is None or int(found[1]) >= 1 << 16:
            raise ValueError("expected :PORT or HOST:PORT with a port up to 65535, such as :8787")
        return text

    @model_validator(mode="after")
    def _tls_files_go_together(self) -> Self:
        files = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if any(files) and not all(files):
            raise ValueError("--tls-ca-file, --tls-cert and --tls-key go together: give all three")
        return self


_OPTION = re.compile(
    r"(?<![\w/-])--(?P<name>[\w-]+)"
    rf"(?:(?P<unknown>{_NO_SUCH_OPTION})| (?P<value>[a-z0-9][\w/,:.+]*))?"
    r"|(?P<argument>MODEL|INPUT|OUTPUT)(?= is needed| was given)"
)
"""An option of the command line in a message, perhaps with its value."""

_STORE_WORDS = re.compile(r"logits|probabilities|classes|top:\d+")


def with_keywords(message: str) -> str:
    """Return a message that names keywords of Python in place of options of the command line.

    >>> with_keywords("--split images with --n 6: raise --batch, or take --split rows")
    'split="images" with n=6: raise batch, or take split="rows"'
    """
    return _OPTION.sub(_keyword, message)


def _keyword(found: re.Match[str]) -> str:
    """Return the keyword for an option of the command line."""
    name = (found["name"] or found["argument"].lower()).replace("-", "_")
    if found["argument"] is None:
        name = next((option for option, flag in FLAGS.items() if flag == name), name)
    if found["unknown"] is not None:
        return name + found["unknown"]
    field = JobConfig.model_fields.get(name)
    if field is None:
        return found[0]
    if field.annotation in (bool, bool | None):
        name += "=True"
    if found["value"] is None:
        return name
    value = found["value"].rstrip(",:.")
    rest = found["value"][len(value) :]
    if re.fullmatch(r"[0-9.]+(e[+]?[0-9]+)?", value):
        return f"{name}={value}{rest}"
    is_word = name == "store" and _STORE_WORDS.fullmatch(value)
    if is_word or value[0].isdigit() or value in _words_of(field.annotation):
        return f'{name}="{value}"{rest}'
    return f"{name} {value}{rest}"


def _words_of(annotation: object) -> Iterator[str]:
    """Yield the words that an option may be."""
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        else:
            yield from _words_of(part)


@contextmanager
def keywords_named() -> Iterator[None]:
    """Name keywords of Python in the messages of errors that arise inside.

    Messages are written for the command line; this is for the functions that Python calls.
    """
    try:
        yield
    except FcdccError as error:
        error.args = tuple(with_keywords(x) if isinstance(x, str) else x for x in error.args)
        raise


@contextmanager
def called_from_python() -> Iterator[None]:
    """Make errors that arise inside right for callers from Python: the outermost guard of these.

    Raises
    ------
    BadValueError
        As for :func:`bad_values_refused`.
    """
    with keywords_named(), bad_values_refused():
        yield


class CommandOptions(_Options):
    """Options of a command that do not belong to the job: its result file and its logs."""

    json_file: str | None = Field(
        None,
        alias="json",
        description="write the result as JSON to this file; - for standard output",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="least severe level that is logged, on standard error"
    )
    log_format: LogFormat = Field(
        "text", description="text: lines to read; json: one JSON object per line"
    )


def _with_options(doc: str, fields: Mapping[str, FieldInfo]) -> str:
    """Return a docstring with options as its parameters, before its errors."""
    listed = [f"{name}\n    {field.description}" for name, field in fields.items()]
    head, raises, rest = inspect.cleandoc(doc).partition("Raises\n")
    return "\n".join([f"{head}Parameters", "----------", *listed, "", raises + rest, ""])


JobConfig.__doc__ = _with_options(JobConfig.__doc__ or "", JobConfig.model_fields)
