"""Networks of bytes, of channels last and of half precision, compared with live PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import dask
import numpy as np
import pytest
import torch
from dask._task_spec import Task
from numpy.typing import NDArray
from torch import Tensor, nn

from fcdcc.pipeline import infer, open_model, plan
from fcdcc.pipeline.errors import ModelError, OptionError
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.model import Model
from fcdcc.pipeline.model.interpreter import run_network
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.worker.executable import Executable
from support.erasing import erase, reading
from support.modules import Lambda, conv, ready
from support.planned import usual_plans

BATCH = torch.export.Dim("batch")
SIZE = (12, 16)


def layers() -> dict[str, nn.Module]:
    return {
        "first": conv(3, 8, 3, padding=1),
        "second": conv(8, 8, 3, padding=1),
        "head": nn.Linear(8, 5),
    }


def classify(x: Tensor, first: nn.Module, second: nn.Module, head: nn.Module) -> Tensor:
    x = torch.relu(first(x))
    return head((torch.relu(second(x)) + x).mean((2, 3)))


def scaled(x: Tensor, **parts: nn.Module) -> Tensor:
    return classify((x.float() - 127.5) / 64, **parts)


def channels_last(x: Tensor, **parts: nn.Module) -> Tensor:
    return classify(x.permute(0, 3, 1, 2), **parts)


def bytes_channels_last(x: Tensor, **parts: nn.Module) -> Tensor:
    return classify(x.permute(0, 3, 1, 2).to(torch.float32) / 255, **parts)


def scaled_channels_last(x: Tensor, **parts: nn.Module) -> Tensor:
    return classify((x.to(torch.float32) / 255).permute(0, 3, 1, 2), **parts)


def opened(module: nn.Module, example: Tensor) -> Model:
    program = torch.export.export(module, (example,), dynamic_shapes=({0: BATCH},))
    stored = BytesIO()
    torch.export.save(program, stored)
    return open_model(stored.getvalue())


def pictures(count: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 3, *SIZE), dtype=np.uint8)


def assert_close(made: NDArray[np.float32], expected: Tensor, limit: float = 1e-5) -> None:
    wanted = expected.float().numpy()
    assert made.shape == wanted.shape
    assert np.linalg.norm(made - wanted) <= limit * np.linalg.norm(wanted)


NETWORKS: dict[str, tuple[Callable[..., Tensor], bool, bool]] = {
    "bytes": (scaled, True, False),
    "channels last": (channels_last, False, True),
    "bytes, channels last": (bytes_channels_last, True, True),
    "scaled bytes, channels last": (scaled_channels_last, True, True),
}
"""A forward, whether it takes bytes, and whether it takes channels last."""


@pytest.fixture(params=NETWORKS, scope="module")
def network(request: pytest.FixtureRequest) -> tuple[Model, Tensor, Tensor]:
    """A model, images as it takes them after our preparation (n, c, y, x), and its predictions."""
    forward, is_bytes, is_last = NETWORKS[request.param]
    module = ready(Lambda(forward, **layers()))
    images = torch.from_numpy(pictures())
    images = images if is_bytes else images / 255
    given = images.permute(0, 2, 3, 1).contiguous() if is_last else images
    with torch.no_grad():
        return opened(module, given[:2]), images, module(given)


def test_agree_with_pytorch(network: tuple[Model, Tensor, Tensor]) -> None:
    model, images, expected = network
    assert model.network.input_shape == (None, 3, *SIZE)
    assert len(model.network.convolutions) == 2
    assert_close(run_network(model.network, images.float()).numpy(), expected)
    in_double = model.to(torch.float64).network
    assert_close(run_network(in_double, images.double()).float().numpy(), expected)


@pytest.mark.parametrize("split", ["rows", "images"])
def test_with_two_of_six_shares_erased(
    network: tuple[Model, Tensor, Tensor], split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    found, images, expected = network
    made_plan = choose_plan(found.network, (3, *SIZE), PlanOptions.of(split=split, batch=5))
    assert made_plan.coded_layers
    block = Block(Executable(found.network, made_plan), "input", 0, 5, reading(images.float()))
    graph = build_block(found.network, made_plan, block)
    last = Task("prediction", lambda values: values, graph.prediction)
    made = dask.get(erase({**graph.tasks, last.key: last}, 2, 3), last.key)
    assert_close(made, expected)


def test_images_of_either_order_are_read(network: tuple[Model, Tensor, Tensor]) -> None:
    model, _, expected = network
    pixels = pictures()
    assert_close(infer(model, pixels, batch=3).compute().values, expected)
    assert_close(infer(model, pixels.transpose(0, 2, 3, 1), batch=3).compute().values, expected)


def test_a_permutation_is_undone_before_the_first_convolution() -> None:
    module = ready(Lambda(channels_last, **layers()))
    network = opened(module, torch.zeros(2, *SIZE, 3)).network
    assert network.convolutions[0].input == network.input


def test_channels_first_stay_first() -> None:
    first = ready(nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 16, 4)))
    assert opened(first, torch.zeros(2, 3, *SIZE)).network.input_shape == (None, 3, *SIZE)
    assert opened(first, torch.zeros(2, *SIZE, 3)).network.input_shape == (None, 3, *SIZE)
    narrow = ready(Lambda(classify, **layers()))
    assert opened(narrow, torch.zeros(2, 3, 8, 3)).network.input_shape == (None, 3, 8, 3)


def test_a_permutation_says_where_the_channels_are_that_nothing_else_says() -> None:
    bands = ready(nn.Sequential(nn.Linear(5, 4), nn.Flatten(), nn.Linear(4 * 12 * 16, 2)))
    assert opened(bands, torch.zeros(2, *SIZE, 5)).network.input_shape == (None, 12, 16, 5)
    wrapped = ready(Lambda(lambda x, network: network(x.permute(0, 2, 3, 1)), network=bands))
    found = opened(wrapped, torch.zeros(2, 5, *SIZE)).network
    assert found.input_shape == (None, 5, *SIZE)
    images = torch.rand(3, 5, *SIZE)
    with torch.no_grad():
        assert_close(run_network(found, images).numpy(), bands(images.permute(0, 2, 3, 1)))


@pytest.mark.parametrize("options", [{"scale": "max"}, {"mean": 0.5}, {"std": 0.5}, {"scale": 2.0}])
def test_bytes_that_the_network_scales_are_not_prepared(options: dict[str, object]) -> None:
    model = opened(ready(Lambda(scaled, **layers())), torch.zeros(2, 3, *SIZE, dtype=torch.uint8))
    name = next(iter(options))
    with pytest.raises(OptionError, match=f"{name}.*takes bytes and scales them itself.*leave"):
        infer(model, pictures(), **options)  # type: ignore[arg-type]


def test_bytes_are_not_made_of_floats() -> None:
    model = opened(ready(Lambda(scaled, **layers())), torch.zeros(2, 3, *SIZE, dtype=torch.uint8))
    with pytest.raises(OptionError, match="float32: store them as uint8"):
        infer(model, pictures().astype(np.float32))


def test_integers_other_than_bytes_are_refused() -> None:
    module = ready(Lambda(scaled, **layers()))
    with pytest.raises(ModelError, match=r"int32; expected floats, or bytes"):
        opened(module, torch.zeros(2, 3, *SIZE, dtype=torch.int32))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32_and_coded(half: torch.dtype) -> None:
    module = ready(Lambda(classify, **layers())).to(half)
    model = opened(module, torch.zeros(2, 3, *SIZE, dtype=half))
    pixels = pictures()
    with torch.no_grad():
        expected = module.float()(torch.from_numpy(pixels) / 255)
    name = str(half).removeprefix("torch.")
    with pytest.warns(UserWarning, match=f"exported in {name} and is computed in float32"):
        made = infer(model, pixels)
    assert made.dtype == np.float32
    assert_close(made.compute().values, expected)
    assert plan(model, pixels).coded_layers


@pytest.mark.parametrize("exported", [torch.float32, torch.bfloat16], ids=str)
def test_bfloat16_is_computed_uncoded_and_said(exported: torch.dtype) -> None:
    module = ready(Lambda(classify, **layers())).to(exported)
    model = opened(module, torch.zeros(2, 3, *SIZE, dtype=exported))
    pixels = pictures()
    made_plan = plan(model, pixels, dtype="bfloat16", batch=3)
    assert not made_plan.coded_layers
    assert made_plan.forecast is not None
    convolved = 12 * 16 * (8 * 3 * 9 + 8 * 8 * 9)
    assert made_plan.forecast.block_multiply_adds == 3 * convolved
    assert any("bfloat16: no convolution is coded" in text for text in made_plan.warnings)
    made = infer(model, pixels, plan=made_plan)
    assert made.dtype == np.float32
    with torch.no_grad():
        expected = module.bfloat16()(torch.from_numpy(pixels).div(255).bfloat16())
    assert_close(made.compute().values, expected, 1e-2)
    exact = module.float()(torch.from_numpy(pixels) / 255).detach().numpy()
    assert np.abs(made.values - exact).max() > 0


@pytest.mark.parametrize(
    ("exported", "dtype"),
    [(torch.float16, "float32"), (torch.bfloat16, "bfloat16"), (torch.float64, "float64")],
    ids=str,
)
def test_auto_is_the_precision_of_the_export(exported: torch.dtype, dtype: str) -> None:
    module = ready(Lambda(classify, **layers())).to(exported)
    model = opened(module, torch.zeros(2, 3, *SIZE, dtype=exported))
    assert plan(model, pictures(), dtype="auto").dtype == dtype
