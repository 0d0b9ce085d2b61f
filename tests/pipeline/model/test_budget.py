"""Small files cannot keep an import busy: steps, nesting and work have limits and grow evenly."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model import budget
from fcdcc.pipeline.model.budget import MAX_CONSTANT_BYTES, MAX_DEPTH, ImportBudget
from fcdcc.pipeline.model.interpreter import network_shapes
from fcdcc.pipeline.model.rewriting import NameSource
from support.model_nodes import node, number, value, with_nodes
from support.pt2 import GRAPH, edited, pt2

MANY = 20_000


@cache
def harmless() -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    return pt2(module.eval(), (2, 3, 8, 8))


@pytest.mark.long
def test_thousands_of_steps_that_are_needed_are_opened() -> None:
    names = ["relu", *(f"z{i}" for i in range(MANY))]
    nodes = [node("aten.relu.default", new, value(old)) for old, new in pairwise(names)]
    recorded = dict.fromkeys(names[1:], "relu")
    network = open_model(with_nodes(harmless(), nodes, {}, {"relu": names[-1]}, recorded)).network
    assert sum(len(getattr(stage, "steps", ())) for stage in network.stages) > MANY
    assert network_shapes(network, (3, 3, 8, 8))[network.output] == (3, 2)


def test_thousands_of_steps_of_one_name_are_opened() -> None:
    nodes = [node("aten.relu.default", "z", value("a")) for _ in range(MANY)]
    open_model(with_nodes(harmless(), nodes, {"a": torch.ones(4)}))


def test_steps_that_replace_changes_through_views_are_counted() -> None:
    """After each change all views of the memory that are read are made again."""
    views = [value(f"v{i}") for i in range(400)]
    nodes = [node("aten.zeros.default", "base", [400, 4], dtype=torch.float32)]
    nodes += [node("aten.select.int", f"v{i}", value("base"), 0, i) for i in range(400)]
    for i in range(400):
        nodes.append(node("aten.add_.Scalar", f"w{i}", value("base"), 1.0))
        nodes.append(node("aten.stack.default", f"s{i}", views))
    with pytest.raises(ModelError, match=r"more than .* steps"):
        open_model(with_nodes(harmless(), nodes))


@pytest.mark.long
def test_copies_of_numbers_for_many_stages_are_counted() -> None:
    """Each stage computes the numbers that it needs."""
    count, last = 400, "relu"
    numbers = ["size", *(f"t{i}" for i in range(count))]
    nodes = [node("aten.sym_size.int", "size", value("relu"), 0, makes=[number("size")])]
    for old, new in pairwise(numbers):
        nodes.append(node("operator.mul", new, number(old), 1, makes=[number(new)]))
    recorded = {}
    for i in range(count):
        shape = [number(numbers[-1]), 4, 6, 6]
        nodes.append(node("aten.reshape.default", f"r{i}", value(last), shape))
        nodes.append(node("aten.conv2d.default", f"c{i}", value(f"r{i}"), value("filters")))
        recorded |= {f"r{i}": "relu", f"c{i}": "relu"}
        last = f"c{i}"
    tensors = {"filters": torch.ones(4, 4, 1, 1)}
    with pytest.raises(ModelError, match=r"more than .* steps"):
        open_model(with_nodes(harmless(), nodes, tensors, {"relu": last}, recorded))


def test_a_model_of_too_many_steps_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_STEPS", 3)
    with pytest.raises(ModelError, match="more than 3 steps"):
        open_model(harmless())


def test_an_import_ends_when_its_seconds_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", -1.0)
    left = ImportBudget()
    with pytest.raises(ModelError, match="takes more than"):
        left.take_steps(256 + budget.MAX_STEPS % 256)


def test_what_is_left_of_a_budget_is_counted() -> None:
    left = ImportBudget()
    left.enter(MAX_DEPTH)
    with pytest.raises(ModelError, match="nested"):
        left.enter(MAX_DEPTH + 1)
    left.take_constant("a", MAX_CONSTANT_BYTES, 0)
    with pytest.raises(ModelError, match="'b' takes 1 bytes"):
        left.take_constant("b", 1, 0)


def test_graphs_inside_graphs_are_refused_beyond_a_depth() -> None:
    inner = {"as_graph": {"name": "g", "graph": {"inputs": [], "outputs": [], "nodes": []}}}
    inner["as_graph"]["graph"]["tensor_values"] = {}
    for _ in range(MAX_DEPTH + 2):
        wrapper = {
            "target": "torch.ops.higher_order.wrap_with_set_grad_enabled",
            "inputs": [{"name": "", "arg": {"as_bool": False}}, {"name": "", "arg": inner}],
            "outputs": [],
            "metadata": {},
            "name": "w",
        }
        graph = {"inputs": [], "outputs": [], "nodes": [wrapper], "tensor_values": {}}
        inner = {"as_graph": {"name": "g", "graph": graph}}
    with pytest.raises(ModelError, match="nested"):
        open_model(with_nodes(harmless(), [wrapper]))


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("operator.pow", (7, 10**10)),
        ("operator.lshift", (1, 2**40)),
        ("operator.mul", ("a", 10**11)),
        ("operator.mod", ("%09000000000d", 1)),
    ],
)
def test_arithmetic_that_would_fill_the_memory_is_refused_even_if_nobody_reads_it(
    op: str, arguments: tuple[object, ...]
) -> None:
    nodes = [node(op, "z", *arguments, makes=[number("z")])]
    with pytest.raises(ModelError, match="size"):
        open_model(with_nodes(harmless(), nodes))


@pytest.mark.parametrize(("argument", "numbers"), [(3, [0, 0]), (4, [10**9, 10**9]), (5, [0, 0])])
def test_convolutions_of_absurd_geometry_are_refused_in_words(
    argument: int, numbers: list[int]
) -> None:
    def edit(program: dict[str, dict[str, dict[str, list[dict[str, object]]]]]) -> None:
        convolution = program["graph_module"]["graph"]["nodes"][0]
        inputs = convolution["inputs"]
        names = ["input", "weight", "bias", "stride", "padding", "dilation"]
        kept = [entry for entry in inputs if entry["name"] != names[argument]]  # type: ignore[index, attr-defined]
        kept.append({"name": names[argument], "arg": {"as_ints": numbers}, "kind": 1})
        convolution["inputs"] = sorted(kept, key=lambda e: names.index(e["name"]))  # type: ignore[arg-type]
        for entry in convolution["inputs"]:  # type: ignore[attr-defined]
            entry["kind"] = 2

    with pytest.raises(ModelError, match="the convolution 0 cannot take"):
        open_model(edited(harmless(), GRAPH, edit))


def test_fresh_names_do_not_search_from_the_start() -> None:
    names = NameSource(["x", "x_2"])
    assert [names.fresh("x") for _ in range(3)] == ["x_1", "x_3", "x_4"]
    assert len({names.fresh("y") for _ in range(MANY)}) == MANY
