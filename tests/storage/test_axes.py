from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.storage import InputError, find_axes

MODEL = (None, 3, 32, 32)


@pytest.mark.parametrize(
    ("names", "last"),
    [
        (("n", "c", "y", "x"), False),
        (("n", "y", "x", "c"), True),
        (("image", "channel", "height", "width"), False),
        (("time", "lat", "lon", "band"), True),
        (("Sample", "Row", "Column", "Channels"), True),
        (("foo", "c", "bar", "baz"), False),
        (("n", "y", "x", "foo"), True),
        ((None, "c", None, None), False),
    ],
)
def test_names_decide_whatever_the_sizes(names: tuple[str | None, ...], last: bool) -> None:
    axes = find_axes((10, 7, 7, 7), names, (None, 7, None, None))
    assert axes.channels_last is last
    assert axes.order == ((0, 3, 1, 2) if last else (0, 1, 2, 3))


def test_names_come_out_in_the_order_of_the_axes() -> None:
    assert find_axes((9, 8, 8, 3), ("t", "lat", "lon", "band"), (*MODEL[:2], 8, 8)).names == (
        "t", "band", "lat", "lon",
    )  # fmt: skip


def test_axes_without_names_get_the_usual_ones() -> None:
    assert find_axes((9, 32, 32, 3), None, MODEL).names == ("n", "c", "y", "x")
    assert find_axes((9, 3, 64), (None, None, None), (None, 3, None)).names == ("n", "c", "x")


@pytest.mark.parametrize(
    ("shape", "order"), [((10, 3, 32, 32), (0, 1, 2, 3)), ((10, 32, 32, 3), (0, 3, 1, 2))]
)
def test_without_names_the_model_decides(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    assert find_axes(shape, None, MODEL).order == order
    assert find_axes(shape, None, (None, 3, None, None)).order == order


def test_names_that_say_nothing_leave_it_to_the_model() -> None:
    names = ("dim_0", "dim_1", "dim_2", "dim_3")
    axes = find_axes((10, 32, 32, 3), names, MODEL)
    assert axes.channels_last
    assert axes.names == ("dim_0", "dim_3", "dim_1", "dim_2")


def test_two_orders_that_both_fit_are_an_error_that_says_both_shapes() -> None:
    with pytest.raises(InputError, match=r"\(10, 3, 5, 3\).*may be.*\(any, 3, any, any\)"):
        find_axes((10, 3, 5, 3), None, (None, 3, None, None))


def test_neither_names_nor_model_is_an_error() -> None:
    with pytest.raises(InputError, match="name its dimensions"):
        find_axes((10, 3, 32, 32), None, None)


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((10, 32, 32), None, "expected 4 axes"),
        ((10, 2, 3, 32, 32), None, "expected 4 axes"),
        ((10, 1, 32, 32), None, "fits it neither"),
        ((10, 1, 32, 32), ("n", "c", "y", "x"), "1 channel;.*select the channels"),
        ((10, 3, 28, 28), ("n", "c", "y", "x"), "28 × 28.*resize"),
        ((10, 32, 32, 3), ("n", "c", "y", "x"), "32 channels"),
        ((10, 3, 32, 32), ("c", "n", "y", "x"), r"the axes \(c, n, y, x\)"),
        ((32, 32, 3, 10), ("y", "x", "c", "n"), r"the axes \(y, x, c, n\)"),
        ((10, 32, 3, 32), ("n", "y", "c", "x"), r"the axes \(n, y, c, x\)"),
    ],
)
def test_what_does_not_fit_is_one_line_with_both_shapes(
    shape: tuple[int, ...], names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_axes(shape, names, MODEL, "images.zarr")
    text = str(caught.value)
    assert "\n" not in text
    assert "images.zarr" in text
    if "fits" in text or "that is" in text:
        assert str(shape) in text
        assert "(any, 3, 32, 32)" in text


@pytest.mark.parametrize(
    ("shape", "names", "model", "order", "dims"),
    [
        # axes of length 1 that are left out
        ((1, 3, 1, 32, 32), ("t", "c", "z", "y", "x"), MODEL, (0, 1, 3, 4), "t c y x"),
        ((9, 3, 1, 32, 32), ("time", "band", "level", "y", "x"), MODEL, (0, 1, 3, 4), None),
        ((9, 1, 3, 32, 32), None, MODEL, (0, 2, 3, 4), "n c y x"),
        ((9, 32, 32, 1, 3), None, MODEL, (0, 4, 1, 2), "n c y x"),
        ((1, 9, 3, 1, 32, 32), ("n", "z", "c", "d", "y", "x"), MODEL, (1, 2, 4, 5), "z c y x"),
        # an axis of channels that is added
        ((9, 32, 32), ("n", "y", "x"), (None, 1, 32, 32), (0, None, 1, 2), "n c y x"),
        ((9, 32, 32), None, (None, 1, None, None), (0, None, 1, 2), "n c y x"),
        ((9, 7, 8, 9), ("time", "z", "y", "x"), (None, 1, 7, 8, 9), (0, None, 1, 2, 3), None),
        ((9, 1, 32, 32), ("time", "z", "y", "x"), (None, 1, 32, 32), (0, None, 2, 3), None),
        # an axis of images that is added
        ((3, 32, 32), ("c", "y", "x"), MODEL, (None, 0, 1, 2), "n c y x"),
        ((32, 32, 3), None, MODEL, (None, 2, 0, 1), "n c y x"),
        ((32, 32), ("lat", "lon"), (None, 1, 32, 32), (None, None, 0, 1), "n c lat lon"),
        # names that mean images for one model and space for another
        ((9, 32, 32), ("slice", "y", "x"), (None, 1, 32, 32), (0, None, 1, 2), "slice c y x"),
        ((9, 3, 32, 32), ("position", "c", "y", "x"), MODEL, (0, 1, 2, 3), "position c y x"),
        ((9, 4, 50), ("n", "c", "position"), (None, 4, 50), (0, 1, 2), "n c position"),
        ((9, 50, 4), ("time", "position", "c"), (None, 4, 50), (0, 2, 1), "time c position"),
        ((7, 32, 32), ("z", "y", "x"), (None, 1, 32, 32), (0, None, 1, 2), "z c y x"),
        ((7, 32, 32), ("z", "y", "x"), (None, 1, 7, 32, 32), (None, None, 0, 1, 2), "n c z y x"),
        ((3, 7, 32, 32), ("c", "z", "y", "x"), MODEL, (1, 0, 2, 3), "z c y x"),
        ((3, 7, 32, 32), ("c", "z", "y", "x"), (None, 3, 7, 32, 32), (None, 0, 1, 2, 3), None),
        ((9, 3, 32, 32), ("frame", "c", "y", "x"), MODEL, (0, 1, 2, 3), "frame c y x"),
    ],
)
def test_more_and_fewer_axes_than_the_model_has(
    shape: tuple[int, ...],
    names: tuple[str, ...] | None,
    model: tuple[int | None, ...],
    order: tuple[int | None, ...],
    dims: str | None,
) -> None:
    axes = find_axes(shape, names, model)
    assert axes.order == order
    if dims is not None:
        assert axes.names == tuple(dims.split())
    stored = np.arange(np.prod(shape)).reshape(shape)
    arranged = axes.arrange(stored)
    assert arranged.shape == axes.shape_of(shape)
    assert arranged.shape[1:] == tuple(
        got if want is None else want
        for want, got in zip(model[1:], arranged.shape[1:], strict=True)
    )
    kept = [axis for axis in order if axis is not None]
    assert np.array_equal(arranged.ravel(), stored.transpose(*kept, *axes.dropped).ravel())


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((9, 32, 32), ("n", "y", "x"), "--input-array"),
        ((5, 3, 7, 32, 32), ("t", "c", "z", "y", "x"), "only axes of length 1"),
        ((9, 4, 32, 32), ("n", "c", "y", "x"), r"4 channels.*--channels 0,1,2"),
        ((9, 4, 32, 32), None, "--channels"),
    ],
)
def test_what_does_not_fit_says_how_to_go_on(
    shape: tuple[int, ...], names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        find_axes(shape, names, MODEL)


@given(st.integers(1, 3), st.booleans(), st.lists(st.integers(1, 9), min_size=5, max_size=5))
def test_any_array_with_names_comes_out_as_images_channels_space(
    dimensions: int, last: bool, sizes: list[int]
) -> None:
    images, channels, *space = sizes[: 2 + dimensions]
    spatial = "zyx"[-dimensions:]
    shape = (images, *space, channels) if last else (images, channels, *space)
    names = ("n", *spatial, "c") if last else ("n", "c", *spatial)
    axes = find_axes(shape, names, (None, channels, *space))
    assert tuple(shape[axis] for axis in axes.order) == (images, channels, *space)
    assert axes.names == ("n", "c", *spatial)


@given(st.integers(1, 3), st.booleans(), st.lists(st.integers(1, 9), min_size=5, max_size=5))
def test_without_names_an_array_is_read_only_where_one_order_fits(
    dimensions: int, last: bool, sizes: list[int]
) -> None:
    images, channels, *space = sizes[: 2 + dimensions]
    shape = (images, *space, channels) if last else (images, channels, *space)
    expect = (None, channels, *space)
    orders = [shape[1:], (shape[-1], *shape[1:-1])]
    if orders.count((channels, *space)) == 1:
        assert find_axes(shape, None, expect).channels_last is last
    else:
        with pytest.raises(InputError, match="may be"):
            find_axes(shape, None, expect)
