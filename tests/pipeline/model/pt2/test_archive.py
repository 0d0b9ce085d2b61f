"""Model files: what is read, and that nothing in a file ever runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcdcc.coding.errors import FcdccError
from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError, UnsafeModelError
from fcdcc.pipeline.model.pt2.archive import read_archive
from fcdcc.pipeline.model.pt2.checks import check_expression
from support.pt2 import CONSTANTS, EXAMPLES, GRAPH, WEIGHTS, edited, packed, pt2, records


class Plain(nn.Module):
    """A convolution, a constant and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.linear = nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x)).mean((2, 3)) * self.scale
        return self.linear(y.view(x.shape[0], -1))


@cache
def plain_file() -> bytes:
    torch.manual_seed(0)
    return pt2(Plain().eval(), (2, 2, 8, 8))


@pytest.fixture
def plain() -> bytes:
    return plain_file()


class Canary:
    """A file that the attacks try to make."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def command(self) -> str:
        return f"touch {self.path}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(self, protocol=2)

    @property
    def saved(self) -> bytes:
        """The canary as torch.save writes it."""
        file = io.BytesIO()
        torch.save(self, file)
        return file.getvalue()


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "ran")


def in_weights(data: bytes, canary: Canary) -> bytes:
    data = edited(
        data, WEIGHTS, lambda table: table["config"]["conv.weight"].update(use_pickle=True)
    )
    return packed({**records(data), "data/weights/weight_0": canary.saved})


def in_constants(data: bytes, canary: Canary) -> bytes:
    def edit(table: Any) -> None:
        table["config"]["scale"]["use_pickle"] = True

    hostile = records(edited(data, CONSTANTS, edit))
    return packed({**hostile, "data/constants/tensor_0": canary.saved})


def in_custom_object(data: bytes, canary: Canary) -> bytes:
    def edit(table: Any) -> None:
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
        table["config"]["object"] = {**entry, "tensor_meta": None}

    data = edited(data, CONSTANTS, edit)
    return packed({**records(data), "data/constants/opaque_obj_0": canary.pickled})


def in_legacy_weights(data: bytes, canary: Canary) -> bytes:
    return packed({**records(data), "data/weights/model.pt": canary.saved})


def in_legacy_constants(data: bytes, canary: Canary) -> bytes:
    return packed({**records(data), "data/constants/model.pt": canary.saved})


def in_shape_expression(data: bytes, canary: Canary) -> bytes:
    def edit(program: Any) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        code = f"__import__('os').system({canary.command!r})"
        values["x"]["sizes"][0] = {"as_expr": {"expr_str": code, "hint": None}}

    return edited(data, GRAPH, edit)


def in_inner_graph(data: bytes, canary: Canary) -> bytes:
    """A shape expression in a graph that stands as an argument of an operator."""
    expression = {"expr_str": f"__import__('os').system({canary.command!r})", "hint": None}

    def edit(program: Any) -> None:
        inner: dict[str, Any] = {"inputs": [], "outputs": [], "nodes": [], "tensor_values": {}}
        inner["sym_int_values"] = {"n": {"as_expr": expression}}
        argument = {"as_graph": {"name": "inner", "graph": inner}}
        node = {
            "target": "torch.ops.higher_order.wrap_with_set_grad_enabled",
            "inputs": [
                {"name": "", "arg": {"as_bool": False}, "kind": 1},
                {"name": "", "arg": argument, "kind": 1},
            ],
            "outputs": [],
            "metadata": {},
        }
        program["graph_module"]["graph"]["nodes"].insert(0, node)

    return edited(data, GRAPH, edit)


def in_compiled_code(data: bytes, canary: Canary) -> bytes:
    return packed({**records(data), "data/aotinductor/model/wrapper.so": canary.pickled})


def in_second_model(data: bytes, canary: Canary) -> bytes:
    hostile = records(in_shape_expression(data, canary))[GRAPH]
    return packed({**records(data), "models/other.json": hostile})


def in_operator(target: str) -> Callable[[bytes, Canary], bytes]:
    def attack(data: bytes, canary: Canary) -> bytes:
        def edit(program: Any) -> None:
            node = {
                "target": target,
                "inputs": [{"name": "", "arg": {"as_string": canary.command}, "kind": 1}],
                "outputs": [{"as_tensor": {"name": "hostile"}}],
                "metadata": {},
                "name": "hostile",
            }
            graph = program["graph_module"]["graph"]
            graph["nodes"].insert(0, node)
            graph["tensor_values"]["hostile"] = graph["tensor_values"]["x"]

        return edited(data, GRAPH, edit)

    return attack


REFUSED = {
    "weights": in_weights,
    "constants": in_constants,
    "custom object": in_custom_object,
    "legacy weights": in_legacy_weights,
    "legacy constants": in_legacy_constants,
    "shape expression": in_shape_expression,
    "inner graph": in_inner_graph,
    "compiled code": in_compiled_code,
    "operator of torch": in_operator("torch.hub._load_local"),
    "operator of os": in_operator("os.system"),
    "operator of operator": in_operator("_operator.methodcaller"),
    "file operator": in_operator("torch.ops.aten.from_file.default"),
    "printing operator": in_operator("torch.ops.aten._print.default"),
    "operator of another library": in_operator("torch.ops.hostile.run.default"),
    "dunder operator": in_operator("torch.ops.aten.__class__.mro"),
    "extension operator": in_operator("#hostile:run"),
}


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
def test_files_that_would_run_a_command_are_refused_and_do_not(
    attack: Callable[[bytes, Canary], bytes], plain: bytes, canary: Canary
) -> None:
    with pytest.raises(UnsafeModelError) as caught:
        open_model(attack(plain, canary))
    assert len(str(caught.value).splitlines()) == 1
    assert not canary.path.exists()


def test_hidden_second_models_are_refused(plain: bytes, canary: Canary) -> None:
    with pytest.raises(ModelError, match=r"models/other\.json"):
        open_model(in_second_model(plain, canary))
    assert not canary.path.exists()


def test_example_inputs_are_not_looked_at(plain: bytes, canary: Canary) -> None:
    hostile = packed({**records(plain), EXAMPLES: canary.saved})
    assert open_model(hostile).fingerprint == open_model(plain).fingerprint
    assert not canary.path.exists()


def test_expressions_beside_the_graph_are_not_evaluated(plain: bytes, canary: Canary) -> None:
    code = f"__import__('os').system({canary.command!r})"

    def edit(program: Any) -> None:
        program["guards_code"] = [code]
        module = program["graph_module"]
        module["module_call_graph"][0]["signature"]["in_spec"] = code
        module["graph"]["nodes"][0]["metadata"] = {"stack_trace": code, "source_fn_stack": code}

    open_model(edited(plain, GRAPH, edit))
    assert not canary.path.exists()


@pytest.mark.parametrize("attack", [in_weights, in_constants, in_shape_expression])
def test_the_attacks_do_work_on_pytorch_itself(
    attack: Callable[[bytes, Canary], bytes], plain: bytes, canary: Canary
) -> None:
    with contextlib.suppress(Exception):
        torch.export.load(io.BytesIO(attack(plain, canary)))
    assert canary.path.exists(), "PyTorch has become safe: this import may become simpler"


@pytest.mark.parametrize(
    "expression",
    [
        "s0",
        "2*s0 + 1",
        "-(s0 // 2) % 3",
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s77', positive=True, integer=True))",
        "FloorDiv(Symbol('s1', integer=True), Integer(2))",
        "Pow(Symbol('s1', integer=True), Integer(2))",
        "Max(1, s3)",
        "Ne(Mod(s3, 4), 0)",
        "Float('0.5', precision=53)",
    ],
)
def test_arithmetic_expressions_are_allowed(expression: str) -> None:
    check_expression(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "Symbol('s0').func",
        "Symbol.__init__",
        "().__class__.__bases__[0]",
        "[s0 for s0 in (1,)]",
        "lambda: 0",
        "Symbol('__import__(0)')",
        "Symbol('s0', **{})",
        "Symbol('s0', cls=open)",
        "Integer('1')",
        "Function('f')(1)",
        "eval('1')",
        "s0 if 1 else 2",
        "f'{s0}'",
        "s0 ** s0 ** s0",
        "9**9**9**9",
        "Pow(9, Pow(9, Pow(9, 9)))",
        "Float('open(0)')",
        "'s0'",
        "s0; s1",
        "",
        "1" * 5000,
        "(" * 500 + ")" * 500,
        7,
        None,
    ],
)
def test_other_expressions_are_refused(expression: object) -> None:
    with pytest.raises(UnsafeModelError):
        check_expression(expression)


def test_reads_every_tensor_as_it_was(plain: bytes) -> None:
    torch.manual_seed(0)
    module = Plain().eval()
    archive = read_archive(plain, "plain.pt2")
    expected = {**module.state_dict(), "scale": module.scale}
    assert archive.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(archive.tensors[name], tensor)


def test_reads_tensors_that_share_memory_and_types_of_all_kinds() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            base = torch.arange(12, dtype=torch.float32)
            self.register_buffer("matrix", base.view(3, 4).T)
            self.register_buffer("part", base[2:9:3])
            self.register_buffer("wide", torch.ones(1).expand(5))
            self.register_buffer("empty", torch.zeros(0, 3))
            self.register_buffer("number", torch.tensor(3, dtype=torch.int64))
            self.register_buffer("short", torch.tensor([1.5], dtype=torch.bfloat16))
            self.register_buffer("mask", torch.tensor([True, False]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mixed = self.wide.sum() + self.number + self.short.float() + self.mask.sum()
            return x + self.matrix.sum() + self.part.sum() + self.empty.sum() + mixed

    module = Shared()
    archive = read_archive(pt2(module, (2, 3)), "shared.pt2")
    for name, tensor in module.state_dict().items():
        assert archive.tensors[name].dtype == tensor.dtype
        assert torch.equal(archive.tensors[name], tensor)


def saved_by_torch_save() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, file)
    return file.getvalue()


def older_pt2() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("version", "8.1")
        archive.writestr("serialized_exported_program.json", "{}")
    return file.getvalue()


def torchscript() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", b"")
    return file.getvalue()


FOREIGN = {
    "torch.save": (saved_by_torch_save(), "torch.save"),
    "older": (older_pt2(), "before 2.8"),
    "TorchScript": (torchscript(), "TorchScript"),
    "other zip": (packed({"hello.txt": b"hello"}), "another kind"),
    "empty zip": (packed({}), "another kind"),
    "text": (b"hello", "not a .pt2 file"),
    "nothing": (b"", "not a .pt2 file"),
}


@pytest.mark.parametrize(("data", "words"), FOREIGN.values(), ids=FOREIGN)
def test_other_files_are_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        open_model(data)
    message = str(caught.value)
    assert "torch.export.save" in message
    assert len(message.splitlines()) == 1


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pt2"
    for path in (missing, tmp_path, f"file://{missing}", "nowhere://x/model.pt2"):
        with pytest.raises(ModelError, match=str(path)) as caught:
            open_model(path)
        assert len(str(caught.value).splitlines()) == 1


def test_credentials_in_an_address_are_not_shown() -> None:
    with pytest.raises(ModelError, match=r"nowhere://host/model\.pt2") as caught:
        open_model("nowhere://user:hunter22@host/model.pt2?token=hunter33")
    assert "hunter" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_opens_paths_addresses_and_bytes_alike(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plain.pt2"
    path.write_bytes(plain)
    models = [open_model(source) for source in (path, str(path), f"file://{path}", plain)]
    assert len({model.fingerprint for model in models}) == 1
    assert len({model.network.fingerprint for model in models}) == 1
    assert models[0].source == str(path)


def test_compressed_records_are_refused() -> None:
    zeros = packed({"archive_format": b"pt2", GRAPH: bytes(1 << 24)}, zipfile.ZIP_DEFLATED)
    assert len(zeros) < 1 << 16
    with pytest.raises(UnsafeModelError, match="compressed"):
        open_model(zeros)


def test_records_that_stand_twice_are_refused(plain: bytes) -> None:
    items = [*records(plain).items()]
    with pytest.warns(UserWarning, match="Duplicate name"):
        double = packed([*items, (GRAPH, b"{}")])
    with pytest.raises(UnsafeModelError, match="twice"):
        open_model(double)


def test_records_that_lie_in_one_another_are_refused(plain: bytes) -> None:
    content = bytearray(packed({**records(plain), "extra/a": b"0" * 64, "extra/b": b"0" * 64}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first, second = (archive.getinfo(f"archive/extra/{name}") for name in "ab")
    directory = content.rindex(b"archive/extra/b") - 46
    content[directory + 42 : directory + 46] = first.header_offset.to_bytes(4, "little")
    assert second.header_offset != first.header_offset
    with pytest.raises(ModelError):
        open_model(bytes(content))


@pytest.mark.parametrize(
    ("sizes", "strides"),
    [
        ([1 << 40, 2, 3, 3], [18, 9, 3, 1]),
        ([1 << 40, 2, 3, 3], [0, 0, 0, 0]),
        ([4, 2, 3, 3], [1 << 50, 9, 3, 1]),
        ([0, 1 << 62], [1, 1]),
        ([-4, 2, 3, 3], [18, 9, 3, 1]),
        ([4, 2, 3, 3], [-18, 9, 3, 1]),
        ([4, 2, 3], [18, 9, 3, 1]),
    ],
)
def test_tensors_of_absurd_shapes_are_refused(
    plain: bytes, sizes: list[int], strides: list[int]
) -> None:
    def edit(table: Any) -> None:
        meta = table["config"]["conv.weight"]["tensor_meta"]
        meta["sizes"] = [{"as_int": size} for size in sizes]
        meta["strides"] = [{"as_int": stride} for stride in strides]

    with pytest.raises(ModelError):
        open_model(edited(plain, WEIGHTS, edit))


@pytest.mark.parametrize("is_read", [True, False])
def test_constants_that_fill_the_memory_are_not_computed(plain: bytes, is_read: bool) -> None:
    def edit(program: Any) -> None:
        graph = program["graph_module"]["graph"]
        graph["nodes"].insert(
            0,
            {
                "target": "torch.ops.aten.ones.default",
                "inputs": [{"name": "size", "arg": {"as_ints": [1 << 20, 1 << 20]}, "kind": 1}],
                "outputs": [{"as_tensor": {"name": "large"}}],
                "metadata": {},
                "name": "large",
            },
        )
        graph["tensor_values"]["large"] = graph["tensor_values"]["x"]
        if is_read:
            relu = next(n for n in graph["nodes"] if n["target"] == "torch.ops.aten.relu.default")
            relu["target"] = "torch.ops.aten.add.Tensor"
            other = {"name": "other", "arg": {"as_tensor": {"name": "large"}}, "kind": 1}
            relu["inputs"].append(other)

    data = edited(plain, GRAPH, edit)
    if is_read:
        with pytest.raises(ModelError, match=r"'large' takes .* bytes"):
            open_model(data)
    else:
        open_model(data)


def test_another_version_of_the_format_is_refused(plain: bytes) -> None:
    def edit(program: Any) -> None:
        program["schema_version"]["major"] = 9

    with pytest.raises(ModelError, match="version 9 of the export format"):
        open_model(edited(plain, GRAPH, edit))


def test_deeply_nested_json_is_refused(plain: bytes) -> None:
    nested = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    with pytest.raises(ModelError):
        open_model(packed({**records(plain), GRAPH: nested}))


def test_a_flipped_bit_in_the_weights_is_found(plain: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        info = archive.getinfo("archive/data/weights/weight_0")
    content = bytearray(plain)
    place = plain.index(records(plain)["data/weights/weight_0"], info.header_offset)
    content[place + 5] ^= 1
    with pytest.raises(ModelError, match="weight_0"):
        open_model(bytes(content))


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_open_or_are_refused_in_words(data: st.DataObject) -> None:
    content = bytearray(plain_file())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    with contextlib.suppress(ModelError):
        open_model(bytes(content[:cut]))


JUNK = st.sampled_from([None, -1, 0, 1 << 70, 2.5, "x", "relu", [], {}, True, {"as_int": 3}])


@settings(max_examples=150)
@given(data=st.data())
def test_odd_json_opens_or_is_refused_in_words(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([GRAPH, WEIGHTS, CONSTANTS]))
    program = json.loads(records(plain_file())[name])
    value: Any = program
    while isinstance(value, (dict, list)) and value:
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from(list(keys)))
        inner = value[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.integers(0, 3)) == 0:
            value[key] = data.draw(JUNK)
            break
        value = inner
    hostile = packed({**records(plain_file()), name: json.dumps(program).encode()})
    with contextlib.suppress(FcdccError):
        open_model(hostile)


OUTSIDE = [
    "../../outside",
    "data/weights/../../../outside",
    "/tmp/outside",
    "data/../models/model.json",
    "..",
    "data\\..\\..\\outside",
    "a\0b",
    "x" * 5000,
]


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: name[:20].replace("\0", "0"))
def test_names_that_lead_out_of_the_file_write_and_read_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "outside").write_bytes(b"not part of the model")
    inner = tmp_path / "here" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    file = inner / "model.pt2"
    file.write_bytes(packed({**records(plain_file()), name: b"\x7fELF"}))
    with contextlib.suppress(ModelError):
        open_model(file)

    def point_outside(config: Any) -> None:
        next(iter(config["config"].values()))["path_name"] = f"weight_/../{name}"

    file.write_bytes(edited(plain_file(), WEIGHTS, point_outside))
    with pytest.raises(ModelError):
        open_model(file)
    file.unlink()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_link_in_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * 2 * 9 * 4))
    contents = records(plain_file())
    config = json.loads(contents[WEIGHTS])["config"]
    linked = "data/weights/" + config["conv.weight"]["path_name"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            if name == linked:
                info = zipfile.ZipInfo(f"archive/{name}")
                info.external_attr = 0o120777 << 16
                archive.writestr(info, str(tmp_path / "secret"))
            else:
                archive.writestr(f"archive/{name}", content)
    with pytest.raises(ModelError, match=r"needs .* bytes"):
        open_model(file.getvalue())
