"""Nodes and tensors put into the graph of a model file, as no export would write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fcdcc.pipeline.model.operators import operator_name
from support.pt2 import GRAPH, WEIGHTS, packed, records

_TYPES = {
    torch.uint8: 1, torch.int32: 4, torch.int64: 5, torch.float16: 6, torch.float32: 7,
    torch.float64: 8, torch.complex64: 10, torch.bool: 12, torch.bfloat16: 13,
}  # fmt: skip


def value(name: str) -> dict[str, Any]:
    """Return a reference to a tensor."""
    return {"as_tensor": {"name": name}}


def number(name: str) -> dict[str, Any]:
    """Return a reference to a number that a node makes."""
    return {"as_sym_int": {"as_name": name}}


def _argument(given: Any) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    if given is None:
        return {"as_none": True}
    if isinstance(given, list):
        if None in given:
            return {"as_optional_tensors": [_argument(item) for item in given]}
        if given and isinstance(given[0], dict) and "as_tensor" in given[0]:
            return {"as_tensors": [item["as_tensor"] for item in given]}
        if given and any(isinstance(item, dict) for item in given):
            items = [
                item.get("as_sym_int", item) if isinstance(item, dict) else {"as_int": item}
                for item in given
            ]
            return {"as_sym_ints": items}
        kind = "as_floats" if given and isinstance(given[0], float) else "as_ints"
        return {kind: given}
    if isinstance(given, torch.device):
        return {"as_device": {"type": given.type, "index": None}}
    if isinstance(given, torch.dtype):
        return {"as_scalar_type": _TYPES[given]}
    kinds = {bool: "as_bool", int: "as_int", float: "as_float", str: "as_string"}
    return {kinds[type(given)]: given}


def node(op: str, name: str, *args: Any, makes: Sequence[Any] | None = None, **kwargs: Any) -> Any:
    """Return a node.

    Parameters
    ----------
    op
        ``aten.relu.default`` or ``operator.mul``.
    name
        What it makes.
    args
        By position in the operator's schema; tensors by :func:`value`.
    makes
        Its outputs, if they are not one tensor.
    """
    names = [f"argument{place}" for place in range(len(args))]
    if op.startswith("aten."):
        _, packet, overload = op.split(".")
        found = getattr(getattr(torch.ops.aten, packet), overload)._schema
        names = [argument.name for argument in found.arguments]
        target = f"torch.ops.{op}"
    else:
        target = f"_{op}" if op.startswith("operator.") else op
    assert operator_name(target) == op
    given = [(names[place], argument, 1) for place, argument in enumerate(args)]
    given += [(key, argument, 2) for key, argument in kwargs.items()]
    return {
        "target": target,
        "inputs": [{"name": n, "arg": _argument(a), "kind": kind} for n, a, kind in given],
        "outputs": [value(name)] if makes is None else list(makes),
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": name,
    }


def with_nodes(
    data: bytes,
    nodes: Sequence[Any],
    tensors: Mapping[str, torch.Tensor] | None = None,
    feeds: Mapping[str, str] | None = None,
    recorded: Mapping[str, str] | None = None,
) -> bytes:
    """Return a model file with more nodes.

    Parameters
    ----------
    nodes
        They stand where the first of the values in ``feeds`` is read, or first.
    tensors
        Buffers of the model that the nodes read.
    feeds
        Values of the model, and those that are read in their place after the nodes.
    recorded
        Values of the nodes, and those of the model whose shape and type the file records for
        them.
    """
    contents = records(data)
    program, table = json.loads(contents[GRAPH]), json.loads(contents[WEIGHTS])
    graph = program["graph_module"]["graph"]
    for name, tensor in (tensors or {}).items():
        entry = json.loads(json.dumps(next(iter(table["config"].values()))))
        path = f"weight_{len(table['config'])}_more"
        contents[f"data/weights/{path}"] = _raw(tensor)
        entry.update(path_name=path, is_param=False, use_pickle=False)
        entry["tensor_meta"].update(
            dtype=_TYPES[tensor.dtype],
            sizes=[{"as_int": size} for size in tensor.shape],
            strides=[{"as_int": step} for step in tensor.contiguous().stride()],
            storage_offset={"as_int": 0},
        )
        table["config"][name] = entry
        graph["inputs"].insert(0, value(name))
        graph["tensor_values"][name] = entry["tensor_meta"]
        spec = {"buffer": {"arg": {"name": name}, "buffer_name": name, "persistent": True}}
        program["graph_module"]["signature"]["input_specs"].insert(0, spec)
    place = 0
    if feeds:
        makers = [
            index
            for index, made in enumerate(graph["nodes"])
            if any(made["outputs"] == [value(old)] for old in feeds)
        ]
        place = makers[0] + 1 if makers else 0
        for old, new in feeds.items():
            text = json.dumps([graph["nodes"][place:], graph["outputs"]])
            text = text.replace(f'"name": "{old}"', f'"name": "{new}"')
            graph["nodes"][place:], graph["outputs"] = json.loads(text)
    graph["nodes"][place:place] = list(nodes)
    for name, like in (recorded or {}).items():
        graph["tensor_values"][name] = graph["tensor_values"][like]
    contents[GRAPH] = json.dumps(program).encode()
    contents[WEIGHTS] = json.dumps(table).encode()
    return packed(contents)


def _raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
