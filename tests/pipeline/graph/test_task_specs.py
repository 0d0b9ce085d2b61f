"""What a task is for: one small value that graph, kernel and cost model share."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from io import BytesIO
from typing import Any, get_args

import pytest
import torch
from dask._task_spec import Task

import zoo
from fcdcc.pipeline import open_model
from fcdcc.pipeline.graph import Block, StoreReader, build_block, build_retry
from fcdcc.pipeline.halo import Rows
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.cost.profile import profile_network
from fcdcc.pipeline.planner.cost.task_costs import TaskCost, block_costs
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.plans.chunks import StoredChunks
from fcdcc.pipeline.plans.plan import Plan
from fcdcc.pipeline.plans.row_layout import row_layout
from fcdcc.pipeline.worker.executable import Executable
from fcdcc.pipeline.worker.kernels.task_specs import TaskSpec, find_spec
from support.planned import usual_plans

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "rows": ("lenet5", {"split": "rows"}),
    "dense rows": ("unet", {"split": "rows"}),
    "images": ("unet", {"split": "images", "batch": 16}),
    "gathered": ("lenet5", {"code": "crme"}),
    "band": ("unet", {"band": 7}),
    "checked rows": ("lenet5", {"split": "rows", "verify": "all"}),
    "checked images": ("lenet5", {"split": "images", "batch": 16, "verify": "all"}),
}
IMAGES = 5


@cache
def network_of(name: str) -> Network:
    stored = BytesIO()
    torch.export.save(zoo.export(zoo.ZOO[name]), stored)
    return open_model(stored.getvalue()).network


@cache
def planned(form: str) -> tuple[Network, Plan]:
    name, options = FORMS[form]
    network = network_of(name)
    with pytest.MonkeyPatch.context() as patch:
        usual_plans(patch)
        return network, choose_plan(network, zoo.ZOO[name].input_shape, PlanOptions.of(**options))


def reader(plan: Plan) -> StoreReader:
    """Return a reader of images in chunks of three, which several parts need."""
    return StoreReader.of(None, None, "t", 0, 0, plan, StoredChunks(3, 1000, 100))


def tasks_of(form: str) -> Iterator[Task]:
    """Yield the tasks of a block in this form, and those of its being computed again."""
    network, plan = planned(form)
    band = None if plan.band is None else Rows(plan.band, 2 * plan.band)
    read = reader(plan)
    block = Block(Executable(network, plan).ref, "t", 0, IMAGES, read)
    for graph in (
        build_block(network, plan, block, band),
        build_retry(network, plan, block, band, "recheck", 1),
        build_retry(network, plan, block, band, "uncoded", 2),
    ):
        for task in (*read.tasks.values(), *graph.tasks.values()):
            assert isinstance(task, Task)
            yield task


def spec_of(task: Task) -> TaskSpec:
    spec = find_spec(task.args)
    assert spec is not None, f"{task.key} does not say what it is for"
    return spec


def test_every_task_says_what_it_is_for_and_every_kind_is_used() -> None:
    found = {type(spec_of(task)) for form in FORMS for task in tasks_of(form)}
    assert found == set(get_args(TaskSpec))


@pytest.mark.parametrize("form", FORMS)
def test_a_task_carries_numbers_and_no_more(form: str) -> None:
    """The stages of units and their rows follow from the plan: no task brings them along."""
    for task in tasks_of(form):
        spec = spec_of(task)
        assert pickle.loads(pickle.dumps(spec)) == spec
        for field in fields(spec):
            value = getattr(spec, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            assert all(isinstance(number, int | None) for number in numbers), (task.key, spec)


def costs_of(form: str, tasks: dict[Any, Task]) -> dict[Any, TaskCost]:
    network, plan = planned(form)
    layout = row_layout(network, plan) if plan.form == "rows" else None
    profile = profile_network(network, plan.image_shape)
    return block_costs(network, plan, layout, profile, tasks, IMAGES)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "band"])
def test_what_a_task_costs_is_not_read_from_where_its_arguments_stand(form: str) -> None:
    network, plan = planned(form)
    read = reader(plan)
    block = Block(Executable(network, plan).ref, "t", 0, IMAGES, read)
    tasks = {**build_block(network, plan, block).tasks, **read.tasks}
    turned = {
        key: Task(key, task.func, *reversed(task.args)) if type(task) is Task else task
        for key, task in tasks.items()
    }
    costs = costs_of(form, tasks)
    assert costs_of(form, turned) == costs
    stages = {key[0] for key in tasks}
    assert {key[0] for key, cost in costs.items() if cost.bytes} == stages - {"check-t"}
