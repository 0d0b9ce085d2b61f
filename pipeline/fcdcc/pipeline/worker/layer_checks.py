"""Check layers, encoding and decoding by their checksums, in the task that computes them.

With ``--verify checksum`` an executable has the :class:`LayerChecks` of its network. Filters are
summed when the executable is loaded, so that filters that are damaged in memory afterwards are
found, too. A result that fails its check is refused on the spot: the scheduler is told which worker
computed it, the task fails, and the block is computed again on others
(:mod:`fcdcc.pipeline.runtime.retries`).

:mod:`fcdcc.coding.checksums` has the mathematics of layers and
:mod:`fcdcc.coding.combination_checks` that of encoding and decoding; ``docs/trust.md`` says what is
found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from threading import Lock
from typing import Any, NoReturn

import torch
from torch import Tensor

from fcdcc.coding import CodedConv
from fcdcc.coding.checksums import SUMS, ConvChecksum, Residues, SumsOf
from fcdcc.coding.combination_checks import Combinations, first_wrong
from fcdcc.coding.nsctc import ConvolutionCheck
from fcdcc.coding.position_sums import ValueSums, sums_around

from ..anyk.worker import report_failed_check, worker_address
from ..errors import FailedCheckError
from ..model.network import ConvStage, GlueStage, Network, Ref, Step
from ..model.passes.convolution_stages import convolution_of

LINEAR = "aten.linear.default"
"""The operator of linear layers."""

Padding = tuple[tuple[int, int], ...]

CHECKED_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
"""Others overflow where their sums do not, so that right results would be called wrong."""


def linear_weights(
    step: Step, tensors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None] | None:
    """Return weight (N, C) and bias (N,) of a linear layer; None for every other operation.

    A product of two values that are computed is no layer.
    """
    if step.op != LINEAR or step.kwargs or not 2 <= len(step.args) <= 3:
        return None
    found = [
        tensors.get(arg.name) if isinstance(arg, Ref) else arg for arg in (*step.args[1:], None)[:2]
    ]
    weight, bias = found
    named = len(step.args) == 3 and isinstance(step.args[2], Ref)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or (named and bias is None):
        return None
    if weight.dtype not in CHECKED_DTYPES:
        return None
    return weight, bias


def convolution_step(step: Step, tensors: Mapping[str, Tensor]) -> ConvStage | None:
    """Return the convolution that an operation of glue is, if it has a checksum."""
    found = convolution_of(step, tensors, step.name)
    return None if found is None or tensors[found.weight].dtype not in CHECKED_DTYPES else found


def is_checked(step: Step, tensors: Mapping[str, Tensor], *, in_rows: bool = False) -> bool:
    """Return whether an operation of glue is a layer that is checked.

    Parameters
    ----------
    step, tensors
        The operation, and the tensors of its network.
    in_rows
        Whether it is computed for some rows at a time.
    """
    if linear_weights(step, tensors) is not None:
        return True
    return not in_rows and convolution_step(step, tensors) is not None


class LayerChecks:
    """The checksums of the convolutions and linear layers of a network.

    Parameters
    ----------
    network
        With tensors of the dtype of the run, as they were loaded.
    """

    def __init__(self, network: Network) -> None:
        tensors = network.tensors
        self._convolutions: dict[int, ConvChecksum] = {}
        self._steps: dict[str, ConvChecksum] = {}
        self._step_convolutions: dict[str, ConvChecksum] = {}
        self._weights: dict[int, Tensor] = {}
        self._variants: dict[Hashable, ConvChecksum] = {}
        self._lock = Lock()
        for stage in network.stages:
            if isinstance(stage, ConvStage):
                self._weights[stage.index] = tensors[stage.weight]
                self._convolutions[stage.index] = _checksum_of(stage, tensors, stage.index)
            else:
                self._add_steps(stage, tensors)

    def _add_steps(self, stage: GlueStage, tensors: Mapping[str, Tensor]) -> None:
        """Add the linear layers and convolutions among the operations of glue."""
        for number, step in enumerate(stage.steps):
            convolution = convolution_step(step, tensors)
            if convolution is not None:
                self._step_convolutions[step.name] = _checksum_of(convolution, tensors, number)
                continue
            found = linear_weights(step, tensors)
            if found is not None:
                weight, bias = found
                self._steps[step.name] = ConvChecksum(
                    weight[..., None], bias,
                    stride=(1,), padding=((0, 0),), dilation=(1,), seed=stage.index,
                )  # fmt: skip

    def convolution(
        self,
        stage: ConvStage,
        x: Tensor,
        y: Tensor,
        added: Tensor | None = None,
        sums_of: SumsOf | None = None,
    ) -> None:
        """Check a convolution.

        Parameters
        ----------
        stage
            The convolution; its padding may differ from the network's.
        x, y
            Its input, unpadded, and its output, before any activation unless ``sums_of`` knows its
            sums from before.
        added
            A value of the shape of the output that was added to it.
        sums_of
            As for :meth:`fcdcc.coding.checksums.ConvChecksum.wrong`.

        Raises
        ------
        FailedCheckError
            If the output is wrong.
        """
        checksum = self._of_stage(stage)
        _check(checksum, f"layer {stage.index} ({stage.name})", x, y, added, sums_of)

    def uses_sums(self, stage: ConvStage, x: Tensor) -> bool:
        """Return whether the check of a convolution uses the sums of an input like this."""
        return self._of_stage(stage).uses_sums(x)

    def _of_stage(self, stage: ConvStage) -> ConvChecksum:
        checksum = self._convolutions[stage.index]
        if checksum.padding == stage.padding:
            return checksum
        return self._variant(stage.index, stage.padding, has_bias=True)

    def step(self, step: Step, x: Any, y: Any, *, is_part: bool = False) -> None:
        """Check an operation of glue, if it is a linear layer or a convolution of a batch.

        Parameters
        ----------
        step
            The operation.
        x, y
            What it was given first, and its result.
        is_part
            Whether they may be some rows of what they are in the network. Then convolutions are
            not checked: their zeros around these rows are not those of the network.

        Raises
        ------
        FailedCheckError
            If the result is wrong.
        """
        checksum = self._step_convolutions.get(step.name)
        is_batch = (
            isinstance(x, Tensor) and checksum is not None and x.ndim == len(checksum.kernel) + 2
        )
        if checksum is not None and is_batch and not is_part:
            _check(checksum, f"convolution {step.name}", x, y, None)
        checksum = self._steps.get(step.name)
        if checksum is not None:
            _check(checksum, f"linear layer {step.name}", _as_images(x), _as_images(y), None)

    def of_share(self, coded: CodedConv, layer: int, name: str, share: int) -> ConvolutionCheck:
        """Return the check of what a share convolves: coded inputs with coded filters, no bias.

        Parameters
        ----------
        coded, layer, name
            The coded convolution, its number and its name.
        share
            The share.
        """
        shown = f"layer {layer} ({name})"

        def check(x: Tensor, padding: Padding, y: Tensor) -> None:
            is_layer = coded.code.k_b == 1 and coded.code.filter_run(share) is not None
            if is_layer:  # the filters of every share are those of the layer
                checksum = self._variant(layer, padding, has_bias=False)
            else:
                checksum = self._of_coded_filters(coded, layer, share, shown, padding)
            _check(checksum, shown, x, y, None)

        return check

    def _variant(self, layer: int, padding: Padding, *, has_bias: bool) -> ConvChecksum:
        key = (layer, padding, has_bias)
        with self._lock:
            found = self._variants.get(key)
            if found is None:
                found = self._convolutions[layer].with_padding(padding, has_bias=has_bias)
                self._variants[key] = found
        return found

    def _of_coded_filters(
        self, coded: CodedConv, layer: int, share: int, shown: str, padding: Padding
    ) -> ConvChecksum:
        """Return the checksum of coded filters, made of the filters if these are still right.

        Raises
        ------
        FailedCheckError
            If the filters are damaged.
        """
        key = (layer, share, coded.code.filter_matrix[share].tobytes())
        with self._lock:
            first = self._variants.get(key)
        if first is None:
            weight = self._weights[layer]
            if not self._convolutions[layer].is_of(weight):
                _refuse(f"{shown}: the filters have changed in memory since they were loaded")
            geometry = coded.geometry
            first = ConvChecksum(
                coded.encode_filters(weight, share),
                stride=geometry.stride,
                padding=geometry.padding,
                dilation=geometry.dilation,
                groups=geometry.groups,
                seed=layer,
                keep_filters=False,
            )
            with self._lock:
                self._variants[key] = first
        if first.padding == padding:
            return first
        with self._lock:
            found = self._variants.get((*key, padding))
            if found is None:
                found = self._variants[(*key, padding)] = first.with_padding(padding)
        return found


def _checksum_of(convolution: ConvStage, tensors: Mapping[str, Tensor], seed: int) -> ConvChecksum:
    return ConvChecksum(
        tensors[convolution.weight],
        None if convolution.bias is None else tensors[convolution.bias],
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        groups=convolution.groups,
        seed=seed,
    )


def _as_images(value: Tensor) -> Tensor:
    """Return (images, C, positions) for a value (images, …, C), without a copy where possible."""
    if value.ndim < 2:
        return value.reshape(1, -1, 1)
    positions = math.prod(value.shape[1:-1])
    return value.reshape(len(value), positions, value.shape[-1]).movedim(-1, 1)


class KnownSums:
    """The sums of the values of one batch by their names, each added up once.

    What one layer makes and another reads, or several read, has the same sums. They are those of
    the moment when they were first wanted: a value that is damaged in memory after that does not
    fit them any more.
    """

    def __init__(self) -> None:
        self._known: dict[str, ValueSums] = {}

    def of(self, named: Mapping[str, Tensor]) -> SumsOf:
        """Return what gives the sums of these values; those of other values are not kept."""

        def sums_of(value: Tensor) -> ValueSums:
            for name, one in named.items():
                if value is one:
                    return self._known.setdefault(name, ValueSums(value))
            return ValueSums(value)

        return sums_of

    def of_changed(
        self,
        named: Mapping[str, Tensor],
        made: tuple[str, Tensor],
        change: Callable[[Tensor], object],
        *,
        is_summed_later: bool,
    ) -> SumsOf:
        """Change a value in place and return what gives the sums of others and its own before.

        Parameters
        ----------
        named
            Other values.
        made
            The value, and the name that it has after the change.
        change
            Changes a tensor in place, every element by itself.
        is_summed_later
            Whether its sums after the change will be wanted.
        """
        name, value = made
        before, after = sums_around(value, change, SUMS, after=is_summed_later)
        if after is not None:
            self._known[name] = after
        others = self.of(named)
        return lambda one: before if one is value else others(one)

    def forget(self, name: str) -> None:
        """Drop the sums of a value that is not needed any more."""
        self._known.pop(name, None)


def _check(
    checksum: ConvChecksum,
    shown: str,
    x: Tensor,
    y: Tensor,
    added: Tensor | None,
    sums_of: SumsOf | None = None,
) -> None:
    """Check an output.

    Raises
    ------
    FailedCheckError
        If it is wrong.
    """
    with torch.inference_mode():
        _refuse_wrong(checksum.wrong(x, y, added, sums_of), f"{shown}: a result")


def check_combinations(
    found: Iterable[Combinations], what: str, decoder: Residues | None = None
) -> None:
    """Check what was encoded or decoded.

    Parameters
    ----------
    found
        The linear combinations in it.
    what
        It in words, for the message.
    decoder
        What is wrong with the decoder that it was made with.

    Raises
    ------
    FailedCheckError
        If it is wrong.
    """
    with torch.inference_mode():
        _refuse_wrong(decoder, f"{what} by a decoder that")
        _refuse_wrong(first_wrong(found), what)


def _refuse_wrong(found: Residues | None, what: str) -> None:
    """Refuse what is wrong.

    Raises
    ------
    FailedCheckError
        If there are residues.
    """
    if found is not None:
        _refuse(
            f"{what} is wrong, its checksum differs by {found.worst:.2g} times what rounding "
            "explains"
        )


def _refuse(problem: str) -> NoReturn:
    """Report to the scheduler that this worker is wrong, and raise the error.

    Raises
    ------
    FailedCheckError
        Always.
    """
    report_failed_check()
    worker = worker_address()
    by = f" on worker {worker}" if worker else ""
    raise FailedCheckError(
        f"{problem}{by}: check its memory and processor", [worker] if worker else []
    )
