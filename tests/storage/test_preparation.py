from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.storage import Preparation, PreparationError


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bytes_are_prepared_bit_for_bit_as_torchvision_does(dtype: str) -> None:
    images = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    prepared = Preparation(mean=mean, std=std, dtype=dtype).apply(images)  # type: ignore[arg-type] # a parameter of the test
    target = getattr(torch, dtype)
    wanted = torch.from_numpy(images).to(target).div(255)
    wanted = wanted.sub_(torch.tensor(mean, dtype=target).view(-1, 1, 1))
    wanted = wanted.div_(torch.tensor(std, dtype=target).view(-1, 1, 1))
    assert prepared.dtype == np.dtype(dtype)
    assert np.array_equal(prepared, wanted.numpy())


@pytest.mark.parametrize("dtype", ["uint16", "int8", "int32", "float16", "float32", "float64"])
def test_only_unsigned_bytes_are_scaled(dtype: str) -> None:
    images = np.array([[[0, 1, 100]]], dtype=dtype)
    assert np.array_equal(Preparation().apply(images), images.astype(np.float32))


def test_bytes_stay_as_they_are_where_no_scale_is_wanted() -> None:
    images = np.array([[[0, 1, 255]]], dtype=np.uint8)
    assert Preparation("none").apply(images).tolist() == [[[0.0, 1.0, 255.0]]]


def test_big_endian_and_transposed_images_come_out_native_and_contiguous() -> None:
    images = np.arange(24, dtype=">f4").reshape(2, 4, 3).transpose(0, 2, 1)
    prepared = Preparation().apply(images)
    assert prepared.flags.c_contiguous
    assert prepared.dtype.isnative
    assert np.array_equal(prepared, images)


def test_the_images_that_were_given_are_not_changed() -> None:
    images = np.ones((1, 1, 2), dtype=np.float32)
    Preparation(mean=1.0).apply(images)
    assert images.tolist() == [[[1.0, 1.0]]]


@given(st.integers(1, 4), st.integers(1, 4))
def test_mean_and_std_are_per_channel_or_one_for_all(channels: int, count: int) -> None:
    values = tuple(float(number) for number in range(1, count + 1))
    preparation = Preparation(mean=values, std=values)
    images = np.zeros((1, channels, 2), dtype=np.float32)
    if count in (1, channels):
        assert (preparation.apply(images) == -1.0).all()
    else:
        with pytest.raises(PreparationError, match=f"{count} numbers.*{channels} channels"):
            preparation.check(channels)
        with pytest.raises(PreparationError):
            preparation.apply(images)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": "half"},
        {"scale": 0},
        {"scale": -255},
        {"scale": float("nan")},
        {"dtype": "float16"},
        {"mean": float("nan")},
        {"mean": ()},
        {"mean": "abc"},
        {"std": 0.0},
        {"std": (1.0, -1.0)},
        {"std": float("inf")},
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(PreparationError, match="expected"):
        Preparation(**options)  # type: ignore[arg-type] # that is the test


def test_a_list_and_a_tuple_are_the_same_value_and_it_travels() -> None:
    preparation = Preparation(mean=[0.5, 0.5], std=np.float32(0.5))  # type: ignore[arg-type] # lenient by intent
    assert preparation == Preparation(mean=(0.5, 0.5), std=0.5)
    assert pickle.loads(pickle.dumps(preparation)) == preparation
    assert hash(preparation) == hash(pickle.loads(pickle.dumps(preparation)))


@pytest.mark.parametrize(
    ("scale", "dtype", "divisor"),
    [
        ("auto", "uint8", 255),
        ("auto", "uint16", 1),
        ("auto", "float32", 1),
        ("none", "uint8", 1),
        ("max", "uint8", 255),
        ("max", "uint16", 65535),
        ("max", "int16", 32767),
        (4095, "uint16", 4095),
        (10000.0, "float64", 10000),
        (0.5, "uint8", 0.5),
    ],
)
def test_a_scale_is_what_the_values_are_divided_by(scale: Any, dtype: str, divisor: float) -> None:
    images = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    wanted = images.astype(np.float32) / np.float32(divisor)
    assert np.array_equal(Preparation(scale).apply(images), wanted)


def test_floats_have_no_largest_value_to_scale_by() -> None:
    preparation = Preparation("max")
    preparation.check(3, "uint16")
    with pytest.raises(PreparationError, match="float32, which have no largest value"):
        preparation.check(3, "float32")
    with pytest.raises(PreparationError, match="give the number"):
        preparation.apply(np.zeros((1, 3, 2)))


def test_what_determines_the_images_is_in_the_fingerprint() -> None:
    assert Preparation().as_json() != Preparation("none").as_json()
    assert Preparation(255).as_json() != Preparation("max").as_json()
    assert Preparation(mean=0.5).as_json() != Preparation(mean=0.25).as_json()
    assert Preparation(dtype="float64").as_json() != Preparation().as_json()
