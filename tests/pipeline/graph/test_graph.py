"""The graph of a block: right with every scheduler, and with any shares given up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import dask
import numpy as np
import pytest
import torch
from dask._task_spec import DataNode, GraphNode
from torch import nn

from fcdcc.pipeline.anyk import ERASED, AnyK
from fcdcc.pipeline.anyk.keys import parse_key
from fcdcc.pipeline.graph import Block, BlockGraph, build_block
from fcdcc.pipeline.model import open_model
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable, drop, hold
from support.erasing import erase, reading
from support.planned import usual_plans

IMAGES = 5


class Branching(nn.Module):
    """A residual sum, an in-place activation, and two branches of different depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Sequential(
            nn.Conv2d(8, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
        )
        self.shallow = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4, bias=False)
        self.head = nn.Linear(16 * 12 * 12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = torch.relu_(self.stem(x))
        stem = stem + torch.sigmoid(stem)
        joined = torch.cat([self.deep(stem), self.shallow(stem)], 1)
        return self.head(torch.relu(joined).flatten(1))


class Example:
    """A network, images, its graph and what PyTorch makes of them."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(3)
        module = Branching().double().eval()
        images = torch.rand(IMAGES, 3, 24, 24, dtype=torch.float64)
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(module, (images[:2],), dynamic_shapes=(batch,))
        buffer = _saved(program)
        network = open_model(buffer).network
        with pytest.MonkeyPatch.context() as patch:
            usual_plans(patch)
            plan = choose_plan(network, (3, 24, 24), PlanOptions.of(dtype="float64", **options))
        self.plan = plan
        self.ref = hold(Executable(network, plan))
        reader = reading(images)
        self.graph: BlockGraph = build_block(network, plan, Block(self.ref, "t", 0, IMAGES, reader))
        with torch.inference_mode():
            self.expected = module(images).numpy()

    def agrees(self, answer: Any) -> bool:
        error = np.linalg.norm(answer - self.expected) / np.linalg.norm(self.expected)
        return bool(error < 1e-12)


def _saved(program: torch.export.ExportedProgram) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


FORMS = {
    "strips": {"split": "rows", "redundancy": "standby"},
    "gathered": {"code": "crme", "redundancy": "eager"},
    "images": {"split": "images", "batch": 16, "redundancy": "standby"},
}


@pytest.fixture(scope="module", params=FORMS)
def block(request: pytest.FixtureRequest) -> Iterator[Example]:
    block = Example(**FORMS[request.param])
    yield block
    drop(block.ref)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers_agree_with_torch(block: Example, scheduler: str) -> None:
    answer = dask.get if scheduler == "synchronous" else dask.threaded.get
    assert block.agrees(answer(block.graph.tasks, block.graph.prediction.key))


def test_schedulers_give_the_same_bits(block: Example) -> None:
    key = block.graph.prediction.key
    one = dask.get(block.graph.tasks, key)
    two = dask.threaded.get(block.graph.tasks, key)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("seed", range(6))
def test_any_two_shares_of_every_group_may_be_missing(block: Example, seed: int) -> None:
    tasks = erase(block.graph.tasks, 2, seed)
    assert block.agrees(dask.get(tasks, block.graph.prediction.key))


def test_every_pair_of_shares_of_one_layer_may_be_missing(block: Example) -> None:
    node = next(task for task in block.graph.tasks.values() if isinstance(task, AnyK))
    for pair in combinations(node.shares, 2):
        gone = {node.shares[position]: DataNode(position, ERASED) for position in pair}
        tasks = {**block.graph.tasks, node.key: node.substitute(gone)}
        assert block.agrees(dask.get(tasks, block.graph.prediction.key))


def test_nothing_spare_means_no_parity_in_the_graph() -> None:
    block = Example(redundancy="off")
    try:
        nodes = [task for task in block.graph.tasks.values() if isinstance(task, AnyK)]
        assert all(tuple(node.shares) == (node.own,) for node in nodes)
        assert block.agrees(dask.get(block.graph.tasks, block.graph.prediction.key))
    finally:
        drop(block.ref)


STAGES = {
    "strips": {"read", "halo", "share", "parity", "part", "glue"},
    "gathered": {"read", "encode", "share", "decode", "glue"},
    "images": {"read", "share", "parity", "part", "glue", "gather"},
}


@pytest.mark.parametrize("form", FORMS)
def test_keys_say_stage_layer_block_and_position(form: str) -> None:
    block = Example(**FORMS[form])
    drop(block.ref)
    keys = [parse_key(key) for key in block.graph.tasks]
    assert None not in keys
    assert {key.stage for key in keys if key} == STAGES[form]
    shares = [key for key in keys if key and key.stage in ("share", "parity")]
    parity = {4, 5} if form != "gathered" else set()
    assert {key.position for key in shares if key.stage == "parity"} == parity
    assert len(shares) == 6 * len(block.plan.layers)
    assert {key.layer for key in shares} == {layer.layer for layer in block.plan.layers}


@pytest.fixture(scope="module")
def by_images() -> Iterator[Example]:
    block = Example(**FORMS["images"])
    yield block
    drop(block.ref)


@pytest.mark.parametrize("form", ["strips", "images"])
def test_all_that_is_there_is_what_it_is_without_coding(form: str) -> None:
    answers = []
    for redundancy in ("standby", "off"):
        block = Example(**{**FORMS[form], "redundancy": redundancy})
        answers.append(dask.get(block.graph.tasks, block.graph.prediction.key))
        drop(block.ref)
    np.testing.assert_array_equal(*answers)


def test_strips_stay_and_only_rows_at_their_ends_travel() -> None:
    block = Example(**FORMS["strips"])
    values = computed(block.graph.tasks)
    drop(block.ref)
    seen = 0
    for key, task in block.graph.tasks.items():
        label = parse_key(key)
        assert label is not None
        if label.stage not in ("share", "part"):
            continue
        for need in map(parse_key, task.dependencies):
            assert need is not None
            own = isinstance(task, AnyK) or need.stage == "halo" or need.position == label.position
            assert own, f"{label} needs {need}"
    for key, task in block.graph.tasks.items():
        label = parse_key(key)
        (source,) = task.dependencies if label and label.stage == "halo" else (None,)
        if source is not None and (origin := parse_key(source)) and origin.stage == "part":
            seen += 1
            assert values[key].shape[2] <= 2 < values[source].shape[2]
    assert seen >= 3


def computed(tasks: Mapping[Any, GraphNode]) -> dict[Any, Any]:
    """Run all tasks in an order in which they can run."""
    values: dict[Any, Any] = {}

    def value(key: Any) -> Any:
        if key not in values:
            values[key] = tasks[key]({need: value(need) for need in tasks[key].dependencies})
        return values[key]

    for key in tasks:
        value(key)
    return values


def test_nothing_travels_between_the_runs_but_to_parity_and_the_end(by_images: Example) -> None:
    for key, task in by_images.graph.tasks.items():
        parsed = parse_key(key)
        assert parsed is not None
        if parsed.stage in ("parity", "gather"):
            continue
        needs = {parse_key(need) for need in task.dependencies}
        if isinstance(task, AnyK):
            assert task.own == parsed.position
            assert task.standby == {4, 5}
            continue
        assert {need.position for need in needs if need} <= {parsed.position}


def test_systematic_shares_alone_are_enough_for_their_parts(by_images: Example) -> None:
    labels = {key: parse_key(key) for key in by_images.graph.tasks}
    parity = [key for key, label in labels.items() if label and label.stage == "parity"]
    tasks = dict(by_images.graph.tasks)
    for task in by_images.graph.tasks.values():
        if isinstance(task, AnyK):
            gone = {key: DataNode(key, ERASED) for key in parity if key in task.dependencies}
            tasks[task.key] = task.substitute(gone)
    for key in parity:
        del tasks[key]
    assert by_images.agrees(dask.get(tasks, by_images.graph.prediction.key))
