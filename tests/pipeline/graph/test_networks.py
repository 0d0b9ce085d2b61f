"""Every network of the zoo, coded, with two of six shares of every group missing."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

import dask
import numpy as np
import pytest
import torch
from dask._task_spec import Task

import zoo
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.model import Model, open_model
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable
from support.erasing import erase, reading
from support.planned import usual_plans


def opened(entry: zoo.ZooEntry) -> Model:
    stored = BytesIO()
    torch.export.save(zoo.export(entry), stored)
    return open_model(stored.getvalue())


FORMS = (
    ("systematic", "rows", "standby", 0),
    ("systematic", "rows", "eager", 1e7),
    ("crme", "rows", "eager", 0),
    ("systematic", "images", "standby", 0),
)
"""Code, split, redundancy, and how much work comes together before a layer is coded."""


@pytest.mark.parametrize("name", zoo.ZOO)
def test_coded_networks_agree_with_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one of the forms, in turn; the long test has them all."""
    first = list(zoo.ZOO).index(name)
    agree(name, [first % len(FORMS)], monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("name", zoo.ZOO)
def test_coded_networks_agree_in_every_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agree(name, range(len(FORMS)), monkeypatch)


def agree(name: str, forms: Iterable[int], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = zoo.ZOO[name]
    network = opened(entry).network
    images = zoo.images(entry)
    with torch.inference_mode():
        expected = zoo.build(entry)(images).numpy()
    for seed in forms:
        code, split, redundancy, work = FORMS[seed]
        usual_plans(monkeypatch, work)
        options = PlanOptions.of(code=code, split=split, redundancy=redundancy, batch=len(images))
        plan = choose_plan(network, entry.input_shape, options)
        executable = Executable(network, plan)
        block = Block(executable, "zoo", 0, len(images), reading(images))
        graph = build_block(network, plan, block)
        last = Task("prediction", lambda values: values, graph.prediction)
        for erased in (0, 2):
            made = dask.get(erase({**graph.tasks, last.key: last}, erased, seed), last.key)
            error = np.linalg.norm(made - expected) / np.linalg.norm(expected)
            assert error <= 1e-5, (code, split, erased, error)
            np.testing.assert_array_equal(made.argmax(1), expected.argmax(1))
