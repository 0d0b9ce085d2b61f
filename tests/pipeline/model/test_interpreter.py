"""Running glue and networks, and sending networks to other processes."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError, UnsafeModelError
from fcdcc.pipeline.model.interpreter import network_shapes, run_network, run_steps
from fcdcc.pipeline.model.network import GlueStage, Network, Ref, Step
from fcdcc.pipeline.model.operators import resolve, words
from fcdcc.pipeline.model.tensor_pickle import pack_tensors, unpack_tensors
from support.pt2 import pt2

X = Ref("x")


def glue(*steps: Step, outputs: tuple[str, ...] | None = None) -> GlueStage:
    return GlueStage(0, ("x",), outputs or (steps[-1].name,), steps)


def step(op: str, *args: Any, name: str = "y", **kwargs: Any) -> Step:
    return Step(name, op, args, kwargs)


def run(stage: GlueStage, x: Tensor, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    (result,) = run_steps(stage, {"x": x, "other": x}, tensors or {}).values()
    return result


def test_steps_read_values_tensors_and_literals_wherever_they_stand() -> None:
    stage = glue(
        step("aten.cat.default", [X, Ref("w"), X], 1, name="a"),
        step("aten.mul.Tensor", Ref("a"), 2.0, name="b"),
        step("aten.sum.dim_IntList", Ref("b"), [1], True, dtype=torch.float64),
    )
    x, w = torch.randn(2, 3), torch.randn(2, 4)
    found = run(stage, x, {"w": w})
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, (torch.cat([x, w, x], 1) * 2).double().sum(1, keepdim=True))


def test_numbers_pass_from_step_to_step() -> None:
    stage = glue(
        step("aten.sym_size.int", X, 0, name="n"),
        step("operator.mul", Ref("n"), 3, name="m"),
        step("aten.reshape.default", X, [Ref("m"), -1]),
    )
    assert run(stage, torch.zeros(2, 6)).shape == (6, 2)


def test_members_of_lists_can_be_outputs() -> None:
    stage = glue(
        step("aten.split.Tensor", X, 2, 1, name="parts"),
        step("operator.getitem", Ref("parts"), 0, name="left"),
        step("operator.getitem", Ref("parts"), 1, name="right"),
        outputs=("right", "left"),
    )
    x = torch.arange(8.0).reshape(2, 4)
    found = run_steps(stage, {"x": x}, {})
    assert list(found) == ["right", "left"]
    assert torch.equal(found["left"], x[:, :2])


def test_devices_of_the_export_do_not_matter() -> None:
    stage = glue(
        step("aten.full.default", [3], 1.5, name="a", device=torch.device("cuda:3")),
        step("aten.arange.default", 3, name="b"),
        step("aten.add.Tensor", Ref("a"), Ref("b"), name="c"),
        step("aten.add.Tensor", Ref("c"), X),
    )
    assert torch.equal(run(stage, torch.zeros(3)), torch.tensor([1.5, 2.5, 3.5]))
    assert run(stage, torch.zeros(3, device="meta")).device.type == "meta"


class Living(TorchDispatchMode):
    """Counts, at each operation, the results of earlier ones that are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[weakref.ref[Tensor]] = []
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Tensor:
        result: Tensor = func(*args, **(kwargs or {}))
        self.results.append(weakref.ref(result))
        self.most = max(self.most, sum(ref() is not None for ref in self.results))
        return result


def test_values_are_freed_once_nobody_reads_them() -> None:
    names = ["x", *(f"v{i}" for i in range(20))]
    steps = [
        step("aten.relu.default", Ref(before), name=after) for before, after in pairwise(names)
    ]
    x = torch.zeros(3)
    with Living() as living:
        run(glue(*steps), x)
    assert len(living.results) == 20
    assert living.most <= 2


def test_networks_free_values_too_and_leave_the_images_alone() -> None:
    module = nn.Sequential(*(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(True)) for _ in range(9)))
    network = open_model(pt2(module.eval(), (2, 2, 4, 4))).network
    x = torch.randn(2, 2, 4, 4)
    kept = x.clone()
    with Living() as living:
        run_network(network, x)
    assert living.most <= 3
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    "op",
    [
        "os.system",
        "operator.methodcaller",
        "operator.attrgetter",
        "math.factorial",
        "torch.load",
        "torch.sym_size",
        "aten.from_file.default",
        "aten._print.default",
        "aten.set_.source_Tensor",
        "aten.resize_.default",
        "aten.__class__.mro",
        "aten.relu",
        "aten.relu.default.name",
        "prim.device.default",
        "aten:relu.default",
        "",
    ],
)
def test_operators_beyond_arithmetic_are_not_run(op: str) -> None:
    with pytest.raises(UnsafeModelError):
        run(glue(step(op, X)), torch.zeros(1))


@pytest.mark.parametrize("op", ["aten.rand_like.default", "aten.bernoulli.p"])
def test_operators_that_draw_random_numbers_are_not_run(op: str) -> None:
    with pytest.raises(ModelError, match="random"):
        run(glue(step(op, X)), torch.zeros(1))


def test_operators_that_take_text_or_foreign_objects_are_known() -> None:
    """What a new version of PyTorch adds is looked at before models may use it."""
    plain = {"Tensor", "int", "float", "bool", "number", "Device", "Generator"}
    known = words(
        """
        conv1d conv2d conv3d div divide einsum gelu index_reduce linalg_cond linalg_eigh
        linalg_eigvalsh linalg_lstsq linalg_matrix_norm linalg_norm linalg_qr linalg_svd
        linalg_svdvals meshgrid nanquantile pad pad_sequence quantile scatter scatter_reduce
        searchsorted segment_reduce stft gelu_backward scatter_ scatter_reduce_ index_reduce_
        gelu_ div_ divide_ _convolution_mode _assert_async _assert_scalar
        _functional_assert_async _functional_assert_scalar
        """
    )
    unknown = []
    for full_name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = full_name.removeprefix("aten::").partition(".")
        if not full_name.startswith("aten::") or packet in known or packet.startswith("fft_"):
            continue
        try:
            operator = resolve(f"aten.{packet}.{overload or 'default'}")
        except ModelError:
            continue
        for argument in operator._schema.arguments:
            base = str(argument.type)
            for wrapper in ("Optional[", "List[", "]"):
                base = base.replace(wrapper, "")
            if base not in plain:
                unknown.append((full_name, argument.name, base))
    assert not unknown


def test_a_step_that_cannot_run_says_so_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"aten\.matmul\.default.*\(2, 3\)") as caught:
        run(glue(step("aten.matmul.default", X, X)), torch.zeros(2, 3))
    assert len(str(caught.value).splitlines()) == 1


def test_images_of_the_wrong_shape_are_refused_in_words() -> None:
    network = open_model(pt2(nn.Conv2d(3, 4, 3), (2, 3, 8, 8))).network
    for shape in ((2, 4, 8, 8), (2, 3, 2, 2), (2, 3)):
        with pytest.raises(ModelError, match="convolution"):
            run_network(network, torch.zeros(shape))
        with pytest.raises(ModelError, match="convolution"):
            network_shapes(network, shape)


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
