"""What will run, as a value: printed, saved, compared, and executed by somebody else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from dask.typing import Key
from pydantic import TypeAdapter, ValidationError

from fcdcc.coding import Code, CodedConv, ConvGeometry, make_code
from fcdcc.coding.apcp import partition_images

from ..errors import PlanError
from .forecast import Forecast

PART_OF_NEXT = "part of the share of the next coded layer"
"""Why a convolution is not coded whose loss is covered all the same."""

Redundancy = Literal["eager", "standby", "off"]

Split = Literal["rows", "images"]

Verify = Literal["off", "spare", "all"]

Objective = Literal["time", "paper"]

PLAN_FORMAT = 2
"""The version of a saved plan; older ones stay readable. 2 has bands."""

SLICE = 8e9
"""Multiply-adds between two questions whether a share is still wanted: some 200 ms."""

LONG_SLICE = 1e10
"""The same for a convolution with fewer than ``DEEP`` multiply-adds for each output."""

DEEP = 1000

MOST_SLICES = 16


@dataclass(frozen=True)
class CodeSpec:
    """A code by name and parameters: what a saved plan holds in place of its matrices."""

    name: str
    n: int
    k_a: int
    k_b: int
    parity: Literal["quaternion", "real"] | None = None
    """Of the systematic code; None for its default, and for other codes."""

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
        Its name in the model, for people.
    geometry
        Its shapes, for one image.
    code
        The code of its shares; None where it is run whole.
    split
        What the input's parts are: runs of output rows, or of the block's images.
    in_place
        Whether the parts of the output stay with the workers that made them. Otherwise they
        are gathered: on one worker, after every layer.
    reason
        Why this, in words, where there is something to say.
    """

    layer: int
    name: str
    geometry: ConvGeometry
    code: CodeSpec | None
    split: Split = "rows"
    reason: str = ""
    in_place: bool = False

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
        """The positions that hold parity; none where no share is uncoded, as in the CRME."""
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

    def slices(self, images: int) -> int:
        """Return in how many slices a share works, to ask in between whether it is wanted.

        A slice is copied to its place, which costs little beside a convolution with many
        multiply-adds for each number that it makes.
        """
        if self.code is None:
            return 1
        coded, geometry = self.code.code, self.geometry
        reduction = math.prod(geometry.weight_shape[1:])
        work = geometry.multiply_adds * images / coded.recovery_threshold
        return max(1, min(MOST_SLICES, round(work / (SLICE if reduction >= DEEP else LONG_SLICE))))


@dataclass(frozen=True)
class Placement:
    """Which shares sit beside each other: position ``order[i]`` has seat i.

    Seats are dealt to the workers in turn, and every block begins at another worker, so that
    no worker always holds the same position.
    """

    order: tuple[int, ...]

    def seats(self, positions: Iterable[int]) -> dict[int, int]:
        """Return the seat of each of these positions."""
        seat_of = {position: seat for seat, position in enumerate(self.order)}
        return {position: seat_of[position] for position in positions}


@dataclass(frozen=True)
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
        What the parts of a block are: rows of each layer's output, gathered after each, or
        runs of its images, which stay with their workers.
    batch
        Images per block.
    fixed_batch
        Whether the network takes blocks of exactly ``batch`` images; then the last is padded.
    in_flight
        Blocks that are worked on at a time.
    layers
        Every convolution, in order.
    placement
        Of the shares over the workers.
    band
        Rows of the prediction per block; None where blocks hold whole images.
    warnings
        What whoever runs it should know.
    objective
        What it is best at, of what could have been planned.
    forecast
        What it costs on the workers that it was made for; None in plans of older versions.
    """

    network: str
    image_shape: tuple[int, ...]
    n: int
    tolerate: int
    code: str
    split: Split
    redundancy: Redundancy
    dtype: Literal["float32", "float64"]
    batch: int
    fixed_batch: bool
    in_flight: int
    layers: tuple[LayerPlan, ...]
    placement: Placement
    warnings: tuple[str, ...] = ()
    band: int | None = None
    verify: Verify = "off"
    format: int = field(default=PLAN_FORMAT)
    objective: Objective = "time"
    forecast: Forecast | None = None

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

    def shares_started(self, layer: LayerPlan) -> range:
        """Return the positions of a layer that are in the graph: n, or δ with nothing spare."""
        if layer.code is None:
            return range(0)
        spare = self.redundancy != "off"
        return range(layer.code.n if spare else layer.code.code.recovery_threshold)

    def standby_positions(self, layer: LayerPlan) -> tuple[int, ...]:
        """Return the positions of a layer that are held back until they are needed."""
        if self.redundancy != "standby":
            return ()
        held = tuple(sorted(layer.parity))
        return held[1:] if self.verify == "all" else held

    def shares_waited_for(self, layer: LayerPlan) -> int:
        """Return how many shares a gathered layer, or its check, waits for."""
        delta = layer.coded_conv.code.recovery_threshold
        return delta + 1 if self.verify == "all" else delta

    def shares_of_part(
        self, layer: LayerPlan, shares: Mapping[int, Key], part: int
    ) -> dict[int, Key]:
        """Return the shares that a part can be made from: with nothing spare its own alone."""
        if self.redundancy == "off" and part in layer.uncoded:
            return {part: shares[part]}
        return dict(shares)

    @property
    def delta(self) -> int:
        """δ = n − γ: how many shares suffice."""
        return self.n - self.tolerate

    @property
    def coded_layers(self) -> frozenset[int]:
        """The numbers of the convolutions that are coded."""
        return frozenset(layer.layer for layer in self.layers if layer.code is not None)

    @property
    def in_place(self) -> bool:
        """Whether some strips of rows stay with the workers that made them."""
        return any(layer.in_place for layer in self.layers)

    def images_per_share(self, images: int) -> int:
        """Return how many images of a block one systematic share has, if split by images."""
        parts = next((layer.code.k_a for layer in self.layers if layer.code), self.delta)
        return partition_images(images, parts).per_part * (parts // self.delta)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all convolutions for one image, uncoded."""
        return sum(layer.geometry.multiply_adds for layer in self.layers)

    def with_run_options(
        self, redundancy: Redundancy, in_flight: int | None, verify: Verify = "off"
    ) -> Plan:
        """Return the plan with what may change from one run of a job to the next."""
        return replace(
            self, redundancy=redundancy, in_flight=in_flight or self.in_flight, verify=verify
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides the answers and how they are computed."""
        decides = replace(self, forecast=None, warnings=())
        return hashlib.sha256(decides.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the plan as JSON; :meth:`from_json` is its inverse."""
        return _adapter().dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Return the plan that :meth:`to_json` wrote.

        Raises
        ------
        PlanError
            If it is not one, or was written by a later version.
        """
        try:
            plan = _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise PlanError(f"not a saved plan: {where}: {first['msg']}") from None
        if plan.format > PLAN_FORMAT:
            raise PlanError(
                f"the plan has format {plan.format}; this version reads up to {PLAN_FORMAT}: "
                "update fcdcc"
            )
        return plan

    def _repr_html_(self) -> str:
        from .display import plan_html  # it imports this module

        return plan_html(self)

    def __str__(self) -> str:
        head = (
            f"{self.n} shares per layer, any {self.n - self.tolerate} suffice; blocks of "
            f"{self.batch}, {self.in_flight} in flight; {self.code}, {self.dtype}"
        )
        if self.band is not None:
            head += f"; an image in bands of {self.band} rows of its prediction"
        how = f"split by {self.split}; {_SPARE[self.redundancy]}"
        return "\n".join([head, how, *map(_layer_row, self.layers)])


_SPARE: dict[Redundancy, str] = {
    "eager": "all shares of a layer start at once",
    "standby": "parity starts when a share is late, or at once without the any-k plugin",
    "off": "nothing spare: no share may be lost",
}


def _layer_row(layer: LayerPlan) -> str:
    """Return one line about a layer."""
    geometry = layer.geometry
    shape = (
        f"{geometry.in_channels}→{geometry.out_channels}, {'×'.join(map(str, geometry.spatial))}"
    )
    if layer.code is None:
        return f"  {layer.layer:>3} {layer.name}: {shape}: not coded: {layer.reason}"
    return (
        f"  {layer.layer:>3} {layer.name}: {shape}: {layer.code.name}, "
        f"k_a {layer.code.k_a} × k_b {layer.code.k_b} by {layer.split}"
        + (", strips stay" if layer.in_place else "")
    )


def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)
