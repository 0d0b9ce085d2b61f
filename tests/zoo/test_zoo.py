"""The networks that other tests stand on."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from zoo import ZOO, ZooEntry, build, export, images, save

ENTRIES = pytest.mark.parametrize("entry", ZOO.values(), ids=ZOO)


@ENTRIES
def test_exports_with_a_dynamic_batch_and_runs(entry: ZooEntry) -> None:
    module = export(entry).module()
    model = build(entry)
    assert not model.training
    with torch.no_grad():
        for count in (1, 4):
            x = images(entry, count)
            expected = model(x)
            torch.testing.assert_close(module(x), expected)
            assert len(expected) == count
            assert expected.ndim == (len(entry.input_shape) + 1 if entry.dense else 2)


@ENTRIES
def test_outputs_are_of_unit_scale_and_tell_images_apart(entry: ZooEntry) -> None:
    with torch.no_grad():
        logits = build(entry)(images(entry, 4)).flatten(1)
    scale = logits.square().mean().sqrt()
    assert 0.3 < scale < 5
    assert logits.std(0).mean() > 0.1 * scale
    if not entry.dense:
        best, second = logits.topk(2).values.unbind(1)
        assert (best - second).min() > 0.05 * scale


@ENTRIES
def test_plain_float32_is_well_within_the_tolerance_of_coded_runs(entry: ZooEntry) -> None:
    x = images(entry, 2)
    with torch.no_grad():
        single = build(entry)(x)
        exact = deepcopy(build(entry)).double()(x.double())
    assert (single - exact).norm() < 3e-6 * exact.norm()


def test_a_seed_gives_the_same_network() -> None:
    entry = ZOO["lenet5"]
    model = build(entry)
    build.cache_clear()
    again = build(entry)
    assert again is not model
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_saves_a_file_once(tmp_path: Path) -> None:
    path = save(ZOO["lenet5"], tmp_path / "lenet5.pt2")
    written = path.stat().st_mtime_ns
    assert save(ZOO["lenet5"], path) == path
    assert path.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [path]
    x = images(ZOO["lenet5"], 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(x), build(ZOO["lenet5"])(x))
