"""Opened models: precisions, fingerprints and text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model.interpreter import run_network
from support.modules import Lambda, Residual, conv, ready
from support.pt2 import pt2


def test_models_of_two_precisions_run_in_both() -> None:
    def mixed(x: Tensor, c: nn.Module) -> Tensor:
        y = c(x)
        return (
            y.to(torch.float32)
            + torch.zeros(4, 1, 1)
            + torch.full((1,), 0.1)
            + y.mean((1, 2, 3), keepdim=True).double()
        )

    module = ready(Lambda(mixed, c=conv(3, 4, 3)))
    model = open_model(pt2(module, (2, 3, 8, 8)))
    double = model.to(torch.float64)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    found = run_network(double.network, x)
    assert found.dtype == torch.float64
    with torch.no_grad():
        expected = module.double().function(x, **module.layers).double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert double.network.input_dtype == torch.float64
    assert double.fingerprint == model.fingerprint
    assert double.network.fingerprint != model.network.fingerprint
    assert double.to(torch.float32).network.input_dtype == torch.float32
    with pytest.raises(ModelError, match="float16"):
        model.to(torch.float16)


def test_fingerprints_say_what_is_computed() -> None:
    module = ready(Residual())
    data = pt2(module, (2, 4, 8, 8))
    one, again = open_model(data), open_model(pt2(module, (2, 4, 8, 8)))
    assert one.fingerprint == again.fingerprint
    assert one.network.fingerprint == again.network.fingerprint
    larger = open_model(pt2(module, (4, 4, 8, 8)))
    assert larger.fingerprint == one.fingerprint
    with torch.no_grad():
        module.first.weight[0, 0, 0, 0] += 1e-6
    other = open_model(pt2(module, (2, 4, 8, 8)))
    assert other.fingerprint != one.fingerprint
    assert other.network.fingerprint != one.network.fingerprint


def test_people_can_read_a_network() -> None:
    text = str(open_model(pt2(ready(Residual()), (2, 4, 8, 8))))
    assert "x (any, 4, 8, 8) float32" in text
    assert "conv first: " in text
    assert "filters 4x4x3x3, padding ((1, 1), (1, 1))" in text
    assert "aten.relu.default" in text
    assert "2 convolutions" in text
