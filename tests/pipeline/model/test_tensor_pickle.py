"""Networks and their tensors, sent to other processes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.model.interpreter import run_network
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.model.tensor_pickle import pack_tensors, unpack_tensors
from support.pt2 import pt2


class Tied(nn.Module):
    """Convolutions of which two share a weight, and buffers of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
        self.register_buffer("mask", torch.tensor([True, False, True]).view(3, 1, 1))
        self.register_buffer("turned", torch.arange(12.0).view(4, 3).T.unsqueeze(2))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))))
        return y * self.mask * self.turned.mean(1, keepdim=True)


@pytest.fixture
def tied() -> Network:
    return open_model(pt2(Tied(), (2, 3, 5, 5))).network


@pytest.mark.parametrize("read_only", [False, True])
def test_networks_travel_between_processes(tied: Network, read_only: bool) -> None:
    buffers: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(tied, protocol=5, buffer_callback=buffers.append)
    raw = [bytes(buffer.raw()) for buffer in buffers]
    received = pickle.loads(sent, buffers=raw if read_only else [bytearray(r) for r in raw])
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(run_network(received, x), run_network(tied, x))
    assert received.fingerprint == tied.fingerprint
    assert received.stages == tied.stages
    for name, tensor in tied.tensors.items():
        assert torch.equal(received.tensors[name], tensor)
        assert received.tensors[name].dtype == tensor.dtype


def test_tensors_travel_as_buffers_and_each_once(tied: Network) -> None:
    first, second = (stage.weight for stage in tied.convolutions)
    large = torch.zeros(1000, 1000)
    network = replace(tied, tensors={**tied.tensors, first: large, second: large})
    buffers: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(network, protocol=5, buffer_callback=buffers.append)
    assert len(sent) < 20_000
    assert sum(len(buffer.raw()) for buffer in buffers) < 1.1 * large.nbytes
    received = pickle.loads(sent, buffers=buffers)
    assert received.tensors[first].data_ptr() == received.tensors[second].data_ptr()


def test_any_tensor_is_packed_as_it_is() -> None:
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "whole": base,
        "again": base,
        "part": base[3:9],
        "turned": base.view(4, 6).T,
        "wide": torch.ones(1).expand(5, 3),
        "nothing": torch.zeros(0, 3),
        "number": torch.tensor(2.5, dtype=torch.float64),
        "short": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    received = unpack_tensors(pickle.loads(pickle.dumps(pack_tensors(tensors))))
    assert received.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert received[name].dtype == tensor.dtype
        assert torch.equal(received[name], tensor)
        assert not received[name].requires_grad


def test_models_travel_whole(tied: Network) -> None:
    model = open_model(pt2(Tied(), (2, 3, 5, 5)))
    received = pickle.loads(pickle.dumps(model))
    assert received.fingerprint == model.fingerprint
    assert received.source == model.source
    assert str(received) == str(model)
