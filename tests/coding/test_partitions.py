from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding import ConvGeometry, GeometryError
from fcdcc.coding.apcp import padded_rows, partition_images, partition_rows
from fcdcc.coding.geometry import pad_space
from fcdcc.coding.kccp import partition_filters, split_filters
from support.convolutions import Layer, layers, oracle


def geometry_of(layer: Layer) -> ConvGeometry:
    return ConvGeometry.of(layer.x_shape, layer.weight_shape, *layer.arguments)


@given(layers(), st.integers(1, 9))
def test_convolved_parts_join_to_the_output(layer: Layer, k_a: int) -> None:
    geometry = geometry_of(layer)
    partition = partition_rows(geometry, k_a)
    x, weight = layer.tensors()
    parts = [padded_rows(x, geometry, start, partition.input_rows) for start in partition.starts]
    outputs = [geometry.convolve_padded(part, (0,) * geometry.ndim, weight) for part in parts]
    assert [output.shape[2] for output in outputs] == [partition.rows] * k_a
    expected = oracle(x, weight, None, *layer.arguments)
    joined = torch.cat(outputs, dim=2)[:, :, : partition.output_rows]
    assert torch.allclose(joined, expected, rtol=0, atol=1e-12)
    for a in range(k_a):
        run = partition.output_run(a)
        assert torch.equal(joined[:, :, run], outputs[a][:, :, : run.stop - run.start])


@given(layers(), st.integers(1, 9))
def test_parts_are_as_small_as_they_can_be(layer: Layer, k_a: int) -> None:
    geometry = geometry_of(layer)
    partition = partition_rows(geometry, k_a)
    assert partition.rows * k_a >= geometry.output_spatial[0] > (partition.rows - 1) * k_a
    assert partition.input_rows == partition.span(1)
    shared = partition.input_rows - partition.step
    assert shared == geometry.effective_kernel[0] - geometry.stride[0]
    assert partition.starts[-1] + partition.input_rows == partition.span(k_a)


@given(layers(), st.integers(1, 9), st.data())
def test_rows_are_padded_alone_as_in_the_whole(layer: Layer, k_a: int, data: st.DataObject) -> None:
    geometry = geometry_of(layer)
    partition = partition_rows(geometry, k_a)
    x, _ = layer.tensors()
    whole = pad_space(x, geometry.padding)
    below = max(0, partition.span(k_a) - whole.shape[2])
    whole = pad_space(whole, ((0, below), *[(0, 0)] * (geometry.ndim - 1)))
    start = data.draw(st.integers(0, whole.shape[2] - 1))
    count = data.draw(st.integers(1, whole.shape[2] - start))
    assert torch.equal(padded_rows(x, geometry, start, count), whole[:, :, start : start + count])


def test_nothing_is_copied_where_nothing_is_added() -> None:
    geometry = ConvGeometry.of((2, 3, 12, 5), (4, 3, 3, 3))
    x = torch.randn(2, 3, 12, 5)
    assert padded_rows(x, geometry, 6, 4).data_ptr() == x[:, :, 6].data_ptr()
    assert pad_space(x, geometry.padding) is x


def test_a_stride_larger_than_the_kernel_skips_rows() -> None:
    geometry = ConvGeometry.of((1, 1, 20), (1, 1, 2), 5)
    partition = partition_rows(geometry, 2)
    assert partition.starts == (0, 10)
    assert partition.input_rows == 7


@given(st.integers(0, 40), st.integers(1, 9))
def test_runs_of_images(images: int, k_a: int) -> None:
    partition = partition_images(images, k_a)
    runs = [list(range(images))[partition.run(a)] for a in range(k_a)]
    assert list(chain(*runs)) == list(range(images))
    assert max(map(len, runs)) <= partition.per_part
    assert partition.per_part * k_a - images < k_a
    assert list(range(images))[partition.run(1, k_a)] == list(chain(*runs[1:]))


@given(layers(), st.integers(1, 7))
def test_filters_of_each_group_are_split_apart(layer: Layer, k_b: int) -> None:
    geometry = geometry_of(layer)
    partition = partition_filters(geometry, k_b)
    _, weight = layer.tensors()
    parts = split_filters(weight, partition)
    groups = geometry.groups
    assert parts.shape[:3] == (groups, k_b, partition.per_group)
    assert partition.channels == groups * partition.per_group
    merged = parts.flatten(1, 2)[:, : partition.group_filters].flatten(0, 1)
    assert torch.equal(merged, weight)
    assert parts.sum() == pytest.approx(float(weight.sum()), abs=1e-9)
    for first in range(k_b):
        some = split_filters(weight, partition, first, k_b - first)
        assert torch.equal(some, parts[:, first:])


def test_no_parts_are_refused() -> None:
    geometry = ConvGeometry.of((2, 3, 12, 5), (4, 3, 3, 3))
    for call in (
        lambda: partition_rows(geometry, 0),
        lambda: partition_images(4, 0),
        lambda: partition_filters(geometry, 0),
    ):
        with pytest.raises(GeometryError, match="0 parts"):
            call()
