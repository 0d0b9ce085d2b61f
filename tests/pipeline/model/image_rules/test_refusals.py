"""Calls that the rules refuse, each with the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fcdcc.pipeline.model.image_rules.facts import ArgumentsError, NotPerImageError
from support.operator_programs import check_result, facts_of
from support.operator_samples import BOOL, COUNT, F32, F64, INT, Constant, Images, Sample

X = Images((4, 6))
MAPS = Images((4, 6, 6))
LINE = Constant((6,))
ROW = Constant((6, 3))
PLACES = Images((4, 6), INT)

MIXING: list[tuple[str, tuple[Any, ...], str]] = [
    ("full_like.default", (X, COUNT), "depends on the number of images"),
    ("new_full.default", (X, [2], COUNT), "depends on the number of images"),
    ("add.Tensor", (LINE, COUNT), "depends on the number of images"),
    ("fill.Scalar", (X, COUNT), "depends on the number of images"),
    ("fill.Tensor", (LINE, Images((), axis=0)), "fills a tensor|image"),
    ("view_as_complex.default", (Images((3,), axis=1),), "pairs of numbers|two images"),
    ("gather.default", (X, 1, Images((4, 6), INT, axis=1)), "images"),
    ("scatter.value", (X, 2, PLACES, COUNT), "depends on the number of images"),
    (
        "batch_norm.default",
        (X, Images((), F32), None, Constant((4,)), Constant((4,)), False, 0.1, 1e-5, False),
        "images|shape",
    ),
    (
        "instance_norm.default",
        (Images((4, 6), axis=1), None, None, None, None, True, 0.1, 1e-5, False),
        "images|shape",
    ),
    ("view.default", (X, [COUNT, 5]), "."),
    ("affine_grid_generator.default", (Images((2, 3)), [2, 3, 6, 6], False), "another number"),
    ("_weight_norm_interface.default", (X, X, 0), "depend on the images"),
    ("conv2d.default", (Constant((2, 4, 6, 6)), Images((4, 3, 3))), "filters depend on the images"),
    # element by element
    ("add.Tensor", (X, X), ""),
    ("pow.Tensor_Scalar", (X, COUNT), "depends on the number of images"),
    ("masked_fill.Scalar", (X, Images((4, 6), BOOL), COUNT), "depends on the number of images"),
    (
        "masked_fill.Tensor",
        (X, Images((4, 6), BOOL), Images(())),
        "meet other images|fills a tensor",
    ),
    ("prelu.default", (X, Images((), F32)), "slopes depend on the images"),
    ("glu.default", (X, 0), "multiplies halves"),
    ("bucketize.Tensor", (X, Images(())), "not one list of constants"),
    # reductions
    ("mean.dim", (X, [0]), "."),
    ("sum.default", (X,), "."),
    ("linalg_vector_norm.default", (X, COUNT), "depends on the number of images"),
    ("softmax.int", (X, 0), "."),
    ("cumsum.default", (X, 0), "."),
    ("group_norm.default", (Images((4, 6), axis=1), 1), "normalises across images"),
    ("fft_fft.default", (X, COUNT, 1), "depends on the number of images"),
    ("sort.default", (X, 0), "."),
    # windows
    ("conv1d.default", (X, Images((4, 4, 3))), "filters depend on the images|filters of shape"),
    ("conv1d.default", (X, Constant((2, 4, 3)), Images(())), "bias depends on the images"),
    ("conv1d.default", (Images((4, 6), axis=1), Constant((2, 1, 3))), "images"),
    ("max_pool1d.default", (Images((4, 6), axis=2), [2]), "images"),
    (
        "grid_sampler_2d.default",
        (Constant((1, 4, 6, 6)), Images((6, 6, 2)), 0, 0, False),
        "constant",
    ),
    ("grid_sampler_2d.default", (MAPS, Constant((1, 6, 6, 2)), 0, 0, False), "at one grid"),
    # products
    ("matmul.default", (Constant((3, 2)), Images((5,), axis=0)), "multiplies the shapes"),
    ("matmul.default", (Constant((3, 1)), Images((5,), axis=0)), "sums over the images"),
    ("mm.default", (Images((6,)), Images((6,))), "multipl"),
    ("matmul.default", (Images((6,)), Images((6,), axis=1)), "multiplies images by other images"),
    ("linear.default", (X, Images((6,))), "weights depend on the images"),
    ("linear.default", (Images((6,), axis=1), Constant((2, 1))), "sums over the images"),
    ("linear.default", (X, Constant((2, 6)), Images((), F32)), "depends on the images"),
    ("einsum.default", ("nc,nd->cd", [Images((6,)), Images((6,))]), "sums over the images"),
    ("einsum.default", ("nc,md->ncmd", [Images((6,)), Images((6,))]), "meet other images"),
    ("einsum.default", ("nc,nc->nc", [Images((6,)), Constant((3, 6))]), "values of its own"),
    # indexing
    ("index.Tensor", (X, [Constant((2,), INT)]), "picks places"),
    ("index.Tensor", (X, [None, Images((), INT)]), "indices that depend on images"),
    ("index.Tensor", (LINE, [Images((6,), BOOL)]), "picks places by a mask"),
    ("index_select.default", (X, 0, Constant((2,), INT)), "picks places"),
    ("index_select.default", (X, 1, Images((), INT)), "indices that depend on images"),
    ("embedding.default", (Images((6,)), Images((), INT)), "table depends on the images"),
    ("embedding.default", (ROW, Images((), INT), COUNT), "depends on the number of images"),
    ("gather.default", (X, 0, PLACES), "picks places"),
    ("gather.default", (Constant((5, 4, 6)), 1, PLACES), "meet other images"),
    ("scatter.value", (X, 1, PLACES, COUNT), "depends on the number of images"),
    ("index_fill.int_Scalar", (X, 1, Images((), INT), 1), "places that depend on images"),
    ("index_fill.int_Scalar", (X, 1, Constant((2,), INT), COUNT), "the number of images"),
    ("index_put.default", (X, [Images((4,), BOOL)], Constant((6,))), "by a mask across images"),
    ("index_put.default", (LINE, [Images((), INT)], Constant((1,))), "writes to a constant"),
    # cutting and joining
    ("slice.Tensor", (X, 0, 1), "takes some images"),
    ("slice.Tensor", (X, 0, 0, COUNT, 2), "takes some images"),
    ("narrow.default", (X, 0, 0, 1), "takes some images"),
    ("select.int", (X, 0, 0), "takes one image"),
    ("unbind.int", (X, 0), "separates"),
    ("split.Tensor", (X, 1, 0), "splits"),
    ("cat.default", ([X, X], 0), "joins batches of images"),
    ("cat.default", ([X, Constant((3, 4, 6))], 1), "values of its own"),
    ("slice_scatter.default", (X, Images((4, 6)), 0, 1), "takes some images"),
    ("meshgrid.default", ([Images(()), LINE],), "makes a grid of the images"),
    ("constant_pad_nd.default", (X, [0, 0, 0, 0, 1, 1]), "pads"),
    ("constant_pad_nd.default", (X, [1, 1], COUNT), "depends on the number of images"),
    # reshaping
    ("view.default", (X, [4, -1]), "joins entries of different images"),
    ("view.default", (X, [COUNT, COUNT]), "two axes a size"),
    ("view.default", (X, [3, 8]), "a batch of any size"),
    ("view.default", (LINE, [COUNT, 2]), "a constant over the images"),
    ("squeeze.default", (X,), "drops the batch axis"),
    ("squeeze.dim", (X, 0), "drops the batch axis"),
    ("expand.default", (X, [7, 4, 6]), "expands the batch axis"),
    ("expand.default", (LINE, [COUNT]), "spreads values over the images"),
    ("repeat.default", (X, [COUNT, 1, 1]), "once for each image"),
    ("flip.default", (X, [0]), "turns the order"),
    ("roll.default", (X, [1]), "rolls all elements"),
    ("roll.default", (X, [1], [0]), "rolls"),
    ("as_strided.default", (X, [2, 24], [24, 1]), "across images"),
    ("as_strided.default", (X, [COUNT, 30], [24, 1]), "beyond an image"),
    # constructors
    ("zeros.default", ([COUNT, COUNT],), "depends on the number of images"),
    ("full.default", ([2], COUNT), "depends on the number of images"),
    ("zeros_like.default", (X,), ""),
    ("arange.default", (COUNT,), "depends on the number of images"),
    ("scalar_tensor.default", (COUNT,), "depends on the number of images"),
]
"""Operators, their arguments, and why they are not computed image by image; an empty reason is a
call that is accepted, so that the table shows that not everything is refused."""

IMPOSSIBLE: list[tuple[str, tuple[Any, ...], str]] = [
    ("imag.default", (X,), "imaginary part of real numbers"),
    ("complex.default", (LINE, Constant((6,), F64)), "real and an imaginary part"),
    ("sort.default", (Images((4,), torch.complex64),), "sorts complex numbers"),
    ("one_hot.default", (Images((4,), torch.int32), 3), "."),
    ("fill.Scalar", (Constant((6,), torch.uint8), 300), "writes 300 into values"),
    ("fill.Scalar", (LINE, 1j), "writes"),
    ("narrow.default", (Constant(()), 0, 0, 1), "."),
    ("select.int", (Constant(()), 0, 0), "."),
    ("unbind.int", (Constant(()),), "."),
    ("split.Tensor", (Constant(()), 1), "."),
    ("split.Tensor", (Constant((2**17,)), 1), "parts of 1"),
    ("unfold.default", (Constant(()), 0, 1, 1), "."),
    ("repeat_interleave.self_int", (Constant(()), 2, 0), "."),
    ("pad.default", (Images((4, 0)), [1, 1], "reflect"), "pads a tensor of shape"),
    ("index.Tensor", (LINE, [None]), "indices for"),
    ("index.Tensor", (Constant((0,)), [Constant((2,), INT)]), "picks places of a tensor"),
    ("_unsafe_index.Tensor", (LINE, [Constant((6,), BOOL)]), "by a mask"),
    ("index_put.default", (LINE, [Constant((2,), BOOL)], Constant((1,))), "mask of shape"),
    ("scatter.value", (X, 1, Constant((2,), INT), 1.0), "places of shape"),
    (
        "addmm.default",
        (
            LINE,
            ROW,
            Constant((3, 6)),
        ),
        "",
    ),
    ("sum.default", (Constant((6,), torch.float16),), ""),
    ("softmax.int", (Constant((6,), torch.complex64), 0), "."),
    ("amax.default", (Constant((0,)), [0]), "over no elements"),
    ("cosine_similarity.default", (Constant((6,), INT), Constant((6,), INT), 0), "."),
    ("fft_fft.default", (Constant((6,), BOOL),), "."),
    ("fft_fftn.default", (LINE, [3]), "."),
    (
        "scaled_dot_product_attention.default",
        (Constant((6, 3), INT), Constant((6, 3), INT), Constant((6, 3), INT)),
        ".",
    ),
    ("conv1d.default", (X, Constant((2, 4, 3)), None, [2**40]), "'stride'"),
    ("conv1d.default", (X, Constant((2, 4, 0))), "filters of shape|."),
    ("conv1d.default", (Images((4, 0)), Constant((2, 4, 1))), "result would have the shape|."),
    ("max_pool1d.default", (Images((4, 0)), [2]), "takes windows of a tensor"),
    ("adaptive_avg_pool1d.default", (Images((4, 6), INT), [2]), "."),
    ("upsample_nearest2d.vec", (MAPS, None, [-1.0, 2.0]), "by the factor"),
    ("grid_sampler_2d.default", (Images((4, 6, 6), INT), Images((6, 6, 2)), 0, 0, False), "."),
    ("im2col.default", (Images((4, 6, 6), INT), [2, 2], [1, 1], [0, 0], [1, 1]), "."),
    ("_weight_norm_interface.default", (ROW, Constant((3,)), 0), "norms of shape"),
    # element by element
    ("sub.Tensor", (Constant((6,), BOOL), Constant((6,), BOOL)), "torch.bool"),
    ("clamp.default", (X,), "neither a lower nor an upper bound"),
    ("masked_fill.Scalar", (X, X, 1.0), "not of truth values"),
    ("masked_fill.Tensor", (X, Images((4, 6), BOOL), LINE), "with one that has axes"),
    ("view_as_complex.default", (X,), "takes pairs of numbers"),
    ("prelu.default", (X, Constant((3,))), "slopes of shape"),
    ("glu.default", (Images((5, 6)), 1), "halves axis 1"),
    ("bucketize.Tensor", (X, ROW), "not one list of constants"),
    ("where.self", (X, X, X), "."),
    # reductions
    ("mean.dim", (Images((4,), INT), [1]), "."),
    ("logsumexp.default", (X, []), "names no axis"),
    ("linalg_vector_norm.default", (X, "fro"), "."),
    ("linalg_vector_norm.default", (Images((4,), INT),), "."),
    ("softmax.int", (Images((4,), INT), 1), "."),
    ("group_norm.default", (X, 3), "3 groups"),
    ("native_group_norm.default", (MAPS, None, None, 7, 4, 36, 2, 1e-5), "told sizes"),
    ("layer_norm.default", (X, [5]), "."),
    (
        "batch_norm.default",
        (X, None, None, None, None, False, 0.1, 1e-5, False),
        "statistics that it does not have",
    ),
    (
        "batch_norm.default",
        (X, Constant((5,)), None, Constant((4,)), Constant((4,)), False, 0.1, 1e-5, False),
        "has the shape",
    ),
    (
        "batch_norm.default",
        (X, Constant((4,), F64), None, Constant((4,)), Constant((4,)), False, 0.1, 1e-5, False),
        "'weight'",
    ),
    (
        "instance_norm.default",
        (MAPS, None, None, None, None, False, 0.1, 1e-5, False),
        "statistics that it does not have",
    ),
    (
        "instance_norm.default",
        (MAPS, None, None, Constant((4,)), Constant((4,)), True, 0.1, 1e-5, False),
        "running statistics",
    ),
    ("fft_fft.default", (X, 0, 1), "to 0 entries"),
    ("fft_fft.default", (X, 4, 1, "odd"), "its argument 'norm'"),
    ("fft_rfft.default", (Images((4,), torch.complex64), None, 1), "complex numbers as real"),
    ("topk.default", (X, 7, 1), "."),
    # windows
    ("conv1d.default", (X, Constant((2, 4, 3, 3))), "filters of shape"),
    ("conv1d.default", (X, Constant((2, 4, 3), F64)), "filters of torch.float64"),
    ("conv1d.default", (X, Constant((2, 3, 3))), "."),
    ("conv1d.default", (X, Constant((2, 4, 3)), Constant((3,))), "bias of shape"),
    ("conv1d.default", (X, Constant((2, 4, 9))), "does not fit"),
    ("conv1d.padding", (X, Constant((2, 4, 3)), None, [2], "same"), "padding is 'same'"),
    (
        "conv_transpose1d.default",
        (X, Constant((4, 2, 3)), None, [1], [0], [5]),
        "'output_padding'",
    ),
    ("max_pool1d.default", (X, [3], [1], [2]), "more than half of its window"),
    ("max_pool1d.default", (X, [9]), "does not fit"),
    ("avg_pool2d.default", (MAPS, [2, 2], [2, 2], [0, 0], False, True, 0), "divides by 0"),
    ("upsample_nearest1d.default", (X, [0]), "."),
    ("upsample_nearest2d.vec", (MAPS, [3, 3], [2.0, 2.0]), "both a size and a factor"),
    ("upsample_nearest2d.vec", (MAPS, None, [2.0]), "by the factors"),
    ("upsample_nearest2d.vec", (MAPS, None, [0.01, 0.01]), "by the factors"),
    ("upsample_nearest2d.default", (MAPS, [3, 3], -1.0), "scales_h"),
    ("affine_grid_generator.default", (Images((3, 3)), [COUNT, 3, 6, 6], False), "makes a grid"),
    ("col2im.default", (X, [4, 4], [3, 3], [1, 1], [0, 0], [1, 1]), "."),
    # products
    ("baddbmm.default", (X, Constant((2, 3, 4)), Constant((1, 4, 2))), "multiplies the shapes"),
    (
        "scaled_dot_product_attention.default",
        (Images((6,)), Images((6,)), Images((6,))),
        "other images of a batch",
    ),
    (
        "scaled_dot_product_attention.default",
        (Constant((6, 0)), Constant((6, 0)), ROW),
        "attends to",
    ),
    (
        "scaled_dot_product_attention.default",
        (ROW, ROW, ROW, Constant((6, 6), INT)),
        "mask of shape",
    ),
    ("matmul.default", (Constant((2, 3)), Constant((4, 2))), "multiplies the shapes"),
    ("matmul.default", (Constant(()), LINE), "without axes"),
    ("matmul.default", (ROW, Constant((3, 2), F64)), "it multiplies torch.float32, torch.float64"),
    ("mm.default", (LINE, ROW), "multiplies the shapes"),
    ("bmm.default", (ROW, ROW), "multiplies the shapes"),
    ("bmm.default", (Constant((2, 3, 4)), Constant((1, 4, 2))), "multiplies the shapes"),
    ("mv.default", (LINE, LINE), "multiplies the shapes"),
    ("addmm.default", (LINE, LINE, ROW), "multiplies the shapes"),
    ("addmm.default", (Constant((5, 3)), Constant((2, 6)), ROW), "its operands have the shapes"),
    ("linear.default", (X, LINE), "weights of shape"),
    ("linear.default", (X, Constant((2, 6)), Constant((3,))), "bias of shape"),
    ("einsum.default", ("ij;k", [ROW]), "its equation is"),
    ("einsum.default", ("ij,jk", [ROW]), "does not fit 1 tensors"),
    ("einsum.default", ("ijk->i", [ROW]), "tensor with 2 axes"),
    ("einsum.default", ("ij,jk->ik", [ROW, ROW]), "does not fit"),
    ("einsum.default", ("ij->ii", [ROW]), "its equation is"),
    ("scaled_dot_product_attention.default", (LINE, LINE, LINE), "attends to"),
    ("scaled_dot_product_attention.default", (ROW, Constant((6, 4)), ROW), "attends to"),
    ("scaled_dot_product_attention.default", (ROW, ROW, ROW, None, 0.5), "at random"),
    ("scaled_dot_product_attention.default", (ROW, ROW, ROW, LINE), "mask of shape"),
    (
        "scaled_dot_product_attention.default",
        (ROW, ROW, ROW, Constant((6, 6)), 0.0, True),
        "causal and has a mask",
    ),
    # indexing
    ("index.Tensor", (LINE, [None, Constant((2,), INT)]), "2 indices for 1 axes"),
    ("index.Tensor", (LINE, [Constant((2,), F32)]), "takes places of"),
    ("index.Tensor", (LINE, [Constant((2,), BOOL)]), "a mask of shape"),
    ("index_put.default", (LINE, [Constant((2,), INT)], Constant((2,), F64)), "writes"),
    (
        "index_put.default",
        (LINE, [Constant((2,), INT)], Constant((3,))),
        "its operands have the shapes",
    ),
    ("index_select.default", (ROW, 0, Constant((2, 2), INT)), "picks places of shape"),
    ("embedding.default", (LINE, Images((), INT)), "a table of shape"),
    ("embedding.default", (ROW, Images((), INT), -1, False, True), "sparse gradients"),
    ("gather.default", (X, 1, Constant((2,), INT)), "picks places of shape"),
    ("gather.default", (X, 1, Images((4, 9), INT)), "picks places of shape"),
    ("take_along_dim.default", (X, Images((4, 6), INT)), "picks places of shape"),
    ("scatter.src", (X, 1, PLACES, Images((4, 6), F64)), "writes"),
    ("scatter.src", (X, 1, PLACES, Images((3, 6))), "to places of shape"),
    ("scatter.value", (X, 1, Images((4, 9), INT), 1.0), "writes to places of shape"),
    ("index_add.default", (X, 1, Constant((2, 2), INT), X), "writes to places of shape"),
    ("index_add.default", (X, 1, Constant((2,), INT), Images((3, 6))), "in place of"),
    # cutting and joining
    ("diagonal.default", (X, 0, 1, 1), "the diagonal of the axes"),
    ("diagonal.default", (MAPS, 9, 2, 3), "takes diagonal"),
    ("slice.Tensor", (Constant(()), 0), "without axes"),
    ("slice.Tensor", (X, 1, None, None, 2**31), "entry"),
    ("narrow.default", (X, 1, 3, 2), "takes 2 entries from 3 of 4"),
    ("select.int", (X, 1, 4), "takes entry 4 of 4"),
    ("split_with_sizes.default", (X, [1, 2], 1), "splits 4 entries into"),
    ("chunk.default", (X, 2**20, 1), "splits 4 entries into"),
    ("tensor_split.sections", (X, 2**20, 1), "splits 4 entries into"),
    ("cat.default", ([LINE, ROW],), "joins tensors of the shapes"),
    ("cat.default", ([Constant(()), Constant(())],), "without axes"),
    ("cat.default", ([X, Images((4, 5))], 1), "joins tensors of the shapes"),
    ("stack.default", ([LINE, Constant((5,))],), "joins tensors of the shapes"),
    ("vstack.default", ([LINE, LINE],), "fewer than 2 axes"),
    ("meshgrid.default", ([ROW],), "more than one axis"),
    ("meshgrid.indexing", ([LINE], "yx"), "its argument 'indexing'"),
    ("meshgrid.default", ([LINE, Constant((2,), F64)],), "different types"),
    ("pad.default", (X, [1]), "pads a tensor with 3 axes"),
    ("pad.default", (X, [1, 1], "mirror"), "its argument 'mode'"),
    ("pad.default", (X, [6, 6], "reflect"), "pads 6 entries"),
    ("pad.default", (X, [-9, 0]), "crops 6 entries"),
    ("reflection_pad1d.default", (X, [1, 1, 1, 1]), "pads 1 axes"),
    # reshaping
    ("view.default", (LINE, [4, 2]), "6 elements the shape"),
    ("flatten.using_ints", (X, 2, 1), "joins the axes 2 to 1"),
    ("permute.default", (X, [0, 1, 1]), "names an axis twice"),
    ("t.default", (X,), "transposes a tensor with 3 axes"),
    ("movedim.intlist", (X, [1], [1, 2]), "moves the axes"),
    ("expand.default", (X, [6]), "expands 3 axes to 1"),
    ("expand.default", (LINE, [5]), "expands the shape"),
    ("repeat.default", (X, [1]), "repeats 3 axes"),
    ("roll.default", (X, [1, 2], [1]), "rolls the axes"),
    ("tril.default", (LINE,), "takes a triangle"),
    ("pixel_shuffle.default", (MAPS, 3), "spreads 4 channels"),
    ("pixel_shuffle.default", (LINE, 2), "3 axes or more"),
    ("pixel_unshuffle.default", (MAPS, 4), "collects 4 x 4 pixels"),
    ("channel_shuffle.default", (MAPS, 3), "shuffles 3 groups"),
    ("unfold.default", (X, 1, 5, 1), "windows of 5 of 4 entries"),
    ("as_strided.default", (LINE, [4], [2]), "beyond the end of a tensor"),
    ("as_strided.default", (LINE, [4], [2, 1]), "sizes and"),
    # constructors
    ("arange.start_step", (0, 4, 0), "counts from 0 to 4"),
    ("arange.start_step", (4, 0, 1), "counts from 4 to 0"),
    ("linspace.default", ("a", 1, 3), "start"),
    ("tril_indices.default", (2**21, 2, 0), "lists a triangle"),
]
"""Operators, arguments that they do not take, and what is said of them."""


RIGHT: list[tuple[str, tuple[Any, ...]]] = [
    ("full.default", ([2, 3], True)),
    ("full.default", ([2, 3], 1j)),
    ("slice.Tensor", (X, 0, 0, 2**63 - 1)),
    ("flatten.using_ints", (Constant((2, 3, 4)), 0, 1)),
    ("repeat_interleave.self_int", (LINE, 2)),
    ("roll.default", (ROW, [1])),
    ("as_strided.default", (ROW, [2, 2], [1, 2], 1)),
    ("sym_numel.default", (LINE,)),
    ("index.Tensor", (LINE, [Constant((6,), BOOL)])),
    ("index.Tensor", (Images((4, 5, 6)), [None, Constant((2,), INT), None, Constant((2,), INT)])),
    ("index_select.default", (ROW, 0, Images((), INT))),
    ("einsum.default", ("ij,jk", [ROW, Constant((3, 2))])),
    ("matmul.default", (Constant((2, 4)), Constant((4, 3)))),
    ("cumsum.default", (Constant((6,), INT), 0)),
    (
        "scaled_dot_product_attention.default",
        (Images((4, 6, 3)), Images((2, 6, 3)), Images((2, 6, 3)), None, 0.0, False),
    ),
]
"""Operators and arguments that they take, in ways that networks seldom need."""


@pytest.mark.parametrize(("op", "arguments"), RIGHT)
def test_what_is_accepted_does_what_its_rule_says(op: str, arguments: tuple[Any, ...]) -> None:
    call = Sample(op, arguments)
    if op == "scaled_dot_product_attention.default":
        call = Sample(op, arguments, {"enable_gqa": True})
    check_result(call, facts_of(call))


def identifier(case: tuple[str, tuple[Any, ...], str]) -> str:
    return f"{case[0]}: {case[2]}"


@pytest.mark.parametrize("case", MIXING, ids=identifier)
def test_calls_that_mix_images_are_refused(case: tuple[str, tuple[Any, ...], str]) -> None:
    op, arguments, words = case
    call = Sample(op, arguments)
    if not words:
        facts_of(call)
        return
    with pytest.raises((NotPerImageError, ArgumentsError), match=words):
        facts_of(call)


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=identifier)
def test_calls_that_cannot_run_are_refused(case: tuple[str, tuple[Any, ...], str]) -> None:
    op, arguments, words = case
    if not words:
        facts_of(Sample(op, arguments))
        return
    with pytest.raises((ArgumentsError, NotPerImageError), match=words):
        facts_of(Sample(op, arguments))


def test_recurrent_layers_are_checked() -> None:
    x, state = Images((5, 6)), Images((1, 3), axis=1)
    weights = [Constant((9, 6)), Constant((9, 3)), Constant((9,)), Constant((9,))]
    rest = (True, 1, 0.0, False, False, True)
    facts = facts_of(Sample("gru.input", (x, state, weights, *rest)))
    assert facts[0].sizes == (1, 5, 3)
    for changed, words in (
        ((LINE, state, weights, *rest), "sequences of shape"),
        ((x, state, weights[:3], *rest), "3 weights for 1 layers"),
        ((x, state, [*weights[:3], Constant((8,))], *rest), "layer 0 has weights"),
        ((x, Images((1, 4), axis=1), weights, *rest), "a state of shape"),
        ((x, Constant((1, 1, 3)), weights, *rest), "not that of its images"),
        ((x, state, weights, True, 1, 0.5, True, False, True), "at random"),
        ((x, state, weights, True, 1, 0.0, False, False, False), "as a sequence"),
    ):
        with pytest.raises((ArgumentsError, NotPerImageError), match=words):
            facts_of(Sample("gru.input", changed))


def test_a_number_is_known_of_a_constant_of_one_element_only() -> None:
    assert facts_of(Sample("item.default", (Constant((1,), torch.int64, 2),))) in (0, 1)
    for value in (LINE, Images(())):
        with pytest.raises(ArgumentsError, match="not known before the run"):
            facts_of(Sample("item.default", (value,)))
