"""The options of a job, checked: one definition for the command line, files and Python.

A name here is the option of the command line with ``_`` for ``-``, the key of a job file and
the keyword in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from .errors import OptionError
from .prediction_format import StoredForm


def _several(value: object) -> object:
    """Return one number as a tuple of it, and a list as a tuple."""
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, int | float) else value


def _parsed(value: object) -> object:
    """Return bytes such as 4GB as a number."""
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ValueError:
        raise ValueError("expected bytes, such as 4GB or 900MiB") from None


ARGUMENTS = ("model", "input", "output")
"""Options that the command line takes without a name."""

CodeName = Literal[
    "systematic", "crme", "polynomial", "chebyshev", "khatri-rao", "replication", "uncoded"
]
LogFormat = Literal["text", "json"]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_several)]
Bytes = Annotated[int, BeforeValidator(_parsed), Field(gt=0)]


class _Options(BaseModel):
    """Options that cannot be changed once they are checked, and say in a line what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Return the options, those that are None left at their defaults.

        Raises
        ------
        OptionError
            With one line that names the option, what was given and what was expected.
        """
        given = {name: value for name, value in options.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            raise OptionError("; ".join(_in_words(item) for item in error.errors())) from None


def _in_words(item: Mapping[str, Any]) -> str:
    """Return one of pydantic's complaints as ``--option: what is wrong``."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    option = str(item["loc"][0])
    name = option.upper() if option in ARGUMENTS else "--" + option.replace("_", "-")
    if item["type"] == "extra_forbidden":
        return f"{name}: there is no such option"
    if item["type"] == "missing":
        return f"{name} is needed"
    return f"{name} was given as {item['input']!r}: {message[0].lower()}{message[1:]}"


class PlanOptions(_Options):
    """What decides how a network is run and what comes out."""

    n: int = Field(6, ge=1, le=4096, description="shares per coded layer")
    tolerate: int = Field(2, ge=0, description="γ: how many of the n shares may be lost")
    code: CodeName = Field("systematic", description="the code of the shares")
    split: Literal["auto", "rows", "images"] = Field(
        "auto",
        description="what the parts of a block are. images: runs of its images; rows: strips of "
        "every layer; auto: images where the blocks hold enough of them",
    )
    redundancy: Literal["eager", "standby", "off"] = Field(
        "standby",
        description="eager: all n shares start; standby: parity starts when a share is late "
        "(codes without parity: all n shares start); "
        "off: no parity, and nothing may be lost",
    )
    verify: Literal["off", "spare", "all"] = Field(
        "off",
        description="spare: check layers of which more shares than needed are there anyway; "
        "all: wait for one more than needed and check every layer; where shares contradict each "
        "other the block is done again, with all n, and the wrong ones are left out",
    )
    batch: int | None = Field(None, ge=1, description="images per block")
    limit: int | None = Field(None, ge=1, description="only the first so many images")
    dtype: Literal["float32", "float64"] = Field("float32", description="arithmetic")
    objective: Literal["time", "paper"] = Field(
        "time",
        description="what is planned for. time: the shortest run; paper: the least "
        "communication and storage (FCDCC, section V), every layer gathered",
    )
    memory: Bytes | None = Field(
        None, description="allowed per worker, such as 4GB; a plan that needs more is refused"
    )
    in_flight: int | None = Field(None, ge=1, description="blocks in flight")
    band: int | None = Field(
        None,
        ge=1,
        description="rows of a dense prediction per block, for images that are too large to be "
        "computed at once",
    )
    calibrate: bool = Field(
        False, description="measure the workers' speed for the plan, and save it for later ones"
    )
    input_array: str | None = Field(None, description="the array in a group")
    scale: Literal["auto", "none"] = Field(
        "auto", description="auto: unsigned bytes are scaled to [0, 1]"
    )
    mean: Numbers | None = Field(None, description="one number, or one per channel")
    std: Numbers | None = Field(None, description="one number, or one per channel")

    @model_validator(mode="after")
    def _losses_leave_something(self) -> Self:
        if self.tolerate >= self.n:
            raise ValueError(
                f"--tolerate {self.tolerate} of --n {self.n} shares leaves none to decode from: "
                f"expected at most {self.n - 1}"
            )
        return self

    @model_validator(mode="after")
    def _uncoded_tolerates_nothing(self) -> Self:
        if self.code == "uncoded" and self.tolerate and "tolerate" in self.model_fields_set:
            raise ValueError(
                f"--tolerate {self.tolerate} with --code uncoded, which tolerates no loss: leave "
                "--tolerate out, or take another code"
            )
        return self

    @model_validator(mode="after")
    def _checking_needs_spare_shares(self) -> Self:
        if self.verify != "off" and (self.redundancy == "off" or self.delta == self.n):
            raise ValueError(
                f"--verify {self.verify} compares more shares than are needed, and with "
                + ("--redundancy off" if self.redundancy == "off" else "nothing that may be lost")
                + " there are none: leave one of the two out"
            )
        return self

    @property
    def delta(self) -> int:
        """δ = n − γ: how many shares suffice."""
        return self.n if self.code == "uncoded" else self.n - self.tolerate


class JobConfig(PlanOptions):
    """A job: a model, images, a place for the predictions, and how to run it."""

    model: str = Field(description="a .pt2 file")
    input: str = Field(description="a Zarr array or group, path or URL")
    output: str = Field(description="a Zarr group, made if it is not there")
    plan: str | None = Field(
        None, description="a saved plan to use (fcdcc plan --json FILE makes one)"
    )
    store: str = Field("logits", description="logits, probabilities, classes or top:K")
    classes: str | None = Field(None, description="a file with the classes' names, one per line")
    scheduler: str | None = Field(None, description="address of a Dask scheduler")
    workers: int | None = Field(None, ge=1, description="workers of the local cluster")
    processes: bool = Field(True, description="worker processes, or threads of this one")
    threads_per_worker: int = Field(1, ge=1, description="tasks at a time per worker")
    torch_threads: int = Field(1, ge=1, description="threads of one operation")
    dashboard_address: str = Field(":8787", description="of the local cluster's dashboard")
    tls_ca_file: str | None = Field(
        None, description="TLS: the authority that signed the scheduler's certificate"
    )
    tls_cert: str | None = Field(None, description="TLS: our certificate")
    tls_key: str | None = Field(None, description="TLS: the key of our certificate")
    restart: bool = Field(
        False, description="put an output of another job aside (renamed) and begin anew"
    )
    progress: bool | None = Field(None, description="show a progress bar")

    @field_validator("store")
    @classmethod
    def _store_is_a_form(cls, text: str) -> str:
        StoredForm.parse(text)
        return text

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if any(files) and not all(files):
            raise ValueError("--tls-ca-file, --tls-cert and --tls-key go together: give all three")
        return self


class CommandOptions(_Options):
    """What the command that runs a job says, and where."""

    json_file: str | None = Field(
        None, alias="json", description="write the summary as JSON; - for standard output"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="what is logged, on standard error"
    )
    log_format: LogFormat = Field(
        "text", description="lines for people, or one JSON object per line"
    )
