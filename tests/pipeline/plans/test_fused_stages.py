"""Which stages one task runs."""

from __future__ import annotations

from io import BytesIO

import pytest
import torch
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.plans.fused_stages import fuse_stages, image_units, values_read


class Skip(nn.Module):
    """conv a, relu, conv b, and a sum of what came before and after conv b; then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.a(x))
        return self.head((first + self.b(first)).flatten(1))


@pytest.fixture(scope="module")
def network() -> Network:
    stored = BytesIO()
    batch = {0: torch.export.Dim("batch")}
    example = torch.zeros(2, 3, 8, 8)
    torch.export.save(
        torch.export.export(Skip().eval(), (example,), dynamic_shapes=(batch,)), stored
    )
    return open_model(stored.getvalue()).network


def test_a_unit_ends_with_a_share_or_with_what_several_read(network: Network) -> None:
    a, relu, b, rest = network.stages
    coded = {a.index, b.index}
    units = image_units(network, coded)
    assert [(unit.kind, unit.stages) for unit in units] == [
        ("share", (a.index,)),
        ("glue", (relu.index,)),
        ("share", (b.index,)),
        ("glue", (rest.index,)),
    ]
    assert [unit.number for unit in units] == [a.index, relu.index, b.index, rest.index]


def test_what_stands_before_a_coded_convolution_belongs_to_its_share(network: Network) -> None:
    a, relu, b, rest = network.stages
    first, last = image_units(network, {b.index}), image_units(network, ())
    assert [(unit.kind, unit.stages) for unit in first] == [
        ("glue", (a.index, relu.index)),  # the sum reads it, too
        ("share", (b.index,)),
        ("glue", (rest.index,)),
    ]
    assert [unit.stages for unit in last] == [(a.index, relu.index, b.index, rest.index)]


def test_units_read_what_others_make_and_join_only_where_they_may(network: Network) -> None:
    single = fuse_stages(network, lambda stage, unit: False)
    assert single == [(stage.index,) for stage in network.stages]
    for unit in image_units(network, ()):
        made = {name for index in unit.stages for name in network.stages[index].outputs}
        assert set(unit.outputs) <= made
        assert not made.intersection(values_read(network, unit.stages))
        assert unit.inputs == values_read(network, unit.stages)
