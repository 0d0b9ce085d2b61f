"""How a network is run over images of one shape: a value that is printed, saved and compared.

A :class:`Plan` holds the options of a run and a :class:`LayerPlan` for every convolution. The
planner makes it, the graph of each block is built from it, and workers run by it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Annotated, Literal, TypeAlias

from dask.typing import Key
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from fcdcc.coding import Code, CodedConv, ConvGeometry, make_code
from fcdcc.coding.apcp import partition_images

from ..errors import PlanError
from ..options import MAX_BATCH, MAX_IN_FLIGHT, MAX_SHARES
from .forecast import Forecast

Redundancy = Literal["eager", "standby", "off"]

Split = Literal["rows", "images"]

Form = Literal["gathered", "rows", "images"]
"""How the blocks are computed: each layer gathered and decoded on one worker; or strips of rows, or
runs of images, that stay with their workers."""

Verify = Literal["off", "spare", "all", "checksum"]

Objective = Literal["time", "paper"]

PLAN_FORMAT = 3
"""The version of a saved plan; older ones stay readable. 2 added bands. 3 added the form and
dropped the placement, which always gave position i the seat i."""

MAX_PARTS = 4 * MAX_SHARES
MAX_COUNT = 2**31
"""Largest numbers in a saved plan: of parts of a layer, and of images and rows."""

Shares: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SHARES)]
Parts: TypeAlias = Annotated[int, Field(ge=1, le=MAX_PARTS)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_COUNT)]

LEFT_OUT = "left out: "
"""How lines of :attr:`Plan.prediction` begin that name what is no output of the network."""

PART_OF_NEXT_SHARE = "part of the share of the next coded layer"
"""The reason why a convolution has no code of its own: shares of a later one compute it."""

SLICE_MULTIPLY_ADDS = 8e9
"""Multiply-adds after which a share checks whether it is still wanted: about 200 ms."""

SHALLOW_SLICE_MULTIPLY_ADDS = 1e10
"""The same for a convolution whose outputs are sums of fewer than :data:`DEEP_SUM` products."""

DEEP_SUM = 1000
"""Products per output from which on the cost of copying a slice into the result is small."""

MAX_SLICES = 16
"""Most slices that a share is cut into."""


@dataclass(frozen=True)
class CodeSpec:
    """A code by name and parameters: what a saved plan holds in place of its matrices."""

    name: str
    n: Shares
    k_a: Parts
    k_b: Parts
    parity: Literal["quaternion", "complex", "real"] | None = None
    """Of the systematic code; None for its default, quaternions, and for other codes."""

    @cached_property
    def code(self) -> Code:
        """The code itself."""
        options = {} if self.parity is None else {"parity": self.parity}
        return make_code(self.name, n=self.n, k_a=self.k_a, k_b=self.k_b, **options)


@dataclass(frozen=True)
class LayerPlan:
    """How one convolution is run.

    Parameters
    ----------
    layer
        Its number: the index of its stage in the network, and the layer in task keys.
    name
        Its name in the model.
    geometry
        Its shapes, for one image.
    code
        The code of its shares; None where it has none of its own.
    split
        What the input's parts are: runs of output rows, or of the block's images.
    reason
        Why it is not coded, or why it is gathered; '' if there is no reason to give.
    in_place
        Whether the strips of the output stay with the workers that made them. Otherwise they
        are gathered on one worker after the layer.
    windows
        Entries of its input along the first axis for each image: more than one where the network
        puts windows or groups of channels beside the images.
    """

    layer: int
    name: str
    geometry: ConvGeometry
    code: CodeSpec | None
    split: Split = "rows"
    reason: str = ""
    in_place: bool = False
    windows: Count = 1

    @property
    def multiply_adds(self) -> int:
        """Of the uncoded layer, for one image."""
        return self.geometry.multiply_adds * self.windows

    def entries(self, images: int) -> int:
        """Return how long the first axis of its input is for so many images."""
        return images * self.windows

    @cached_property
    def coded_conv(self) -> CodedConv:
        """The coded convolution.

        Raises
        ------
        PlanError
            If the layer is not coded.
        """
        if self.code is None:
            raise PlanError(f"layer {self.layer} ({self.name}) is not coded: {self.reason}")
        return CodedConv(self.geometry, self.code.code, self.split)

    @cached_property
    def parity(self) -> frozenset[int]:
        """The positions that hold parity; none where every share is coded, as in the CRME."""
        if self.code is None or not self.uncoded:
            return frozenset()
        return frozenset(range(self.code.n)) - self.uncoded

    @cached_property
    def uncoded(self) -> frozenset[int]:
        """The positions that together are the layer, with nothing to solve for; or none."""
        if self.code is None:
            return frozenset()
        first = range(self.code.code.recovery_threshold)
        return frozenset(first) if all(map(self.coded_conv.is_plain, first)) else frozenset()

    @property
    def is_part_of_next_share(self) -> bool:
        """Whether the shares of the next coded layer compute this convolution, too."""
        return self.code is None and self.reason == PART_OF_NEXT_SHARE

    def slices(self, entries: int) -> int:
        """Return how many slices a share is computed in: it may stop between two of them.

        A slice is copied to its place, which costs little beside a convolution with many
        multiply-adds for each number that it makes.
        """
        if self.code is None:
            return 1
        work = self.geometry.multiply_adds * entries / self.code.code.recovery_threshold
        is_deep = math.prod(self.geometry.weight_shape[1:]) >= DEEP_SUM
        size = SLICE_MULTIPLY_ADDS if is_deep else SHALLOW_SLICE_MULTIPLY_ADDS
        return max(1, min(MAX_SLICES, round(work / size)))


@dataclass(frozen=True, repr=False)
class Plan:
    """How a network is run over images of one shape.

    Parameters
    ----------
    network
        Fingerprint of the network that it was made for.
    image_shape
        (C, *space) of one image.
    n, tolerate, code, redundancy, dtype, verify
        The options of these names.
    split
        What the parts of a block are: rows of each layer's output, or runs of its images.
    form
        Where these parts are: see :data:`Form`.
    batch
        Images per block.
    in_flight
        Blocks that are worked on at a time.
    layers
        Every convolution, in order.
    warnings
        What the user should know before running it.
    band
        Rows of the prediction per block; None where blocks hold whole images.
    format
        The version that it is saved in.
    objective
        The criterion by which it was chosen among candidates.
    forecast
        What it costs on the workers that it was made for; None in plans of older versions.
    prediction
        What the network predicts, in words, a line for each output, and a line that begins with
        :data:`LEFT_OUT` for what is no output; empty in plans of older versions.
    batch_reason
        Why a block has that many images, in words; empty in plans of older versions.
    checksums_cover
        Which part of the arithmetic ``verify`` checksum covers, in words; empty in plans of older
        versions.

    ``print`` shows every layer, a notebook the table of ``fcdcc plan``, and ``repr`` one line.

    Examples
    --------
    >>> from fcdcc.pipeline import Plan, open_model, plan
    >>> made = plan(open_model("model.pt2"), "images.zarr", n=6, tolerate=2)
    >>> Plan.from_json(made.to_json()) == made
    True
    >>> sorted(made.protected_layers) == [layer.layer for layer in made.layers]
    True
    """

    network: str
    image_shape: tuple[Count, ...]
    n: Shares
    tolerate: Annotated[int, Field(ge=0, lt=MAX_SHARES)]
    code: str
    split: Split
    form: Form
    redundancy: Redundancy
    dtype: Literal["float32", "float64", "bfloat16"]
    batch: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    in_flight: Annotated[int, Field(ge=1, le=MAX_IN_FLIGHT)]
    layers: tuple[LayerPlan, ...]
    warnings: tuple[str, ...] = ()
    band: Count | None = None
    verify: Verify = "off"
    format: int = field(default=PLAN_FORMAT)
    objective: Objective = "time"
    forecast: Forecast | None = None
    prediction: str = ""
    batch_reason: str = field(default="", compare=False)
    checksums_cover: str = field(default="", compare=False)

    # ------------------------------------------------------------------ layers

    @cached_property
    def _by_layer(self) -> dict[int, LayerPlan]:
        return {layer.layer: layer for layer in self.layers}

    def layer(self, number: int) -> LayerPlan:
        """Return the plan of one layer.

        Raises
        ------
        PlanError
            If no convolution has this number.
        """
        try:
            return self._by_layer[number]
        except KeyError:
            raise PlanError(
                f"layer {number} is not in the plan; it has {sorted(self._by_layer)}"
            ) from None

    @property
    def coded_layers(self) -> frozenset[int]:
        """The numbers of the convolutions that are coded."""
        return frozenset(layer.layer for layer in self.layers if layer.code is not None)

    @property
    def protected_layers(self) -> frozenset[int]:
        """The numbers of the convolutions that are computed in shares of which some may be lost.

        These are the coded ones and those that the shares of a coded one compute on the way.
        """
        if self.redundancy == "off" or not self.tolerate:
            return frozenset()
        return frozenset(
            layer.layer
            for layer in self.layers
            if layer.code is not None or layer.is_part_of_next_share
        )

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all convolutions for one image, uncoded."""
        return sum(layer.multiply_adds for layer in self.layers)

    # ------------------------------------------------------------------ shares

    @property
    def compares_shares(self) -> bool:
        """Whether shares travel with what is needed to compare them."""
        return self.verify in ("spare", "all")

    @property
    def delta(self) -> int:
        """δ = n − γ: how many shares suffice."""
        return self.n - self.tolerate

    def shares_started(self, layer: LayerPlan) -> range:
        """Return the positions of a layer that are in the graph: n, or δ without redundancy."""
        if layer.code is None:
            return range(0)
        spare = self.redundancy != "off"
        return range(layer.code.n if spare else layer.code.code.recovery_threshold)

    def standby_positions(self, layer: LayerPlan) -> tuple[int, ...]:
        """Return the positions of a layer that do not start before they are needed."""
        if self.redundancy != "standby":
            return ()
        parity = tuple(sorted(layer.parity))
        return parity[1:] if self.verify == "all" else parity

    def shares_waited_for(self, layer: LayerPlan) -> int:
        """Return how many shares a gathered layer, or its check, waits for."""
        delta = layer.coded_conv.code.recovery_threshold
        return delta + 1 if self.verify == "all" else delta

    def shares_of_part(
        self, layer: LayerPlan, shares: Mapping[int, Key], part: int
    ) -> dict[int, Key]:
        """Return the shares that a part can be made from: only its own without redundancy."""
        if self.redundancy == "off" and part in layer.uncoded:
            return {part: shares[part]}
        return dict(shares)

    def images_per_share(self, images: int) -> int:
        """Return how many images of a block one systematic share has, if split by images."""
        parts = next((layer.code.k_a for layer in self.layers if layer.code), self.delta)
        return partition_images(images, parts).per_part * (parts // self.delta)

    @property
    def part_images(self) -> int:
        """Images of a full block that one task reads."""
        return self.images_per_share(self.batch) if self.form == "images" else self.batch

    # ---------------------------------------------------------- other versions

    def with_run_options(
        self, redundancy: Redundancy, in_flight: int | None, verify: Verify = "off"
    ) -> Plan:
        """Return the plan with what may change from one run of a job to the next."""
        return replace(
            self, redundancy=redundancy, in_flight=in_flight or self.in_flight, verify=verify
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that determines the predictions and how they are computed."""
        decides = replace(
            self, forecast=None, warnings=(), prediction="", batch_reason="", checksums_cover=""
        )
        return hashlib.sha256(decides.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the plan as JSON; :meth:`from_json` is its inverse."""
        return _adapter().dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Return the plan that :meth:`to_json` wrote, in this version or an older one.

        Raises
        ------
        PlanError
            If it is not a saved plan, was written by a later version, or contradicts itself.
        """
        try:
            saved = from_json(text)
        except ValueError as error:
            raise PlanError(f"not a saved plan: the file: {error}") from None
        version = saved.get("format", 1) if isinstance(saved, dict) else PLAN_FORMAT
        if isinstance(version, int) and version > PLAN_FORMAT:
            raise PlanError(
                f"the plan has format {version}; this version reads up to {PLAN_FORMAT}: "
                "update fcdcc"
            )
        is_old = version in (1, 2)
        if is_old:  # the form follows from its layers, once these are checked
            saved |= {"format": PLAN_FORMAT, "form": "gathered"}
        try:
            plan = _adapter().validate_python(saved)
        except (RecursionError, ValidationError) as error:
            if isinstance(error, RecursionError):
                raise PlanError("not a saved plan: it is nested too deeply") from None
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise PlanError(f"not a saved plan: {where}: {first['msg']}") from None
        form = form_of(plan.split, plan.layers, plan.band)
        if is_old:
            return replace(plan, form=form)
        if plan.form != form:
            raise PlanError(
                f"the plan has the form {plan.form!r} and its layers are planned for {form!r}: "
                "make it again with fcdcc plan --json FILE"
            )
        return plan

    # ----------------------------------------------------------------- display

    def __str__(self) -> str:
        return _views["text"](self)

    def __repr__(self) -> str:
        return _views["line"](self)

    def _repr_html_(self) -> str:
        return _views["html"](self)


def form_of(split: Split, layers: Iterable[LayerPlan], band: int | None) -> Form:
    """Return the form of the blocks that are split so, with these layers and bands."""
    if split == "images":
        return "images"
    stay = band is not None or any(layer.in_place for layer in layers)
    return "rows" if stay else "gathered"


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


_views: dict[Literal["text", "line", "html"], Callable[[Plan], str]] = {}


def show_plans_with(
    text: Callable[[Plan], str], line: Callable[[Plan], str], html: Callable[[Plan], str]
) -> None:
    """Set what ``str(plan)``, ``repr(plan)`` and a notebook show.

    The package does so when it is imported: :mod:`.display` imports this module, which must not
    import it in turn.
    """
    _views.update({"text": text, "line": line, "html": html})
