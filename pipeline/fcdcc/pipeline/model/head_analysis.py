"""Works out what the output of a network is, from its last operations.

Every value of the network gets a :class:`_Trait`: what its numbers are, as far as the operation
that made it says. A convolution or a linear layer makes logits, a softmax makes probabilities,
argmax makes class numbers; reshaping, pooling and resizing keep what a value is. An operation that
might turn probabilities into something else makes values of which nothing is known, so that no
second softmax is ever applied to them without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import torch

from ..heads import Head, HeadKind, Values
from .image_analysis import analyse_images
from .image_rules.facts import Facts
from .network import ConvStage, Network, Ref, Step
from .operators import bound_arguments, is_number, words
from .output_bundle import BUNDLE
from .outputs import main_output

_Nature = Literal[
    "other", "linear", "convolved", "activated", "normalised", "norm",
    "softmax", "log-softmax", "part", "unit", "classes", "decided", "unknown",
]  # fmt: skip
"""What numbers are: those of an image (other), of a linear layer or a 1 × 1 convolution (linear),
of another convolution, an activation or a normalisation, lengths of vectors (norm), a softmax or
part of one, in [0, 1] by a sigmoid (unit), class numbers, true or false (decided), or unknown."""


@dataclass(frozen=True)
class _Trait:
    """What a value is.

    Parameters
    ----------
    nature
        What its numbers are.
    axis
        The axis of classes of a softmax.
    classes
        The number of classes that class numbers count.
    reason
        The operation that decided it, in words.
    """

    nature: _Nature
    axis: int | None = None
    classes: int | None = None
    reason: str = ""


_OTHER = _Trait("other")

_RESHAPES = words(
    """
    view reshape _unsafe_view reshape_as view_as flatten ravel unflatten squeeze unsqueeze clone
    contiguous alias detach lift_fresh lift_fresh_copy to _to_copy type_as
    """
)
_TAKES = words(
    """
    slice narrow flip roll expand broadcast_to expand_as split unsafe_split split_with_sizes
    unsafe_split_with_sizes chunk unsafe_chunk tensor_split reflection_pad1d reflection_pad2d
    reflection_pad3d replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d
    """
)
"""Operators whose results are some of the numbers of their argument, at the same axes."""
_AVERAGES = words(
    """
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d mean upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d _upsample_bilinear2d_aa
    """
)
_MAXIMA = words(
    """
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax amin
    max min
    """
)
_SOFTMAXES = words("softmax _softmax _safe_softmax special_softmax")
_LOG_SOFTMAXES = words("log_softmax _log_softmax special_log_softmax")
_SIGMOIDS = words("sigmoid special_expit hardsigmoid")
_PRODUCTS = words("linear addmm mm matmul linalg_matmul bmm baddbmm einsum mv")
_CONVOLUTIONS = words(
    """
    conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d
    conv_transpose3d
    """
)
_NORMALISATIONS = words(
    """
    batch_norm _native_batch_norm_legit instance_norm layer_norm native_layer_norm rms_norm
    _fused_rms_norm group_norm native_group_norm
    """
)
_NORMS = words("linalg_vector_norm norm frobenius_norm")
_SUMS = words("add sub subtract rsub")
_SCALINGS = words("mul multiply div divide true_divide")
_ACTIVATIONS = words(
    """
    relu relu6 gelu silu mish hardswish leaky_relu elu celu selu prelu _prelu_kernel rrelu glu
    scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu lstm gru rnn_tanh
    rnn_relu index gather index_select pixel_shuffle pixel_unshuffle channel_shuffle
    """
)
_KEPT_LENGTHS = words("clamp_min clamp expand expand_as unsqueeze view reshape add sqrt")
_KEPT_PLACES = _RESHAPES | _TAKES | _SIGMOIDS | _SUMS | _SCALINGS | words("gt lt ge le relu")
"""Operators that leave every number at its place."""
_PROBABILITIES = frozenset({"softmax", "part", "unit"})
_DECISIONS = frozenset({"classes", "decided"})


def find_head(network: Network, image_shape: Sequence[int]) -> Head:
    r"""Return what the main output of a network is.

    Parameters
    ----------
    network
        The network.
    image_shape
        (C, \*space) of the images.

    Raises
    ------
    ModelError
        If the network does not take images of this shape.
    """
    return find_heads(network, image_shape)[main_output(network.outputs)]


def find_heads(network: Network, image_shape: Sequence[int]) -> dict[str, Head]:
    """Return what each output of a network is, by name; see :func:`find_head`."""
    analysis = _HeadAnalysis(network, tuple(image_shape))
    return {name: analysis.head(value) for name, value in network.outputs.items()}


class _HeadAnalysis:
    def __init__(self, network: Network, image_shape: tuple[int, ...]) -> None:
        self._space = image_shape[1:]
        self._facts = analyse_images(network, image_shape).values
        self._steps: dict[str, Step] = {}
        self._traits: dict[str, _Trait] = {network.input: _OTHER}
        for stage in network.stages:
            if isinstance(stage, ConvStage):
                pointwise = prod(network.tensors[stage.weight].shape[2:]) == 1
                kind: _Nature = "linear" if pointwise else "convolved"
                self._traits[stage.output] = _Trait(kind, reason="a convolution is its last layer")
                continue
            for step in stage.steps:
                self._steps[step.name] = step
                self._traits[step.name] = self._decided(step, self._trait(step))

    def head(self, name: str) -> Head:
        """Return what one value is as an output."""
        facts: Facts = self._facts[name]
        shape = facts.sizes[1:]
        dtype = str(facts.dtype).removeprefix("torch.")
        trait = self._traits.get(name, _OTHER)
        places = self._places(name, shape)
        reason = trait.reason or "no operation says what it is"
        drawn = Head("logits", "unknown", shape, dtype, places, reason)
        kind, values = _kind(drawn, trait)
        classes = trait.classes if kind == "label-map" else drawn.classes_of(kind)
        return replace(drawn, kind=kind, values=values, classes=classes)

    def _places(self, name: str, shape: tuple[int, ...]) -> int:
        """Return how many of the last axes of an output are places in the image."""
        ndim = len(self._space)
        if len(shape) == 1 + ndim:
            return ndim
        return ndim if len(shape) == ndim and self._lost_its_channels(name, shape) else 0

    def _lost_its_channels(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return whether a value (n, *space) was made from one (n, c, *space) by dropping c."""
        while name in self._steps:
            step = self._steps[name]
            packet, source = _packet(step), step.args[0] if step.args else None
            if not isinstance(source, Ref):
                return False
            facts = self._facts.get(source.name)
            if isinstance(facts, Facts) and facts.ndim == len(shape) + 2:
                one_channel = packet in _RESHAPES and facts.sizes[1] == 1
                dim = None if one_channel else bound_arguments(step).get("dim")
                without = [dim] if isinstance(dim, int) else dim
                return facts.sizes[2:] == shape and (one_channel or without == [1])
            if packet != "getitem" and packet not in _KEPT_PLACES:
                return False
            name = source.name
        return False

    # -------------------------------------------------------------------- steps

    def _decided(self, step: Step, trait: _Trait) -> _Trait:
        """Return the trait of a result, corrected by its type: true or false, or integers."""
        facts = self._facts[step.name]
        if not isinstance(facts, Facts):
            return trait
        if facts.dtype == torch.bool:
            return _Trait("decided", reason=f"its last operation is {_packet(step)}")
        if not facts.dtype.is_floating_point and trait.nature not in _DECISIONS:
            return _Trait("classes", reason=f"its last operation is {_packet(step)}")
        return trait

    def _trait(self, step: Step) -> _Trait:
        packet = _packet(step)
        if is_number(step.op) or step.op == BUNDLE:
            return _OTHER
        given = [self._traits.get(name, _OTHER) for name in step.references]
        first = given[0] if given else _OTHER
        if packet == "getitem":
            return first
        bound = bound_arguments(step)
        source = self._source(bound)
        reason = f"its last operation is {packet}"
        if packet in _SOFTMAXES | _LOG_SOFTMAXES and source is not None:
            kind: _Nature = "softmax" if packet in _SOFTMAXES else "log-softmax"
            return _Trait(kind, _axis(bound["dim"], source.ndim), None, reason)
        if packet in _SIGMOIDS:
            return _Trait("unit", reason=reason)
        if packet in ("argmax", "argmin"):
            return self._class_numbers(bound, source, reason)
        if packet in _NORMALISATIONS:
            return _Trait("normalised", reason=reason)
        if packet in _NORMS:
            return _Trait("norm", reason=reason)
        if packet in _CONVOLUTIONS:
            return _Trait("convolved", reason="a convolution is its last layer")
        if packet in _PRODUCTS:
            return _product(packet, given)
        if packet in _SUMS or packet in _SCALINGS:
            return self._arithmetic(step, packet, bound)
        if packet in ("cat", "concat", "concatenate"):
            return self._joined(bound)
        if first.nature == "norm" and packet in _KEPT_LENGTHS:
            return first
        if packet == "exp" and first.nature == "log-softmax":
            return replace(first, nature="softmax", reason="its last operation is a softmax")
        if packet == "log" and first.nature == "softmax":
            return replace(first, nature="log-softmax")
        if source is not None:
            kept = self._kept(step, packet, bound, source, first)
            if kept is not None:
                return kept
        if packet == "relu" and first.nature in _PROBABILITIES | {"linear"}:
            return first
        plain = all(trait.nature not in _PROBABILITIES | {"unknown"} for trait in given)
        if packet in _ACTIVATIONS and plain:
            return _Trait("activated", reason=reason)
        return _Trait("unknown", reason=reason)

    def _source(self, bound: Mapping[str, Any]) -> Facts | None:
        """Return the facts of the first argument, if it is a tensor."""
        source = bound.get("self", bound.get("input"))
        found = self._facts.get(source.name) if isinstance(source, Ref) else None
        return found if isinstance(found, Facts) else None

    def _class_numbers(self, bound: Mapping[str, Any], source: Facts | None, reason: str) -> _Trait:
        count = None
        if source is not None and isinstance(bound["dim"], int):
            count = source.sizes[_axis(bound["dim"], source.ndim)]
        return _Trait("classes", None, count, reason)

    def _kept(
        self, step: Step, packet: str, bound: Mapping[str, Any], source: Facts, given: _Trait
    ) -> _Trait | None:
        """Return the trait of a result whose numbers are those of its argument, or their means.

        None if the operator is of another kind.
        """
        made = self._facts[step.name]
        if isinstance(made, list):  # members of a list are alike
            made = made[0]
        if not isinstance(made, Facts):
            return None
        if packet in _MAXIMA:
            return self._maximum(step, packet, bound, source, made, given)
        if packet in _AVERAGES:
            if given.nature == "convolved":
                return replace(given, nature="linear")
            if given.nature == "softmax" and any(_numbers(bound.get("padding", 0))):
                return _Trait("unknown", reason=f"its last operation is {packet}")
            if given.nature == "log-softmax":
                return _Trait("linear", reason=given.reason)
            if given.nature in _DECISIONS:
                return _Trait("unknown", reason=f"its last operation is {packet}")
        elif packet not in _RESHAPES | _TAKES | _MOVES.keys() | {"select", "unbind"}:
            return None
        if given.axis is None:
            return given
        axis = _moved(packet, bound, source, made, given.axis)
        if axis is None:
            nature: _Nature = "part" if given.nature == "softmax" else "unknown"
            if packet in _AVERAGES or packet in _RESHAPES:
                nature = "unknown"
            return _Trait(nature, reason=given.reason)
        return replace(given, axis=axis)

    def _maximum(
        self,
        step: Step,
        packet: str,
        bound: Mapping[str, Any],
        source: Facts,
        made: Facts,
        given: _Trait,
    ) -> _Trait:
        if packet in ("max", "min") and len(step.references) > 1:  # of two tensors
            return _Trait("unknown", reason=f"its last operation is {packet}")
        if given.nature != "softmax" or given.axis is None:
            return given
        lost = _moved(packet, bound, source, made, given.axis) is None
        return replace(given, nature="part" if lost else "unknown", axis=None)

    def _arithmetic(self, step: Step, packet: str, bound: Mapping[str, Any]) -> _Trait:
        """Return the trait of a sum, a difference, a product or a quotient."""
        operands = [bound[name] for name in ("self", "other")]
        values = [
            self._traits[item.name]
            for item in operands
            if isinstance(item, Ref) and item.name in self._traits
        ]
        natures = [trait.nature for trait in values]
        unknown = _Trait("unknown", reason=f"its last operation is {packet}")
        if len(values) == 1:  # the other one is a constant
            if natures[0] == "classes" and not self._facts[step.name].dtype.is_floating_point:
                return replace(values[0], classes=None)
            if natures[0] in _PROBABILITIES | _DECISIONS | {"log-softmax"}:
                return unknown
            return replace(values[0], nature="linear" if natures[0] == "convolved" else natures[0])
        if len(values) == 2 and packet in ("div", "divide", "true_divide") and natures[1] == "norm":
            return _Trait("normalised", reason="it is divided by its length")
        if not values or any(n in _PROBABILITIES | {"unknown", "log-softmax"} for n in natures):
            gate = packet in ("mul", "multiply") and "unit" in natures
            if gate and natures[1 - natures.index("unit")] in ("convolved", "activated", "other"):
                return _Trait("activated", reason="its last operation is a gate")
            return unknown
        if packet in _SUMS and all(nature in ("linear", "convolved") for nature in natures):
            return values[0]
        return _Trait("activated", reason=f"its last operation is {packet}")

    def _joined(self, bound: Mapping[str, Any]) -> _Trait:
        found = [self._traits.get(item.name, _OTHER) for item in bound["tensors"]]
        first = found[0]
        alike = all((t.nature, t.axis) == (first.nature, first.axis) for t in found)
        facts = self._facts.get(bound["tensors"][0].name)
        along = _axis(bound["dim"], facts.ndim) if isinstance(facts, Facts) else None
        if alike and (first.axis is None or first.axis != along):
            return first
        if all(trait.nature in ("linear", "convolved") for trait in found):
            return _Trait("linear", reason=first.reason)
        if any(t.nature in _PROBABILITIES | {"unknown", "log-softmax"} for t in found):
            return _Trait("unknown", reason="its last operation is cat")
        return _Trait("activated", reason="its last operation is cat")


_MOVES: dict[str, tuple[str, ...]] = {
    "permute": ("dims",),
    "transpose": ("dim0", "dim1"),
    "swapaxes": ("axis0", "axis1"),
    "swapdims": ("dim0", "dim1"),
    "t": (),
    "numpy_T": (),
    "mT": (),
    "movedim": (),
    "moveaxis": (),
}
"""Operators that move axes, and their arguments that say where; none: it is not followed."""


def _packet(step: Step) -> str:
    """Return an operator's name without namespace and overload."""
    return step.op.split(".")[1]


def _axis(dim: int, ndim: int) -> int:
    return dim % max(ndim, 1)


def _numbers(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _product(packet: str, given: Sequence[_Trait]) -> _Trait:
    """Return the trait of a product of matrices."""
    natures = {trait.nature for trait in given}
    if natures & {"softmax", "part"}:
        # A mean of values with the weights of a softmax, as attention makes it.
        return _Trait("activated" if packet in ("matmul", "bmm") else "unknown", reason=packet)
    return _Trait("linear", reason="a linear layer is its last layer")


def _moved(
    packet: str, bound: Mapping[str, Any], source: Facts, made: Facts, axis: int
) -> int | None:
    """Return where an axis of an operator's argument is in its result; None if it is lost."""
    if packet in _MOVES:
        names = _MOVES[packet]
        if packet == "permute":
            return [_axis(dim, source.ndim) for dim in bound["dims"]].index(axis)
        if not names:
            return None
        one, other = (_axis(bound[name], source.ndim) for name in names)
        return {one: other, other: one}.get(axis, axis)
    if packet in ("select", "unbind"):
        dim = _axis(bound["dim"], source.ndim)
        return None if dim == axis else axis - (dim < axis)
    if packet in _RESHAPES:
        before, size = prod(source.sizes[:axis]), source.sizes[axis]
        for place, found in enumerate(made.sizes):
            if found == size and prod(made.sizes[:place]) == before:
                return place
        return None
    if source.ndim == made.ndim:
        return axis if source.sizes[axis] == made.sizes[axis] else None
    if bound.get("dim") is None:
        return None
    dims = {_axis(dim, source.ndim) for dim in _numbers(bound["dim"])}
    return None if axis in dims else axis - sum(dim < axis for dim in dims)


def _kind(head: Head, trait: _Trait) -> tuple[HeadKind, Values]:
    """Return the kind of an output and what its numbers are."""
    one_channel = prod(head.channels) == 1
    values: Values = "unknown" if trait.nature == "unknown" else "logits"
    if trait.nature in _PROBABILITIES:
        values = "probabilities"
    if head.dtype == "bool" or trait.nature == "decided":
        if prod(head.shape) == 1:
            return "score", "decided"
        return ("mask" if head.is_dense and one_channel else "labels"), "decided"
    if not head.dtype.startswith("float") or trait.nature == "classes":
        return "label-map", "decided"
    if trait.nature in ("softmax", "log-softmax") and trait.axis != 1 and prod(head.shape) != 1:
        return "embedding", "unknown"
    if prod(head.shape) == 1:
        return "score", "unknown" if trait.nature == "activated" else values
    if head.is_dense and one_channel:
        return "mask", values
    if trait.nature in ("softmax", "part"):
        return "probabilities", values
    if not head.is_dense and len(head.shape) > 1 and prod(head.shape[1:]) > 1:
        return "embedding", "unknown"  # such as (token, feature): no axis is known to be classes
    if trait.nature == "unit":
        return "labels", values
    if head.is_dense:
        return "dense", values
    if trait.nature in ("activated", "normalised", "norm"):
        return "embedding", "unknown"
    return "logits", values
