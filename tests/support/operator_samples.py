"""Arguments with which every operator of the list can be called.

A sample is a step whose tensors are :class:`Images`, which have one part for each image along an
axis, or :class:`Constant`; :data:`COUNT` stands for the number of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fcdcc.pipeline.model.image_rules.facts import BatchSize, Facts, constant_facts
from fcdcc.pipeline.model.operator_list import CALLED
from fcdcc.pipeline.model.operators import schema

F32, F64, INT, BOOL, COMPLEX = (
    torch.float32,
    torch.float64,
    torch.int64,
    torch.bool,
    torch.complex64,
)


def random_values(shape: Sequence[int], dtype: torch.dtype, seed: int, below: int) -> torch.Tensor:
    """Return values between 0.1 and 0.9, or integers from 0 to ``below`` - 1."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool or not (dtype.is_floating_point or dtype.is_complex):
        return torch.randint(0, below, tuple(shape), generator=generator).to(dtype)
    values = torch.rand(tuple(shape), generator=generator, dtype=torch.float64) * 0.8 + 0.1
    return values.to(dtype)


@dataclass(frozen=True)
class Images:
    """A tensor of ``shape`` for one image, the images side by side along an axis."""

    shape: tuple[int, ...] = (4, 6)
    dtype: torch.dtype = F32
    axis: int = 0
    below: int = 3

    def of(self, images: Sequence[int]) -> torch.Tensor:
        """Return the tensor of some images; each has values of its own."""
        each = [random_values(self.shape, self.dtype, 7 + i, self.below) for i in images]
        return torch.stack(each, self.axis)

    @property
    def facts(self) -> Facts:
        """What is known about it."""
        sizes = (*self.shape[: self.axis], 1, *self.shape[self.axis :])
        return Facts(sizes, self.dtype, self.axis)


@dataclass(frozen=True)
class Constant:
    """A tensor that is the same for every batch."""

    shape: tuple[int, ...] = (6,)
    dtype: torch.dtype = F32
    below: int = 3

    def of(self, images: Sequence[int]) -> torch.Tensor:
        """Return the tensor."""
        return random_values(self.shape, self.dtype, 3, self.below)

    @property
    def facts(self) -> Facts:
        """What is known about it."""
        return constant_facts(self.of(()))


class _Count:
    """The number of images."""

    def __repr__(self) -> str:
        return "COUNT"


COUNT = _Count()


@dataclass(frozen=True)
class Sample:
    """One call: arguments by position and by name."""

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, images: Sequence[int]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments for a batch of images."""
        return (
            [concrete(a, images) for a in self.args],
            {name: concrete(value, images) for name, value in self.kwargs.items()},
        )

    def tensors(self) -> list[Images | Constant]:
        """Return all tensors among the arguments."""
        found: list[Images | Constant] = []
        pending = [*self.args, *self.kwargs.values()]
        while pending:
            value = pending.pop(0)
            if isinstance(value, (Images, Constant)):
                found.append(value)
            elif isinstance(value, (list, tuple)):
                pending[:0] = value
        return found


def concrete(value: Any, images: Sequence[int]) -> Any:
    """Return an argument for a batch of images."""
    if isinstance(value, (Images, Constant)):
        return value.of(images)
    if value is COUNT:
        return len(images)
    if isinstance(value, list):
        return [concrete(item, images) for item in value]
    return value


def known(value: Any) -> Any:
    """Return what is known about an argument before a run."""
    if isinstance(value, (Images, Constant)):
        return value.facts
    if value is COUNT:
        return BatchSize(1)
    if isinstance(value, list):
        return [known(item) for item in value]
    return value


X = Images()
MAPS = Images((4, 6, 6))
LINE = Images((4, 6))
VOLUME = Images((4, 5, 5, 5))
PLACES = Images((4, 6), INT)
CELLS = [Constant((12, 6)), Constant((12, 3)), Constant((12,)), Constant((12,))]
GRU = [Constant((9, 6)), Constant((9, 3)), Constant((9,)), Constant((9,))]
RNN = [Constant((3, 6)), Constant((3, 3)), Constant((3,)), Constant((3,))]
STATE = Images((1, 3), axis=1)
SPATIAL = {1: LINE, 2: MAPS, 3: VOLUME}


def _spatial(name: str, *args: Any, **kwargs: Any) -> dict[str, Sample]:
    found = {}
    for ndim, x in SPATIAL.items():
        op = name.replace("#", str(ndim))
        if op in CALLED:
            arguments = tuple(a * ndim if isinstance(a, list) else a for a in args)
            found[op] = Sample(op, (x, *arguments), kwargs)
    return found


SPECIAL: dict[str, Sample] = {
    **_spatial("max_pool#d.default", [3], [2], [1], [1], True),
    **_spatial("max_pool#d_with_indices.default", [3], [2], [1], [1], False),
    **_spatial("avg_pool#d.default", [3], [2], [1], True, False),
    **_spatial("adaptive_avg_pool#d.default", [3]),
    **_spatial("adaptive_max_pool#d.default", [3]),
    **_spatial("_adaptive_avg_pool#d.default", [3]),
    **_spatial("upsample_nearest#d.default", [9]),
    **_spatial("_upsample_nearest_exact#d.default", [9]),
    **_spatial("upsample_nearest#d.vec", None, [1.5]),
    **_spatial("_upsample_nearest_exact#d.vec", [9], None),
    **_spatial("upsample_linear#d.default", [9], True),
    **_spatial("upsample_bilinear#d.default", [9], False),
    **_spatial("upsample_trilinear#d.default", [9], False),
    **_spatial("upsample_bicubic#d.default", [9], True),
    **_spatial("_upsample_bilinear#d_aa.default", [4], False),
    **_spatial("_upsample_bicubic#d_aa.default", [4], False),
    **_spatial("upsample_linear#d.vec", None, False, [1.5]),
    **_spatial("upsample_bilinear#d.vec", None, False, [1.5]),
    **_spatial("upsample_trilinear#d.vec", [9], False, None),
    **_spatial("upsample_bicubic#d.vec", [9], False, None),
    **_spatial("_upsample_bilinear#d_aa.vec", [4], False, None),
    **_spatial("_upsample_bicubic#d_aa.vec", None, False, [0.7]),
    **_spatial("reflection_pad#d.default", [2, 1]),
    **_spatial("replication_pad#d.default", [2, 1]),
}
for _ndim, _x in SPATIAL.items():
    _kernel = (3,) * _ndim
    SPECIAL[f"conv{_ndim}d.padding"] = Sample(
        f"conv{_ndim}d.padding", (_x, Constant((5, 4, *_kernel)), None, [1], "same", [2])
    )
    SPECIAL[f"conv{_ndim}d.default"] = Sample(
        f"conv{_ndim}d.default",
        (_x, Constant((6, 2, *_kernel)), Constant((6,)), [2] * _ndim, [1], [1], 2),
    )
    _name = f"conv_transpose{_ndim}d.{'default' if _ndim == 1 else 'input'}"
    SPECIAL[_name] = Sample(
        _name, (_x, Constant((4, 3, *_kernel)), Constant((6,)), [2], [1], [1], 2, [1])
    )
_CONV: tuple[Any, ...] = (MAPS, Constant((5, 4, 3, 3)), Constant((5,)), [1, 1], [1, 1], [1, 1])
_QKV = Images((2, 5, 8))


def _add(op: str, *args: Any, **kwargs: Any) -> None:
    SPECIAL[op] = Sample(op, args, kwargs)


_add("convolution.default", *_CONV, False, [0, 0], 1)
_add("_convolution.default", *_CONV, False, [0, 0], 1, False, False, False, False)
_add("im2col.default", MAPS, [3, 3], [1, 1], [1, 1], [2, 2])
_add("col2im.default", Images((36, 9)), [6, 6], [3, 3], [1, 1], [1, 1], [2, 2])
_add("grid_sampler.default", MAPS, Images((5, 5, 2)), 0, 0, False)
_add("grid_sampler_2d.default", MAPS, Images((5, 5, 2)), 2, 1, True)
_add("grid_sampler_3d.default", VOLUME, Images((3, 3, 3, 3)), 1, 2, False)
_add("affine_grid_generator.default", Images((2, 3)), [COUNT, 3, 5, 5], False)
_add("round.decimals", X, decimals=1)
for _op in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    _add(f"{_op}.Tensor", PLACES, Images((4, 6), INT))
    _add(f"{_op}.Scalar", PLACES, 5)
    _add(f"{_op}.Scalar_Tensor", 5, PLACES)
for _op in ("__and__", "__or__", "__xor__"):
    _add(f"{_op}.Tensor", PLACES, Constant((6,), INT))
    _add(f"{_op}.Scalar", PLACES, 5)
_add("bitwise_not.default", PLACES)
_add("where.self", Images((4, 6), BOOL, below=2), X, Constant())
_add("where.Scalar", Images((4, 6), BOOL, below=2), 1, 2.5)
_add("where.ScalarOther", Images((4, 6), BOOL, below=2), X, 2.5)
_add("where.ScalarSelf", Images((4, 6), BOOL, below=2), 1, X)
_add("masked_fill.Scalar", X, Constant((6,), BOOL, below=2), 2.0)
_add("masked_fill.Tensor", X, Images((4, 6), BOOL, below=2), Constant(()))
_add("copy.default", X, Constant())
_add("fill.Tensor", X, Constant(()))
_add("div.Tensor_mode", X, Constant(), rounding_mode="floor")
_add("div.Scalar_mode", PLACES, 2, rounding_mode="trunc")
_add("divide.Tensor_mode", X, Constant(), rounding_mode=None)
_add("divide.Scalar_mode", X, 0.3, rounding_mode="floor")
_add("clamp.default", X, 0.2, 0.5)
_add("clamp.Tensor", X, None, Constant())
_add("clip.default", X, None, 0.5)
_add("clip.Tensor", X, Constant(), Constant())
_add("prelu.default", X, Constant((4,)))
_add("_prelu_kernel.default", X, Constant((1, 4, 1)))
_add("glu.default", X, 2)
_add("rrelu.default", X, 0.1, 0.3, False)
_add("one_hot.default", PLACES, 3)
_add("bucketize.Tensor", X, Constant((3,)))
_add("to.device", X, torch.device("cpu"), F64)
_add("to.dtype", X, INT)
_add("to.dtype_layout", X, dtype=F64)
_add("to.other", PLACES, Constant())
_add("_to_copy.default", X, dtype=torch.bfloat16)
_add("type_as.default", PLACES, Constant())
_add("complex.default", X, Constant())
_add("polar.default", X, X)
_add("view_as_real.default", Images((4,), COMPLEX))
_add("view_as_complex.default", Images((4, 2)))
_add("real.default", Images((4,), COMPLEX))
_add("imag.default", Images((4,), COMPLEX))
_add("view.default", X, [COUNT, 24])
_add("reshape.default", X, [-1, 3])
_add("_unsafe_view.default", X, [COUNT, 2, 2, 6])
_add("reshape_as.default", X, Images((24,)))
_add("view_as.default", X, Images((24,)))
_add("flatten.using_ints", X, 0, 1)
_add("unflatten.int", X, 2, [2, -1])
_add("permute.default", X, [2, 0, -2])
_add("transpose.int", X, 0, -1)
_add("swapaxes.default", X, 0, 1)
_add("swapdims.default", X, 1, 2)
_add("t.default", Images((4,)))
_add("numpy_T.default", Images((4,)))
_add("movedim.int", X, 0, 2)
_add("movedim.intlist", X, [0, 1], [1, 2])
_add("moveaxis.int", X, 0, 1)
_add("moveaxis.intlist", X, [2], [0])
_add("unsqueeze.default", X, 0)
_add("squeeze.dim", Images((1, 4)), 1)
_add("squeeze.dims", Images((1, 4, 1)), [1, 3])
_add("squeeze.default", Constant((1, 4)))
_add("expand.default", Constant((1, 4)), [COUNT, -1])
_add("broadcast_to.default", Images((1, 4)), [COUNT, 3, 4])
_add("expand_as.default", Constant((1, 6)), X)
_add("repeat.default", X, [1, 2, 1])
_add("tile.default", X, [2, 1])
_add("repeat_interleave.self_int", X, 2, 0)
_add("flip.default", X, [1, -1])
_add("roll.default", X, [1, -2], [1, 2])
_add("pixel_shuffle.default", Images((8, 3, 3)), 2)
_add("pixel_unshuffle.default", MAPS, 2)
_add("channel_shuffle.default", MAPS, 2)
_add("native_channel_shuffle.default", MAPS, 2)
_add("diagonal.default", MAPS, 1, 2, 3)
_add("diagonal_scatter.default", MAPS, Images((4, 5)), 1, 2, 3)
_add("slice.Tensor", X, 2, 1, -1, 2)
_add("slice_scatter.default", X, Images((4, 2)), 2, 1, 3)
_add("narrow.default", X, 1, 1, 2)
_add("select.int", X, 2, -1)
_add("select_scatter.default", X, Images((4,)), 2, 3)
_add("unbind.int", X, 1)
_add("split.Tensor", X, 4, 2)
_add("split.sizes", X, [1, 5], 2)
_add("unsafe_split.Tensor", X, 3, 1)
_add("split_with_sizes.default", X, [1, 3], 1)
_add("unsafe_split_with_sizes.default", X, [2, 2, 2], 2)
_add("chunk.default", X, 4, 2)
_add("unsafe_chunk.default", X, 3, 1)
_add("tensor_split.indices", X, [1, 4], 2)
_add("tensor_split.sections", X, 4, 2)
for _op in ("cat", "concat", "concatenate"):
    _add(f"{_op}.default", [X, Images((2, 6))], 1)
_add("stack.default", [X, X], 0)
_add("hstack.default", [X, Images((2, 6))])
_add("vstack.default", [Images((4,), axis=1), Images((2,), axis=1)])
_add("dstack.default", [X, X])
_add("column_stack.default", [Images((4,)), Images((2,))])
_add("broadcast_tensors.default", [X, Constant((4, 1))])
_add("meshgrid.default", [Constant((3,)), Constant((4,))])
_add("meshgrid.indexing", [Constant((3,)), Constant((4,))], indexing="xy")
_add("pad.default", MAPS, [1, 2, 0, 1], "reflect")
_add("constant_pad_nd.default", X, [1, -2], 3)
_add("unfold.default", X, 2, 3, 2)
_add("as_strided.default", X, [COUNT, 2, 3], [24, 2, 4], 1)
for _op in ("zeros", "ones"):
    _add(f"{_op}.default", [COUNT, 3])
_add("full.default", [3, COUNT], 2)
for _op in ("new_zeros", "new_ones"):
    _add(f"{_op}.default", X, [COUNT, 3])
_add("new_full.default", X, [3], 2.0)
_add("full_like.default", X, 2)
_add("arange.default", 5)
_add("arange.start", 2, 5.5)
_add("arange.start_step", 7, 2, -2)
_add("linspace.default", 0, 1, 5)
_add("eye.default", 3)
_add("eye.m", 3, 4)
_add("scalar_tensor.default", 3.0)
_add("tril_indices.default", 3, 4, -1)
_add("triu_indices.default", 3, 4, 1)
for _op in ("max", "min"):
    _add(f"{_op}.default", Constant())
    _add(f"{_op}.dim", X, 2, True)
    _add(f"{_op}.other", X, Constant())
for _op in (
    *("mean.default", "nanmean.default", "sum.default", "nansum.default", "amax.default"),
    *("amin.default", "prod.default", "std.default", "var.default", "std_mean.default"),
    *("var_mean.default", "all.default", "any.default", "count_nonzero.default"),
    *("norm.Scalar", "argmax.default", "argmin.default"),
):
    _add(_op, Constant((4, 6)))
for _op in ("mean.dim", "sum.dim_IntList", "all.dims", "any.dims", "amax.default", "amin.default"):
    _add(_op, X, [1, -1], True)
for _op in ("std.dim", "var.dim", "std_mean.dim", "var_mean.dim"):
    _add(_op, X, [2], True, False)
for _op in ("std.correction", "var.correction", "std_mean.correction", "var_mean.correction"):
    _add(_op, X, [1, 2], correction=0, keepdim=True)
for _op in ("all.dim", "any.dim", "prod.dim_int", "argmax.default", "argmin.default"):
    _add(_op, X, 1)
_add("count_nonzero.dim_IntList", X, [1])
_add("logsumexp.default", X, [1])
_add("linalg_vector_norm.default", X, 2, [1, 2])
_add("norm.ScalarOpt_dim", X, 2, [2])
_add("norm.ScalarOpt_dim_dtype", X, 2, [2], False, dtype=F64)
_add("norm.ScalarOpt_dtype", Constant(), 2, dtype=F64)
_add("frobenius_norm.dim", X, [1, 2])
for _op in ("softmax.int", "log_softmax.int", "_safe_softmax.default", "cumsum.default"):
    _add(_op, X, 1)
for _op in ("special_softmax.default", "special_log_softmax.default", "cumprod.default"):
    _add(_op, X, 2)
for _op in ("_softmax.default", "_log_softmax.default"):
    _add(_op, X, -1, False)
for _op in ("logcumsumexp.default", "cummax.default", "cummin.default"):
    _add(_op, X, 1)
for _op in ("sort.default", "argsort.default"):
    _add(_op, X, 1, True)
_add("sort.stable", X, stable=True, dim=2)
_add("argsort.stable", X, stable=True, dim=2)
_add("topk.default", X, 2, 1)
_add("cosine_similarity.default", X, Constant((4, 6)), 2)
_MEANS = (Constant((4,)),) * 4
_add("batch_norm.default", MAPS, *_MEANS, False, 0.1, 1e-5, False)
_WIDE = Images((1, 6, 6), axis=1)
_add("_native_batch_norm_legit.no_stats", _WIDE, None, None, True, 0.1, 1e-5)
_add("instance_norm.default", MAPS, *_MEANS[:2], None, None, True, 0.1, 1e-5, False)
for _op in ("layer_norm.default", "native_layer_norm.default"):
    _add(_op, X, [4, 6], Constant((4, 6)), Constant((4, 6)), 1e-5)
for _op in ("rms_norm.default", "_fused_rms_norm.default"):
    _add(_op, X, [6], Constant((6,)), 1e-5)
_add("group_norm.default", MAPS, 2, *_MEANS[:2], 1e-5)
_add("native_group_norm.default", MAPS, *_MEANS[:2], COUNT, 4, 36, 2, 1e-5)
for _op in ("_weight_norm.default", "_weight_norm_interface.default"):
    _add(_op, Constant((4, 3)), Constant((4, 1)), 0)
for _op in ("fft_fft", "fft_ifft", "fft_rfft"):
    _add(f"{_op}.default", X, None, 2, "ortho")
_add("fft_irfft.default", X, 8, 2)
for _op in ("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2", "fft_fftn", "fft_ifftn"):
    _add(f"{_op}.default", MAPS, None, [-2, -1])
_add("fft_rfftn.default", MAPS, [4, 4], [1, 2])
_add("fft_irfftn.default", MAPS, [4, 4], [1, 2])
_add("fft_fftshift.default", X, [1])
_add("fft_ifftshift.default", X, [1, 2])
_add("matmul.default", X, Images((6, 5)))
_add("mm.default", Images((6,)), Constant((6, 5)))
_add("bmm.default", X, Images((6, 5)))
_add("linalg_matmul.default", Constant((5, 4)), X)
_add("mv.default", Images((6,)), Constant((6,)))
_add("addmm.default", Constant((5,)), Images((6,)), Constant((6, 5)))
_add("baddbmm.default", Images((4, 5)), X, Images((6, 5)))
_add("linear.default", X, Constant((5, 6)), Constant((5,)))
_add("einsum.default", "nij,njk,k->nik", [X, Images((6, 5)), Constant((5,))])
_add("scaled_dot_product_attention.default", _QKV, _QKV, _QKV, Constant((5, 5)))
_add("_scaled_dot_product_attention_math.default", _QKV, _QKV, _QKV)
_add("_scaled_dot_product_flash_attention_for_cpu.default", _QKV, _QKV, _QKV, is_causal=True)
_add("lstm.input", X, [STATE, STATE], CELLS, True, 1, 0.0, False, False, True)
_add("gru.input", X, STATE, GRU, True, 1, 0.0, False, False, True)
_add("rnn_tanh.input", X, STATE, RNN, True, 1, 0.0, False, False, True)
_add("rnn_relu.input", Images((4, 6), axis=1), STATE, RNN, True, 1, 0.0, False, False, False)
_add("index.Tensor", X, [None, Constant((3,), INT), Constant((2, 1), INT)])
_add("_unsafe_index.Tensor", X, [None, None, Constant((4,), INT)])
_add("index_put.default", X, [None, Constant((1,), INT)], Constant((6,)))
_add("_unsafe_index_put.default", X, [Images((4, 6), BOOL, below=2)], Constant(()))
_add("index_select.default", X, 1, Constant((3,), INT))
_add("embedding.default", Constant((3, 5)), PLACES)
_add("gather.default", X, 2, Images((4, 2), INT))
_add("take_along_dim.default", X, Images((4, 2), INT), 2)
_add("scatter.src", X, 2, Images((4, 1), INT), Images((4, 2)))
_add("scatter.value", X, 2, Images((4, 1), INT), 3.0)
_add("scatter_add.default", X, 2, Images((4, 3), INT), Images((4, 3)))
_add("index_add.default", X, 1, Constant((3,), INT), Images((3, 6)))
_add("index_copy.default", X, 1, Constant((1,), INT), Images((1, 6)))
_add("index_fill.int_Scalar", X, 1, Constant((3,), INT), 2.0)
_add("sym_size.int", X, 0)
_add("sym_numel.default", X)
_add("_local_scalar_dense.default", Constant(()))
_add("item.default", Constant(()))
_add("isclose.default", X, Constant())


def sample(op: str) -> Sample:
    """Return a call of an operator of the list."""
    if op in SPECIAL:
        return SPECIAL[op]
    found = schema(f"aten.{op}")
    assert found is not None
    args: list[Any] = []
    for position, argument in enumerate(found.arguments):
        if argument.kwarg_only or argument.has_default_value():
            break
        kind = str(argument.type)
        if kind == "Tensor":
            args.append(Constant() if any(isinstance(a, Images) for a in args) else X)
        elif kind in ("number", "float", "int"):
            args.append(2)
        else:
            raise AssertionError(f"{op} has no sample: argument {position} is {kind}")
    return Sample(op, tuple(args))
