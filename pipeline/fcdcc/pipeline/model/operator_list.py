"""The operators that a model may use: a list, not a set of exceptions.

A model file names its operators. Only those in :data:`CALLED` are ever called, at import or in a
run. Each group says why its operators are harmless. All of them compute new tensors from their
arguments and do nothing else, and each has a rule in
:mod:`~fcdcc.pipeline.model.image_rules` that checks its arguments before every first call with
new shapes: ranks, sizes, types, and that windows fit. What is not in the list is refused:
backward kernels, which trust indices; kernels for quantised, sparse and nested tensors, whose
shapes nothing checks; random numbers; memory that is not initialised; files.

Names are those of ATen without the namespace, with their overload.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorGroup:
    """Operators that are on the list for the same reason.

    Parameters
    ----------
    reason
        Why they are harmless.
    operators
        Their names with overloads, separated by white space.
    """

    reason: str
    operators: str


GROUPS = {
    "element by element": OperatorGroup(
        "TensorIterator computes the shape of the result and checks every operand against it.",
        """
        abs.default absolute.default neg.default negative.default positive.default ceil.default
        floor.default round.default round.decimals trunc.default fix.default frac.default
        sign.default sgn.default square.default relu.default nan_to_num.default
        bitwise_not.default relu6.default gelu.default silu.default mish.default
        hardswish.default hardsigmoid.default hardtanh.default leaky_relu.default elu.default
        celu.default selu.default softplus.default log_sigmoid.default hardshrink.default
        softshrink.default threshold.default angle.default
        acos.default acosh.default asin.default asinh.default atan.default atanh.default
        cos.default cosh.default sin.default sinh.default tan.default tanh.default exp.default
        exp2.default expm1.default log.default log10.default log1p.default log2.default
        sqrt.default rsqrt.default erf.default erfc.default erfinv.default lgamma.default
        digamma.default sigmoid.default reciprocal.default sinc.default logit.default
        deg2rad.default rad2deg.default special_expit.default special_erf.default
        special_exp2.default special_expm1.default special_log1p.default special_logit.default
        special_sinc.default special_xlogy.default special_xlogy.other_scalar
        special_xlogy.self_scalar
        isnan.default isinf.default isfinite.default isposinf.default isneginf.default
        signbit.default logical_not.default logical_and.default logical_or.default
        logical_xor.default eq.Scalar eq.Tensor ne.Scalar ne.Tensor lt.Scalar lt.Tensor le.Scalar
        le.Tensor gt.Scalar gt.Tensor ge.Scalar ge.Tensor not_equal.Scalar not_equal.Tensor
        less.Scalar less.Tensor less_equal.Scalar less_equal.Tensor greater.Scalar
        greater.Tensor greater_equal.Scalar greater_equal.Tensor isclose.default
        add.Scalar add.Tensor sub.Scalar sub.Tensor mul.Scalar mul.Tensor rsub.Scalar rsub.Tensor
        multiply.Scalar multiply.Tensor subtract.Scalar subtract.Tensor addcmul.default
        addcdiv.default maximum.default minimum.default fmax.default fmin.default fmod.Scalar
        fmod.Tensor remainder.Scalar remainder.Scalar_Tensor remainder.Tensor
        floor_divide.default floor_divide.Scalar pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor
        copysign.Scalar copysign.Tensor hypot.default logaddexp.default atan2.default
        arctan2.default xlogy.Scalar_Other xlogy.Scalar_Self xlogy.Tensor
        bitwise_and.Scalar bitwise_and.Scalar_Tensor bitwise_and.Tensor bitwise_or.Scalar
        bitwise_or.Scalar_Tensor bitwise_or.Tensor bitwise_xor.Scalar bitwise_xor.Scalar_Tensor
        bitwise_xor.Tensor __and__.Scalar __and__.Tensor __or__.Scalar __or__.Tensor
        __xor__.Scalar __xor__.Tensor heaviside.default clamp_max.default clamp_max.Tensor
        clamp_min.default clamp_min.Tensor clamp.default clamp.Tensor clip.default clip.Tensor
        lerp.Scalar lerp.Tensor div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode
        divide.Scalar divide.Scalar_mode divide.Tensor divide.Tensor_mode true_divide.Scalar
        true_divide.Tensor where.Scalar where.ScalarOther where.ScalarSelf where.self
        masked_fill.Scalar masked_fill.Tensor copy.default fill.Scalar fill.Tensor zero.default
        prelu.default _prelu_kernel.default glu.default rrelu.default one_hot.default
        bucketize.Tensor
        """,
    ),
    "types and parts of complex numbers": OperatorGroup(
        "They copy values to another type, or view the parts of complex numbers.",
        """
        to.device to.dtype to.dtype_layout to.other _to_copy.default type_as.default
        clone.default contiguous.default alias.default detach.default lift_fresh_copy.default
        lift_fresh.default real.default imag.default complex.default polar.default
        view_as_real.default view_as_complex.default conj_physical.default conj.default
        resolve_conj.default resolve_neg.default
        """,
    ),
    "axes": OperatorGroup(
        "They move, cut and join axes; PyTorch computes the shapes before it copies.",
        """
        view.default reshape.default _unsafe_view.default reshape_as.default view_as.default
        flatten.using_ints ravel.default unflatten.int permute.default transpose.int
        swapaxes.default swapdims.default t.default numpy_T.default mT.default movedim.int
        movedim.intlist moveaxis.int moveaxis.intlist unsqueeze.default squeeze.default
        squeeze.dim squeeze.dims expand.default broadcast_to.default expand_as.default
        repeat.default tile.default repeat_interleave.self_int flip.default roll.default
        tril.default triu.default pixel_shuffle.default pixel_unshuffle.default
        channel_shuffle.default native_channel_shuffle.default diagonal.default
        diagonal_scatter.default slice.Tensor slice_scatter.default narrow.default select.int
        select_scatter.default unbind.int split.Tensor split.sizes unsafe_split.Tensor
        split_with_sizes.default unsafe_split_with_sizes.default chunk.default
        unsafe_chunk.default tensor_split.indices tensor_split.sections cat.default
        concat.default concatenate.default stack.default hstack.default vstack.default
        dstack.default column_stack.default broadcast_tensors.default meshgrid.default
        meshgrid.indexing pad.default constant_pad_nd.default reflection_pad1d.default
        reflection_pad2d.default reflection_pad3d.default replication_pad1d.default
        replication_pad2d.default replication_pad3d.default unfold.default
        """,
    ),
    "memory by position": OperatorGroup(
        "PyTorch checks it against the memory, and the rule against the tensor and the image.",
        "as_strided.default",
    ),
    "new tensors": OperatorGroup(
        "Every element is written. The rule checks the size before memory is allocated.",
        """
        zeros.default ones.default full.default new_zeros.default new_ones.default
        new_full.default zeros_like.default ones_like.default full_like.default arange.default
        arange.start arange.start_step linspace.default eye.default eye.m scalar_tensor.default
        tril_indices.default triu_indices.default
        """,
    ),
    "reductions": OperatorGroup(
        "They reduce, sort or accumulate along axes that the rule checks.",
        """
        mean.default mean.dim nanmean.default sum.default sum.dim_IntList nansum.default
        amax.default amin.default max.default max.dim max.other min.default min.dim min.other
        prod.default prod.dim_int std.default std.correction std.dim var.default var.correction
        var.dim std_mean.default std_mean.correction std_mean.dim var_mean.default
        var_mean.correction var_mean.dim logsumexp.default argmax.default argmin.default
        linalg_vector_norm.default norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype
        norm.ScalarOpt_dtype frobenius_norm.dim all.default all.dim all.dims any.default any.dim
        any.dims count_nonzero.default count_nonzero.dim_IntList softmax.int log_softmax.int
        _softmax.default _log_softmax.default _safe_softmax.default special_softmax.default
        special_log_softmax.default cumsum.default cumprod.default logcumsumexp.default
        cummax.default cummin.default sort.default sort.stable argsort.default argsort.stable
        topk.default cosine_similarity.default
        """,
    ),
    "normalisation": OperatorGroup(
        "The rule checks that statistics and parameters have a number for each channel.",
        """
        batch_norm.default _native_batch_norm_legit.no_stats instance_norm.default
        layer_norm.default native_layer_norm.default rms_norm.default _fused_rms_norm.default
        group_norm.default native_group_norm.default _weight_norm.default
        _weight_norm_interface.default
        """,
    ),
    "Fourier transforms": OperatorGroup(
        "The rule checks axes and sizes.",
        """
        fft_fft.default fft_ifft.default fft_rfft.default fft_irfft.default fft_fft2.default
        fft_ifft2.default fft_rfft2.default fft_irfft2.default fft_fftn.default
        fft_ifftn.default fft_rfftn.default fft_irfftn.default fft_fftshift.default
        fft_ifftshift.default
        """,
    ),
    "windows": OperatorGroup(
        "The rule checks ranks, channels and groups, and that windows fit into the padded input.",
        """
        conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default
        conv3d.padding conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input
        convolution.default _convolution.default max_pool1d.default max_pool2d.default
        max_pool3d.default avg_pool1d.default avg_pool2d.default avg_pool3d.default
        max_pool1d_with_indices.default max_pool2d_with_indices.default
        max_pool3d_with_indices.default adaptive_avg_pool1d.default
        adaptive_avg_pool2d.default adaptive_avg_pool3d.default adaptive_max_pool1d.default
        adaptive_max_pool2d.default adaptive_max_pool3d.default _adaptive_avg_pool2d.default
        _adaptive_avg_pool3d.default im2col.default col2im.default
        """,
    ),
    "resampling": OperatorGroup(
        "The rule checks sizes and factors; places outside the input are clipped or padding.",
        """
        upsample_nearest1d.default upsample_nearest1d.vec upsample_nearest2d.default
        upsample_nearest2d.vec upsample_nearest3d.default upsample_nearest3d.vec
        _upsample_nearest_exact1d.default _upsample_nearest_exact1d.vec
        _upsample_nearest_exact2d.default _upsample_nearest_exact2d.vec
        _upsample_nearest_exact3d.default _upsample_nearest_exact3d.vec
        upsample_linear1d.default upsample_linear1d.vec upsample_bilinear2d.default
        upsample_bilinear2d.vec upsample_trilinear3d.default upsample_trilinear3d.vec
        upsample_bicubic2d.default upsample_bicubic2d.vec _upsample_bilinear2d_aa.default
        _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.default _upsample_bicubic2d_aa.vec
        grid_sampler.default grid_sampler_2d.default grid_sampler_3d.default
        affine_grid_generator.default
        """,
    ),
    "products": OperatorGroup(
        "The rule checks that the shapes fit, and that attention drops nothing at random.",
        """
        matmul.default mm.default bmm.default linalg_matmul.default mv.default addmm.default
        baddbmm.default linear.default einsum.default scaled_dot_product_attention.default
        _scaled_dot_product_attention_math.default
        _scaled_dot_product_flash_attention_for_cpu.default
        """,
    ),
    "recurrent layers": OperatorGroup(
        "The rule checks the shapes of all weights and states, and that nothing is dropped.",
        "lstm.input gru.input rnn_tanh.input rnn_relu.input",
    ),
    "places that tensors hold": OperatorGroup(
        "The kernels check every place against the size of its axis; the rule checks the shapes.",
        """
        index.Tensor _unsafe_index.Tensor index_put.default _unsafe_index_put.default
        index_select.default embedding.default gather.default take_along_dim.default scatter.src
        scatter.value scatter_add.default index_add.default index_copy.default
        index_fill.int_Scalar
        """,
    ),
    "numbers": OperatorGroup(
        "They read the size of a tensor, or the one number of a constant.",
        "sym_size.int sym_numel.default _local_scalar_dense.default item.default",
    ),
}

CALLED: frozenset[str] = frozenset(
    name for group in GROUPS.values() for name in group.operators.split()
)
"""Operators that may be called."""

NEVER_CALLED = {
    "assertions": OperatorGroup(
        "They are dropped: the importer checks shapes and types itself.",
        """
        _assert_async.default _assert_async.msg _assert_scalar.default
        _assert_tensor_metadata.default _functional_assert_async.msg
        _functional_assert_scalar.default sym_constrain_range.default
        sym_constrain_range_for_size.default _functional_sym_constrain_range.default
        _functional_sym_constrain_range_for_size.default
        """,
    ),
    "identities": OperatorGroup(
        "They return their argument in inference and are dropped.",
        """
        detach_.default lift.default requires_grad_.default dropout.default dropout_.default
        feature_dropout.default feature_dropout_.default alpha_dropout.default
        alpha_dropout_.default feature_alpha_dropout.default feature_alpha_dropout_.default
        """,
    ),
    "replaced": OperatorGroup(
        "Others take their place: uninitialised memory becomes zeros.",
        """
        empty.memory_format new_empty.default empty_like.default
        _native_batch_norm_legit_no_training.default
        """,
    ),
}
"""Operators that a model may name and that are never called."""

READ_ONLY: frozenset[str] = frozenset(
    name for group in NEVER_CALLED.values() for name in group.operators.split()
)
