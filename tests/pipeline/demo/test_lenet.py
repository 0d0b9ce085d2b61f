from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fcdcc.pipeline import open_model
from fcdcc.pipeline.demo.digits import load_digits, split_digits
from fcdcc.pipeline.demo.lenet import accuracy, export, lenet, logits, train
from fcdcc.pipeline.model.interpreter import run_network


@pytest.fixture(scope="module")
def digits():
    return split_digits(load_digits())


@pytest.fixture(scope="module")
def trained(digits):
    return train(digits[0])


def test_it_reads_digits_that_it_has_not_seen(digits, trained):
    held_out = digits[1]
    assert accuracy(logits(trained, held_out.images), held_out.labels) >= 0.97


def test_the_same_digits_give_the_same_network_whatever_went_before(digits):
    few = digits[0].take(np.arange(120))
    torch.manual_seed(1)
    first = train(few, epochs=2)
    torch.manual_seed(2)
    second = train(few, epochs=2)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_training_leaves_threads_and_random_numbers_as_they_were(digits):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        seen: list[int] = []
        train(digits[0].take(np.arange(60)), epochs=2, on_epoch=seen.append)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.rand(4), expected)
        assert seen == [1, 2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("images", [1, 7])
def test_the_exported_file_says_the_same_for_any_number_of_images(
    digits, trained, tmp_path: Path, images: int
):
    export(trained, tmp_path / "lenet.pt2")
    model = open_model(tmp_path / "lenet.pt2")
    assert [stage.name for stage in model.network.convolutions] == ["conv1", "conv2", "conv3"]
    batch = digits[1].images[:images]
    expected = logits(trained, batch)
    with torch.inference_mode():
        given = torch.from_numpy(batch.astype(np.float32) / np.float32(255))
        predicted = run_network(model.network, given)
    np.testing.assert_allclose(predicted.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_it_is_the_network_of_the_paper():
    shapes = [tuple(p.shape) for p in lenet().parameters() if p.ndim == 4]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 16, 5, 5)]
    assert lenet()(torch.zeros(3, 1, 32, 32)).shape == (3, 10)
