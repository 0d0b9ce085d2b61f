"""An archive's graph as one sequence of steps.

The JSON of a ``.pt2`` file is a graph of named values, with graphs inside it where the model
used ``torch.no_grad()``. :func:`read_program` turns it into a :class:`Program`: steps in
order, the tensors that they read, the recorded type and shape of each value, and the names of
input and output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from ...errors import ModelError
from ..budget import ImportBudget
from ..network import Ref, Step
from ..operators import operator_name, schema
from ..rewriting import NameSource
from .archive import SCALAR_TYPES, Archive, Json, as_model_errors
from .checks import WRAPPERS
from .fixed_inputs import InputValue, ModelInput, checked_inputs, number_input
from .output_names import output_names

# Kinds of graph inputs that are tensors of the model, and where their name is.
_TENSOR_INPUTS = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}
# The value of each name of a graph: a Ref, a literal, or a list of these. Any, as in Step.args.
Scope: TypeAlias = dict[str, Any]

_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_STRIDED = 7
_POSITIONAL, _KEYWORD = 1, 2
# Kinds of arguments (torch._export.serde.schema.Argument) by how they are read.
_LITERALS = frozenset({"as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_int_lists"})
_SYMBOLS = frozenset({"as_sym_int", "as_sym_float", "as_sym_bool"})
_SYMBOL_LISTS = frozenset({"as_sym_ints", "as_sym_floats", "as_sym_bools"})
_LISTS = frozenset({"as_tensors", "as_ints", "as_floats", "as_strings", "as_bools"}) | _SYMBOL_LISTS


@dataclass(frozen=True)
class TensorMeta:
    """What the export recorded about a tensor.

    ``sizes`` and ``strides`` hold numbers, and expressions as text for those that are not fixed;
    equal texts are equal numbers.
    """

    sizes: tuple[int | str, ...]
    dtype: torch.dtype
    strides: tuple[int | str, ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """A model as a sequence of steps.

    Parameters
    ----------
    steps
        In an order in which they can run. Some may change their arguments.
    input
        The name of the images.
    outputs
        The values that the model returns, by the names of its outputs.
    left_out
        Why something else that it returns cannot be an output, by name.
    tensors
        Parameters, buffers and constants by the name that steps use.
    metas
        The recorded type and shape of each tensor value.
    modules
        The path of the module, such as ``layer1.0.conv2``, that a step came from.
    """

    steps: tuple[Step, ...]
    input: str
    outputs: Mapping[str, str]
    left_out: Mapping[str, str]
    tensors: Mapping[str, torch.Tensor]
    metas: Mapping[str, TensorMeta] = field(repr=False)
    modules: Mapping[str, str] = field(repr=False)


def read_program(
    archive: Archive,
    source: str,
    budget: ImportBudget,
    inputs: Mapping[str, InputValue] | None = None,
) -> Program:
    """Return the model in an archive.

    ``inputs`` are the values of numbers that it takes beside the images.

    Raises
    ------
    ModelError
        If it has several inputs, returns no tensor, changes its own buffers, or uses something that
        cannot be run here.
    """
    program: Program = as_model_errors(source, _read, archive, budget, inputs or {})
    return program


def _read(archive: Archive, budget: ImportBudget, given: Mapping[str, InputValue]) -> Program:
    module = archive.program["graph_module"]
    graph = module["graph"]
    taken = {*graph["tensor_values"], *(str(node.get("name")) for node in graph["nodes"])}
    scope, tensors, images = _read_inputs(archive, module, taken, given)
    reader = _GraphReader({*tensors, images}, budget)
    reader.read(graph, scope)
    outputs, left_out = _read_outputs(module, scope)
    return Program(
        steps=tuple(reader.steps),
        input=images,
        outputs=outputs,
        left_out=left_out,
        tensors=tensors,
        metas=reader.metas,
        modules=reader.modules,
    )


def _read_inputs(
    archive: Archive, module: Json, taken: set[str], given: Mapping[str, InputValue]
) -> tuple[Scope, dict[str, torch.Tensor], str]:
    """Return the values of the graph's inputs, its tensors, and the name of its images."""
    specs, metas = module["signature"]["input_specs"], module["graph"]["tensor_values"]
    scope: Scope = {}
    tensors: dict[str, torch.Tensor] = {}
    inputs: list[ModelInput] = []
    names = NameSource(taken)
    for spec in specs:
        ((kind, entry),) = spec.items()
        if kind in _TENSOR_INPUTS:
            full_name = str(entry[_TENSOR_INPUTS[kind]])
            if full_name not in archive.tensors:
                raise ModelError(f"the file has no values for {full_name!r}: it is incomplete")
            name = names.fresh(full_name)
            tensors[name] = archive.tensors[full_name]
            scope[str(entry["arg"]["name"])] = Ref(name)
        elif kind == "user_input" and "as_tensor" in entry["arg"]:
            name = str(entry["arg"]["as_tensor"]["name"])
            meta = _tensor_meta(metas[name])
            inputs.append(ModelInput(name, meta.dtype, meta.sizes))
            scope[name] = Ref(name)
        elif kind == "constant_input":
            ((form, value),) = entry["value"].items()
            literal = float(value) if form == "as_float" else value
            scope[str(entry["name"])] = None if form == "as_none" else literal
        elif kind == "user_input" and not any(key.startswith("as_sym") for key in entry["arg"]):
            continue  # a literal, which the export has inserted where it is used
        elif kind == "user_input":
            ((form, value),) = entry["arg"].items()
            inputs.append(number_input(str(value["as_name"]), form))
        else:
            raise ModelError(
                f"the model takes an input of the kind {kind}, {entry!r:.80}; expected one tensor "
                "of images, and numbers beside it"
            )
    images, values = checked_inputs(inputs, given)
    for item in inputs:
        if item.name in values:
            if item.sizes is None:
                scope[item.name] = values[item.name].item()
            else:
                tensors[item.name] = values[item.name]
    return scope, tensors, images


def _read_outputs(module: Json, scope: Scope) -> tuple[dict[str, str], dict[str, str]]:
    """Return the values that a model returns by their names, and why others are no outputs."""
    returned = _returned(module["graph"], module["signature"]["output_specs"])
    outputs: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, item in zip(output_names(_output_tree(module), len(returned)), returned, strict=True):
        value = _read_argument(item, scope)
        if isinstance(value, Ref) and "as_tensor" in item:
            outputs[name] = value.name
        elif value is not None:
            left_out[name] = "it is a number"
    if not outputs:
        raise ModelError("the model returns no tensor; expected one, the prediction, or several")
    return outputs, left_out


def _output_tree(module: Json) -> Json:
    """Return the description of the form in which a model returns its outputs, if there is one."""
    try:
        return module["module_call_graph"][0]["signature"]["out_spec"]
    except (LookupError, TypeError):
        return None


def _returned(graph: Json, specs: Json) -> list[Json]:
    """Return what a model returns, in order."""
    found = []
    for spec, output in zip(specs, graph["outputs"], strict=True):
        ((kind, entry),) = spec.items()
        if kind in ("buffer_mutation", "parameter_mutation"):
            raise ModelError(
                f"the model changes its own {kind.split('_')[0]} "
                f"{entry[kind.replace('mutation', 'name')]!r} as it runs; expected a network that "
                "computes the same each time: call model.eval() before the export, or take that "
                "step out"
            )
        if kind == "user_output":
            found.append(output)
    return found


class _GraphReader:
    """Collects the steps of a graph and of the graphs inside it."""

    def __init__(self, used: set[str], budget: ImportBudget) -> None:
        self._budget = budget
        self._depth = 0
        self.steps: list[Step] = []
        self.metas: dict[str, TensorMeta] = {}
        self.modules: dict[str, str] = {}
        self._names = NameSource(used)

    def read(self, graph: Json, scope: Scope) -> None:
        """Append the steps of one graph, and add the values of its names to ``scope``."""
        for name, value in scope.items():
            if isinstance(value, Ref) and name in graph["tensor_values"]:
                self.metas.setdefault(value.name, _tensor_meta(graph["tensor_values"][name]))
        self._budget.take_steps(len(graph["nodes"]))
        self._budget.enter(self._depth)
        for node in graph["nodes"]:
            op = operator_name(str(node["target"]))
            if op in WRAPPERS:
                self._inline(op, node, scope)
            else:
                self._append(op, node, graph, scope)

    def _append(self, op: str, node: Json, graph: Json, scope: Scope) -> None:
        args, kwargs = _read_arguments(op, node["inputs"], scope)
        outputs = node["outputs"]
        single = len(outputs) == 1 and not isinstance(_content(outputs[0]), list)
        name = _defined_name(outputs[0]) if single else None
        own = self._names.fresh(name or node.get("name") or op.split(".")[1])
        self.steps.append(Step(own, op, args, kwargs))
        self._remember_module(own, node)
        if name is not None:
            self._define(name, own, graph, scope)
        elif not single:
            items = _content(outputs[0]) if len(outputs) == 1 else outputs
            self._unpack(own, items, graph, scope)

    def _unpack(self, whole: str, items: Json, graph: Json, scope: Scope) -> None:
        """Name the members of a result that is a tuple or a list."""
        for index, item in enumerate(items):
            inner = _content(item) if set(item) & _LISTS else None
            name = _defined_name(item)
            own = self._names.fresh(name or f"{whole}_{index}")
            self.steps.append(Step(own, "operator.getitem", (Ref(whole), index), {}))
            if inner is not None:
                self._unpack(own, inner, graph, scope)
            elif name is not None:
                self._define(name, own, graph, scope)

    def _define(self, name: str, own: str, graph: Json, scope: Scope) -> None:
        scope[name] = Ref(own)
        meta = graph["tensor_values"].get(name)
        if meta is not None:
            self.metas[own] = _tensor_meta(meta)

    def _inline(self, op: str, node: Json, scope: Scope) -> None:
        """Append the steps of an inner graph instead of the node that wraps it."""
        arguments = [entry["arg"] for entry in node["inputs"]]
        place = next(i for i, item in enumerate(arguments) if "as_graph" in item)
        if op.endswith("autocast") and _content(arguments[2]) is not False:
            raise ModelError(
                "the model computes under torch.autocast, in a precision of its own; expected one "
                "precision throughout: leave autocast out when exporting"
            )
        graph = arguments[place]["as_graph"]["graph"]
        inner: Scope = {}
        for formal, actual in zip(graph["inputs"], arguments[place + 1 :], strict=True):
            name = _defined_name(formal)
            if name is not None:
                inner[name] = _read_argument(actual, scope)
        self._depth += 1
        self.read(graph, inner)
        self._depth -= 1
        outputs = node["outputs"]
        if len(outputs) == 1 and isinstance(_content(outputs[0]), list):
            outputs = _content(outputs[0])
        for outer, result in zip(outputs, graph["outputs"], strict=True):
            name = _defined_name(outer)
            if name is not None:
                scope[name] = _read_argument(result, inner)

    def _remember_module(self, step: str, node: Json) -> None:
        stack = str(node.get("metadata", {}).get("nn_module_stack", ""))
        parts = stack.rsplit(";", 1)[-1].split(",")
        if len(parts) >= 3 and parts[1] and "_from_metadata_hook" not in parts[1]:
            self.modules[step] = parts[1]


def _tensor_meta(meta: Json) -> TensorMeta:
    return TensorMeta(
        sizes=tuple(_extent(size) for size in meta["sizes"]),
        dtype=SCALAR_TYPES[meta["dtype"]],
        strides=tuple(_extent(stride) for stride in meta["strides"]),
    )


def _extent(size: Json) -> int | str:
    return int(size["as_int"]) if "as_int" in size else str(size["as_expr"]["expr_str"])


def _content(item: Json) -> Json:
    """Return the content of a JSON union, ``{"as_tensor": content}``."""
    ((_, inner),) = item.items()
    return inner


def _defined_name(item: Json) -> str | None:
    """Return the name that an output or a formal input defines; None if it defines none."""
    if "name" in item:
        return str(item["name"])
    if "as_name" in item:
        return str(item["as_name"])
    ((kind, inner),) = item.items()
    if kind == "as_tensor" or (kind.startswith("as_sym") and kind not in _LISTS):
        return _defined_name(inner)
    return None


def _read_arguments(op: str, inputs: Json, scope: Scope) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an operator's positional and keyword arguments."""
    found = schema(op)
    given = {str(entry["name"]): entry for entry in inputs}
    if found is None or len(given) < len(inputs):
        return tuple(_read_argument(entry["arg"], scope) for entry in inputs), {}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for formal in found.arguments:
        if formal.name not in given:
            continue
        entry = given.pop(formal.name)
        kind = entry.get("kind")
        if kind is None:
            plain = not formal.has_default_value() and not formal.kwarg_only
            kind = _POSITIONAL if plain else _KEYWORD
        if kind == _POSITIONAL:
            args.append(_read_argument(entry["arg"], scope))
        else:
            kwargs[formal.name] = _read_argument(entry["arg"], scope)
    if given:
        raise ModelError(
            f"{op} has no argument {next(iter(given))!r} in PyTorch {torch.__version__}"
        )
    return tuple(args), kwargs


def _read_argument(item: Json, scope: Scope) -> Any:
    """Return one argument: a literal, a Ref, or a list of these."""
    ((kind, value),) = item.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return scope[value["name"]]
    if kind in ("as_tensors", "as_nested_tensors"):
        return _named(value, scope)
    if kind == "as_optional_tensor":
        return _read_argument(value, scope)
    if kind == "as_optional_tensors":
        return [_read_argument(item, scope) for item in value]
    if kind in _SYMBOLS:
        return _symbol(value, scope)
    if kind in _SYMBOL_LISTS:
        return [_symbol(item, scope) for item in value]
    if kind in _LITERALS:
        return value
    if kind == "as_float":
        return float(value)
    if kind == "as_floats":
        return [float(item) for item in value]
    if kind == "as_complex":
        return complex(float(value["real"]), float(value["imag"]))
    if kind == "as_scalar_type":
        return SCALAR_TYPES[value]
    if kind == "as_memory_format":
        return _MEMORY_FORMATS[value]
    if kind == "as_layout" and value == _STRIDED:
        return torch.strided
    if kind == "as_device":
        return torch.device("cpu")
    raise ModelError(f"an operator has an argument of the kind {kind}, which cannot be run here")


def _named(value: Json, scope: Scope) -> Any:
    if isinstance(value, list):
        return [_named(item, scope) for item in value]
    return scope[value["name"]]


def _symbol(value: Json, scope: Scope) -> Any:
    ((kind, inner),) = value.items()
    if kind == "as_name":
        return scope[inner]
    return float(inner) if kind == "as_float" else inner
