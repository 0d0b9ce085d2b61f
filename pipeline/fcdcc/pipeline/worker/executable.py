"""A network with its plan, ready to run: what every worker keeps for as long as it is needed.

Tasks carry an :class:`ExecutableRef`, a few bytes; the executable itself is loaded once per
worker by :class:`~fcdcc.pipeline.worker.executable_plugin.KeepExecutable`. It has the weights and
the coded filters. Filters are encoded when a share first needs them, and kept from then on (paper,
section IV: filters are encoded once). Graphs that any scheduler can run hold a
:class:`GraphExecutable` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Condition, Lock
from typing import Any

import torch
from torch import Tensor

from fcdcc.coding import CodedConv
from fcdcc.coding.combination_checks import coded_filters
from fcdcc.coding.nsctc import ConvolutionCheck

from ..anyk.worker import worker_address
from ..errors import PlanError
from ..halo import Rows
from ..model.network import ConvStage, Network
from ..plans.fused_stages import FusedStages, image_units
from ..plans.plan import Plan
from ..plans.row_layout import RowLayout
from .arrivals import wait_for
from .engines import EngineName, StageProgram, prepared_convolution
from .layer_checks import LayerChecks, check_combinations
from .packed_convolutions import PackedWeights

MAX_BANDS_KEPT = 16
"""Bands whose layouts a process keeps: more than are in flight."""


class Executable:
    """A network, its plan and the coded filters made so far.

    Parameters
    ----------
    network
        With tensors of the plan's dtype.
    plan
        Made for this network.
    engine
        How runs of stages are computed: :mod:`.engines`.
    """

    def __init__(self, network: Network, plan: Plan, engine: EngineName = "auto") -> None:
        self.network = network
        self.plan = plan
        self.engine: EngineName = engine
        self._programs: dict[tuple[tuple[int, ...], tuple[str, ...]], StageProgram] = {}
        self._packed = PackedWeights()
        self._convolutions: dict[tuple[int, tuple[int, ...]], Callable[[Tensor], Tensor]] = {}
        self._lock = Lock()
        self._checks: LayerChecks | None = None
        self._checks_lock = Lock()
        self._filters: dict[Hashable, Tensor] = {}
        self._bands: dict[Rows, Executable] = {}
        self._sizes: dict[tuple[int, int | None], float] = {}

    @property
    def fingerprint(self) -> str:
        """What identifies this executable: its plan, which names the network, and its engine."""
        return f"{self.plan.fingerprint}-{self.engine}"

    @cached_property
    def rows(self) -> RowLayout:
        """Which strips there are, in a plan whose strips stay with their workers."""
        return RowLayout(self.network, self.plan)

    def image_unit(self, number: int) -> FusedStages:
        """Return the unit with this number, where the parts of a block are runs of its images."""
        return self._image_units[number]

    @cached_property
    def _image_units(self) -> dict[int, FusedStages]:
        return {unit.number: unit for unit in image_units(self.network, self.plan.coded_layers)}

    @property
    def checks(self) -> LayerChecks | None:
        """The checksums of all layers, made once; None unless the plan has ``verify`` checksum."""
        if self.plan.verify != "checksum":
            return None
        with self._checks_lock:
            if self._checks is None:
                self._checks = LayerChecks(self.network)
        return self._checks

    def share_check(self, layer: int, share: int) -> ConvolutionCheck | None:
        """Return what checks the convolution of coded inputs with coded filters, if any."""
        if self.checks is None:
            return None
        return self.checks.of_share(self.coded(layer), layer, self.plan.layer(layer).name, share)

    def program(self, stages: tuple[int, ...], outputs: tuple[str, ...]) -> StageProgram:
        """Return the program that computes ``outputs`` from whole values, made once."""
        checks = self.checks
        with self._lock:
            found = self._programs.get((stages, outputs))
            if found is None:
                found = StageProgram(
                    self.network, stages, outputs, self.engine, self._packed, checks
                )
                self._programs[stages, outputs] = found
        return found

    def convolution_of_strips(
        self, layer: int, padding: tuple[int, ...]
    ) -> Callable[[Tensor], Tensor]:
        """Return a convolution by the engine, bias included, made once.

        Zeros are added by ``padding`` on both sides of each spatial axis, in place of the layer's
        own: strips have their own neighbours.
        """
        checks = self.checks
        with self._lock:
            found = self._convolutions.get((layer, padding))
            if found is None:
                pairs = tuple((size, size) for size in padding)
                stage = replace(self.convolution(layer), padding=pairs)
                found = prepared_convolution(
                    stage, self.network.tensors, self.engine, self._packed, checks
                )
                self._convolutions[layer, padding] = found
        return found

    def at(self, band: Rows) -> Executable:
        """Return the executable for some rows of the prediction; it has the same coded filters."""
        with self._lock:
            found = self._bands.get(band)
        if found is None:
            checks = self.checks
            layout = RowLayout(self.network, self.plan, band)
            found = Executable(self.network, layout.plan, self.engine)
            found.rows = layout
            found._lock, found._filters = self._lock, self._filters
            found._programs, found._packed = self._programs, self._packed
            found._convolutions, found._checks = self._convolutions, checks
            with self._lock:
                self._bands[band] = found
                for old in list(self._bands)[:-MAX_BANDS_KEPT]:
                    del self._bands[old]
        return found

    @property
    def ref(self) -> ExecutableRef:
        """What tasks carry in place of this executable."""
        return ExecutableRef(self.fingerprint)

    def convolution(self, layer: int) -> ConvStage:
        """Return the convolution with this layer number."""
        stage = self.network.stages[layer]
        if not isinstance(stage, ConvStage):
            raise PlanError(f"layer {layer} is glue; expected a convolution")
        return stage

    def coded(self, layer: int) -> CodedConv:
        """Return the coded convolution of a layer."""
        return self.plan.layer(layer).coded_conv

    def shown(self, layer: int) -> str:
        """Return the number and the name of a layer, for messages."""
        return f"layer {layer} ({self.plan.layer(layer).name})"

    def weight(self, layer: int) -> Tensor:
        """Return a layer's filters, uncoded: (N, C / groups, *kernel)."""
        return self.network.tensors[self.convolution(layer).weight]

    def bias(self, layer: int) -> Tensor | None:
        """Return a layer's bias, (N,), or None."""
        name = self.convolution(layer).bias
        return None if name is None else self.network.tensors[name]

    def filters(self, layer: int, share: int) -> Tensor:
        """Return the coded filters of one share, made once.

        Shares whose rows of the filter matrix are equal use the same tensor: with k_b = 1
        every share has the filters as they are.
        """
        coded = self.coded(layer)
        row = (layer, coded.is_plain(share), coded.code.filter_matrix[share].tobytes())
        with self._lock:
            filters = self._filters.get(row)
        if filters is None:
            weight = self.weight(layer)
            filters = coded.encode_filters(weight, share)
            if self.checks is not None:
                made = coded_filters(coded, weight, share, filters)
                check_combinations(made, f"{self.shown(layer)}: a coded filter of share {share}")
            with self._lock:
                filters = self._filters.setdefault(row, filters)
        return filters

    def filter_size(self, layer: int, share: int | None = None) -> float:
        """Return the root mean square of a share's coded filters, or of a layer's own."""
        known = self._sizes.get((layer, share))
        if known is None:
            filters = self.weight(layer) if share is None else self.filters(layer, share)
            known = float(torch.linalg.vector_norm(filters)) / math.sqrt(max(filters.numel(), 1))
            self._sizes[layer, share] = known
        return known

    def reduction(self, layer: int) -> int:
        """Return how many products are added up for one entry of a layer's shares.

        It includes the products of the convolutions that are not coded and may stand in front of
        it in the same share.
        """
        total = 0
        for stage in self.network.convolutions:
            if stage.index < layer and stage.index in self.plan.coded_layers:
                total = 0
                continue
            total += math.prod(self.weight(stage.index).shape[1:])
            if stage.index == layer:
                break
        return total

    def __reduce__(self) -> tuple[type[Executable], tuple[Network, Plan, EngineName]]:
        return Executable, (self.network, self.plan, self.engine)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ExecutableRef:
    """An executable by its fingerprint; small enough to stand in every task.

    ``band`` is the rows of the prediction that the tasks are for; None for all of them.
    ``patience_seconds`` is how long a task on a worker waits for an executable that has not begun
    to arrive there.
    """

    fingerprint: str
    band: Rows | None = None
    patience_seconds: float = 0.0


class GraphExecutable:
    """An executable in a graph that runs with any Dask scheduler, and may be computed repeatedly.

    Tasks of this process use the executable itself. Other processes get a copy of it, unless
    ``reference`` says how it is found where the graph is being sent.

    Parameters
    ----------
    executable
        The executable.
    reference
        Called whenever this is pickled: returns a function and its arguments, which make an
        :class:`ExecutableRef` in the other process; or None, where only a copy will do.
    """

    def __init__(
        self,
        executable: Executable,
        reference: Callable[[], tuple[Callable[..., ExecutableRef], tuple[Any, ...]] | None],
    ) -> None:
        self.executable = executable
        self._reference = reference

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reference() or self.executable.__reduce__()

    def __dask_tokenize__(self) -> str:
        return self.executable.fingerprint


_executables: dict[str, tuple[Executable, int]] = {}
"""By fingerprint: the executables of this process, and how often each must be dropped."""

_executables_changed = Condition()
"""Guards the executables of this process, and is notified when there is another one."""


def hold(executable: Executable) -> ExecutableRef:
    """Keep an executable in this process until :func:`drop` is called as often as this function."""
    _ = executable.checks  # filters are summed now, before anything can damage them
    with _executables_changed:
        first, count = _executables.get(executable.fingerprint, (executable, 0))
        _executables[executable.fingerprint] = (first, count + 1)
        _executables_changed.notify_all()
    return executable.ref


def drop(ref: ExecutableRef) -> None:
    """Undo one call of :func:`hold`; an executable that is not kept is ignored."""
    with _executables_changed:
        executable, count = _executables.pop(ref.fingerprint, (None, 0))
        if executable is not None and count > 1:
            _executables[ref.fingerprint] = (executable, count - 1)


def find(ref: ExecutableRef | Executable | GraphExecutable) -> Executable:
    """Return the executable that a task refers to; if it is being loaded, wait for it.

    Raises
    ------
    PlanError
        If this process does not keep it.
    """
    if isinstance(ref, Executable):
        return ref
    if isinstance(ref, GraphExecutable):
        return ref.executable
    executable = _kept(ref.fingerprint)
    if executable is None and ref.patience_seconds and worker_address():
        executable = _kept(ref.fingerprint, ref.patience_seconds)
    if executable is not None:
        return executable if ref.band is None else executable.at(ref.band)
    raise PlanError(
        f"this process holds no executable {ref.fingerprint[:12]}; expected a worker plugin to "
        "have loaded it: is the run that this task belongs to still going on? The graph of "
        "infer() runs on the cluster of the client that was current at the call: call infer() "
        "again for another one"
    )


def _kept(fingerprint: str, patience_seconds: float = 0.0) -> Executable | None:
    """Return an executable of this process; wait so long for it, and while it is being loaded."""
    with _executables_changed:
        _executables_changed.wait_for(lambda: fingerprint in _executables, patience_seconds)
        if fingerprint in _executables:
            return _executables[fingerprint][0]
    if wait_for(fingerprint):
        with _executables_changed:
            return _executables.get(fingerprint, (None, 0))[0]
    return None
