from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding import (
    Abandoned,
    Code,
    CodedConv,
    CodeError,
    ConvGeometry,
    GeometryError,
    NotDecodableError,
    TensorError,
    coded_conv,
    make_code,
)
from fcdcc.coding.crme import crme
from support.convolutions import Layer, error_beside, layers, oracle, relative_error

SPLITS = ("rows", "images")

# k_a, k_b, n
SIZES = [
    (4, 4, 6),
    (2, 4, 5),
    (4, 2, 5),
    (2, 2, 3),
    (1, 4, 5),
    (4, 1, 5),
    (1, 1, 3),
    (6, 2, 7),
    (2, 8, 7),
]


def systematic(n_a: int, n_b: int, parity: int) -> Code:
    """A code with plain shares: a run of 2 of 2 n_a strips, one filter part of n_b."""
    rng = np.random.default_rng(5)
    plain = np.eye(2 * n_a).reshape(n_a, 2, 2 * n_a)
    inputs = np.concatenate([np.repeat(plain, n_b, 0), rng.normal(size=(parity, 2, 2 * n_a))])
    filters = np.concatenate(
        [np.tile(np.eye(n_b)[:, None], (n_a, 1, 1)), rng.normal(size=(parity, 1, n_b))]
    )
    return Code("plain and parity", inputs, filters, n_a * n_b, every_delta=False)


def replication() -> Code:
    """Three copies of an uncoded layer."""
    return Code("copies", np.ones((3, 1, 1)), np.ones((3, 1, 1)), 1)


def results(
    layer: CodedConv, x: torch.Tensor, weight: torch.Tensor, **options: Any
) -> dict[int, torch.Tensor]:
    return {
        share: layer.convolve(
            layer.encode_input(x, share), layer.encode_filters(weight, share), share, **options
        )
        for share in range(layer.code.n)
    }


def coded(layer: Layer, code: Code, split: Any = "rows") -> CodedConv:
    geometry = ConvGeometry.of(layer.x_shape, layer.weight_shape, *layer.arguments)
    return CodedConv(geometry, code, split)


PLAIN = Layer(3, 4, 10, (11, 9), (3, 3), (2, 1), (1, 1), (1, 1), 2)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("k_a", "k_b", "n"), SIZES)
def test_every_subset_of_survivors_decodes(k_a: int, k_b: int, n: int, split: Any) -> None:
    x, weight = PLAIN.tensors()
    layer = coded(PLAIN, crme(n, k_a, k_b), split)
    shares = results(layer, x, weight)
    expected = oracle(x, weight, None, *PLAIN.arguments)
    for count in range(layer.code.recovery_threshold, n + 1):
        for survivors in itertools.combinations(range(n), count):
            decoded = layer.decode({share: shares[share] for share in survivors}, len(x))
            assert relative_error(decoded, expected) < 1e-12


@pytest.mark.parametrize("q", [20, 21])
def test_sampled_subsets_of_a_large_code_decode(q: int) -> None:
    x, weight = PLAIN.tensors()
    layer = coded(PLAIN, crme(20, 8, 8, q))
    shares = results(layer, x, weight)
    expected = oracle(x, weight, None, *PLAIN.arguments)
    rng = np.random.default_rng(11)
    samples = [rng.choice(20, size, replace=False) for size in [16] * 60 + [17, 18, 19, 20] * 5]
    adjacent = [np.arange(first, first + 16) % 20 for first in range(0, 20, 5)]
    for survivors in samples + adjacent:
        decoded = layer.decode({int(share): shares[int(share)] for share in survivors}, len(x))
        assert relative_error(decoded, expected) < 1e-12


@given(layers(), st.sampled_from(SIZES), st.sampled_from(SPLITS), st.data())
def test_any_convolution(
    layer: Layer, size: tuple[int, int, int], split: Any, data: st.DataObject
) -> None:
    k_a, k_b, n = size
    code = crme(n, k_a, k_b)
    survivors = data.draw(st.permutations(range(n)))[
        : data.draw(st.integers(code.recovery_threshold, n))
    ]
    x, weight = layer.tensors()
    bias = torch.arange(layer.out_channels, dtype=torch.float64)
    expected = oracle(x, weight, bias, *layer.arguments)
    given_ = coded_conv(
        x, weight, bias, *layer.arguments, code=code, survivors=survivors, split=split
    )
    assert error_beside(given_, expected, x, weight) < 1e-12


@given(layers(), st.sampled_from(SPLITS), st.booleans())
def test_any_convolution_with_plain_shares(layer: Layer, split: Any, lose: bool) -> None:
    x, weight = layer.tensors()
    code = systematic(3, 2, 2)
    expected = oracle(x, weight, None, *layer.arguments)
    survivors = [0, 2, 3, 5, 6, 7] if lose else range(6)
    given_ = coded_conv(
        x, weight, None, *layer.arguments, code=code, survivors=survivors, split=split
    )
    assert error_beside(given_, expected, x, weight) < 1e-11


@given(layers(), st.sampled_from(SPLITS))
def test_single_precision(layer: Layer, split: Any) -> None:
    x, weight = layer.tensors(torch.float32)
    expected = oracle(x.double(), weight.double(), None, *layer.arguments)
    code = crme(6, 4, 4)
    given_ = coded_conv(
        x, weight, None, *layer.arguments, code=code, survivors=[2, 3, 4, 5], split=split
    )
    assert given_.dtype == torch.float32
    assert error_beside(given_, expected, x, weight) < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        Layer(2, 3, 5, (7,), (3,), (1,), (1,), (1,), 1),
        Layer(2, 6, 6, (9, 8), (3, 3), (1, 1), "same", (1, 1), 6),  # depthwise
        Layer(2, 4, 8, (9, 8), (3, 3), (2, 2), (2, 2), (2, 2), 4),  # depthwise, two filters each
        Layer(1, 3, 5, (5, 6), (3, 3), (1, 1), "valid", (1, 1), 1),  # fewer rows than parts
        Layer(2, 3, 7, (20, 6), (2, 2), (5, 5), (0, 0), (1, 1), 1),  # rows that nobody needs
        Layer(1, 2, 3, (5, 4, 6), (2, 3, 1), (1, 2, 1), ((1, 0), (0, 2), (1, 1)), (1, 1, 2), 1),
    ],
)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("code", [crme(6, 4, 4), systematic(4, 2, 3)], ids=["crme", "systematic"])
def test_convolutions_of_interest(layer: Layer, split: Any, code: Code) -> None:
    x, weight = layer.tensors()
    expected = oracle(x, weight, None, *layer.arguments)
    survivors = range(code.n - code.recovery_threshold, code.n)
    if not code.is_decodable(survivors):
        survivors = range(1, code.n)
    given_ = coded_conv(
        x, weight, None, *layer.arguments, code=code, survivors=survivors, split=split
    )
    assert relative_error(given_, expected) < 1e-11


@given(layers(), st.sampled_from(SPLITS), st.integers(0, 7))
def test_shapes_are_as_announced(layer: Layer, split: Any, share: int) -> None:
    x, weight = layer.tensors()
    value = coded(layer, systematic(3, 2, 2), split)
    coded_filters = value.encode_filters(weight, share)
    result = value.convolve(value.encode_input(x, share), coded_filters, share)
    assert tuple(result.shape) == value.share_shape(share, layer.batch)
    assert result.is_contiguous()
    assert value.is_plain(share) == (share < 6)
    every = {j: torch.zeros(value.share_shape(j, layer.batch)) for j in range(8)}
    decoded = value.decode(every, layer.batch)
    assert tuple(decoded.shape) == value.output_shape(layer.batch)
    assert decoded.is_contiguous()


@given(layers(), st.sampled_from(SPLITS), st.integers(1, 12), st.sampled_from([0, 1]))
def test_slices_change_nothing(layer: Layer, split: Any, slices: int, kind: int) -> None:
    x, weight = layer.tensors()
    value = coded(layer, [crme(3, 4, 2), systematic(2, 1, 1)][kind], split)
    asked = []

    def wanted() -> bool:
        asked.append(True)
        return True

    for share in range(value.code.n):
        asked.clear()
        coded_input = value.encode_input(x, share)
        coded_filters = value.encode_filters(weight, share)
        whole = value.convolve(coded_input, coded_filters, share)
        sliced = value.convolve(coded_input, coded_filters, share, wanted, slices)
        assert sliced.shape == whole.shape
        assert torch.allclose(sliced, whole, rtol=0, atol=1e-12)
        rows = whole.shape[2] if value.is_plain(share) else value.strips.rows
        possible = len(coded_input) * rows
        assert min(slices, possible) <= len(asked) < 2 * slices


@pytest.mark.parametrize(("batch", "slices"), [(4, 4), (1, 4), (2, 4)])
@pytest.mark.parametrize("split", SPLITS)
def test_a_share_that_nobody_wants_stops(batch: int, slices: int, split: Any) -> None:
    layer = Layer(batch, 2, 4, (16, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1)
    value = coded(layer, replication(), split)
    x, weight = layer.tensors()
    answers = [True, True, False]
    with pytest.raises(Abandoned, match="share 1 is no longer wanted"):
        value.convolve(
            x if split == "images" else value.encode_input(x, 1),
            weight,
            1,
            lambda: answers.pop(0),
            slices,
        )
    assert answers == []


@pytest.mark.parametrize("split", SPLITS)
def test_plain_shares_need_no_copy_and_no_decoding(split: Any) -> None:
    layer = Layer(12, 3, 8, (26, 6), (3, 3), (1, 1), (0, 0), (1, 1), 1)
    value = coded(layer, systematic(3, 2, 2), split)
    x, weight = layer.tensors(torch.float32)
    strip = value.encode_input(x, 3)
    assert strip.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert strip.shape == ((12, 3, 10, 6) if split == "rows" else (4, 3, 26, 6))
    filters = value.encode_filters(weight, 3)
    assert torch.equal(filters, weight[4:])
    assert filters.data_ptr() == weight[4:].data_ptr()
    assert value.code.decoder(range(6)).solved == ()
    shares = results(value, x, weight)
    decoded = value.decode({share: shares[share] for share in range(6)}, 12)
    uncoded = torch.cat(
        [torch.cat([shares[2 * a], shares[2 * a + 1]], 1) for a in range(3)],
        2 if split == "rows" else 0,
    )
    assert torch.equal(decoded, uncoded)


def test_known_parts_are_copied_bit_for_bit_beside_solved_ones() -> None:
    x, weight = PLAIN.tensors(torch.float32)
    value = coded(PLAIN, systematic(3, 2, 2))
    shares = results(value, x, weight)
    decoded = value.decode({share: shares[share] for share in (0, 1, 2, 4, 5, 6)}, len(x))
    assert len(value.code.decoder((0, 1, 2, 4, 5, 6)).solved) == 2
    rows = value.strips.output_run(0, 2)
    first = decoded[:, :, rows].unflatten(1, (2, 5))
    assert torch.equal(first[:, :, :3], shares[0].unflatten(1, (2, 3)))


def test_only_the_parts_that_a_share_needs_are_read() -> None:
    x, _ = PLAIN.tensors()
    value = coded(PLAIN, systematic(3, 1, 1), "images")
    x[2:] = float("nan")
    assert value.code.parts_needed(0) == (0, 1)
    assert not value.encode_input(x, 0).isnan().any()


def test_the_input_is_not_changed() -> None:
    x, weight = PLAIN.tensors()
    copies = x.clone(), weight.clone()
    for split in SPLITS:
        value = coded(PLAIN, systematic(3, 2, 2), split)
        shares = results(value, x, weight)
        before = {share: result.clone() for share, result in shares.items()}
        value.decode(shares, len(x))
        assert all(torch.equal(before[share], result) for share, result in shares.items())
    assert torch.equal(x, copies[0])
    assert torch.equal(weight, copies[1])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("code", [crme(6, 4, 4), systematic(3, 2, 2)], ids=["crme", "systematic"])
def test_any_memory_layout(code: Code, split: Any) -> None:
    x, weight = PLAIN.tensors()
    expected = oracle(x, weight, None, *PLAIN.arguments)
    for layout in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(0, 3).contiguous().transpose(0, 3),
        x.new_zeros(3, 5, 13, 9).copy_(torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 0)))[:, 1:, 1:-1],
    ):
        given_ = coded_conv(
            layout,
            weight,
            None,
            *PLAIN.arguments,
            code=code,
            survivors=range(1, code.n),
            split=split,
        )
        assert relative_error(given_, expected) < 1e-12


def test_one_image_without_a_batch() -> None:
    x, weight = PLAIN.tensors()
    bias = torch.randn(10, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(x[0], weight, bias, *PLAIN.arguments)
    given_ = coded_conv(x[0], weight, bias, *PLAIN.arguments, code=crme(6, 4, 4))
    assert relative_error(given_, expected) < 1e-12


def test_no_images_at_all() -> None:
    x, weight = PLAIN.tensors()
    for split in SPLITS:
        for code in (crme(6, 4, 4), systematic(3, 2, 2)):
            given_ = coded_conv(x[:0], weight, None, *PLAIN.arguments, code=code, split=split)
            assert given_.shape == (0, 10, 6, 9)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("code", [crme(7, 4, 4), systematic(3, 2, 2)], ids=["crme", "systematic"])
def test_gradients_pass(code: Code, split: Any) -> None:
    x, weight = PLAIN.tensors()
    with torch.inference_mode():  # what is cached here must serve outside, too
        coded_conv(x, weight, None, *PLAIN.arguments, code=code, split=split)
    expected = [t.clone().requires_grad_() for t in (x, weight)]
    oracle(*expected, None, *PLAIN.arguments).square().sum().backward()
    for tensor in (x, weight):
        tensor.requires_grad_()
    survivors = (1, 2, 3, 4, 5, 6)
    out = coded_conv(x, weight, None, *PLAIN.arguments, code=code, survivors=survivors, split=split)
    out.square().sum().backward()
    for tensor, other in zip((x, weight), expected, strict=True):
        assert tensor.grad is not None
        assert other.grad is not None
        assert relative_error(tensor.grad, other.grad) < 1e-12


def test_survivors_default_to_the_first_that_decode() -> None:
    x, weight = PLAIN.tensors()
    code = systematic(3, 1, 2)
    order = [0, 0, 1, 2, 3]  # replicas: the first three do not decode
    doubled = Code(
        "doubled", code.input_matrix[order], code.filter_matrix[order], 3, every_delta=False
    )
    expected = oracle(x, weight, None, *PLAIN.arguments)
    given_ = coded_conv(x, weight, None, *PLAIN.arguments, code=doubled)
    assert relative_error(given_, expected) < 1e-12


def test_a_value_that_travels() -> None:
    value = coded(PLAIN, crme(6, 4, 4))
    value.share_shape(0, 3)
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert {value: 1}[copy] == 1
    assert coded(PLAIN, crme(6, 4, 4), "images") != value


class TestRefusals:
    x, weight = PLAIN.tensors()
    value = coded(PLAIN, crme(6, 4, 4))

    def test_split(self) -> None:
        with pytest.raises(CodeError, match="'columns'; expected 'rows' or 'images'"):
            coded(PLAIN, crme(6, 4, 4), "columns")

    def test_input_of_another_shape(self) -> None:
        with pytest.raises(GeometryError, match=r"\(3, 4, 12, 9\); expected .*4, 11, 9"):
            self.value.encode_input(torch.zeros(3, 4, 12, 9), 0)

    def test_filters_of_another_shape(self) -> None:
        with pytest.raises(GeometryError, match=r"\(9, 2, 3, 3\); expected \(10, 2, 3, 3\)"):
            self.value.encode_filters(self.weight[:9], 0)

    def test_bias_of_another_shape(self) -> None:
        with pytest.raises(GeometryError, match=r"bias of shape \(9,\); expected \(10,\)"):
            coded_conv(self.x, self.weight, self.x.new_zeros(9), 2, 1, 1, 2, code=self.value.code)

    def test_result_of_another_shape(self) -> None:
        shares = results(self.value, self.x, self.weight)
        with pytest.raises(
            GeometryError, match=r"share 0 of 2 images: result of shape \(3, .*expected \(2, "
        ):
            self.value.decode(shares, 2)

    def test_too_few_results(self) -> None:
        shares = results(self.value, self.x, self.weight)
        with pytest.raises(NotDecodableError, match=r"\[0, 5\].*expected 4 or more"):
            self.value.decode({share: shares[share] for share in (0, 5)}, 3)

    def test_shares_that_do_not_exist(self) -> None:
        for call in (
            lambda: self.value.encode_input(self.x, 6),
            lambda: self.value.encode_filters(self.weight, -1),
            lambda: self.value.share_shape(6, 3),
        ):
            with pytest.raises(CodeError, match="shares 0 to 5"):
                call()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.complex64])
    def test_dtypes_that_cannot_be_coded(self, dtype: torch.dtype) -> None:
        x = torch.zeros(PLAIN.x_shape, dtype=dtype)
        with pytest.raises(TensorError, match=r"float32 or torch\.float64"):
            coded_conv(x, x, code=self.value.code)
        with pytest.raises(TensorError, match=r"float32 or torch\.float64"):
            self.value.encode_input(x, 0)

    def test_two_dtypes(self) -> None:
        with pytest.raises(TensorError, match=r"float64 on cpu and of torch\.float32"):
            coded_conv(self.x, self.weight.float(), code=self.value.code)


@pytest.mark.parametrize("split", ["rows", "images"])
@pytest.mark.parametrize("n", [2, 3])
def test_a_missing_share_is_a_copy_of_another_where_one_suffices(split: Any, n: int) -> None:
    """With δ = 1 and real numbers every share is the whole layer: nothing has to be solved for."""
    code = make_code("systematic", n=n, k_a=1, k_b=1, parity="real")
    geometry = ConvGeometry(2, 3, (5, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    layer = CodedConv(geometry, code, split)
    x, weight = torch.randn(2, 2, 5, 4), torch.randn(3, 2, 3, 3)
    for there in range(1, n):
        filters = layer.encode_filters(weight, there)
        result = layer.convolve(layer.encode_input(x, there), filters, there)
        found = layer.recover({there: result}, 0, len(x))
        expected = torch.nn.functional.conv2d(x, weight, padding=1)
        torch.testing.assert_close(found, expected)
