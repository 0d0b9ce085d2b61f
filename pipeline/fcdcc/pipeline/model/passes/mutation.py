"""Replaces steps that change their arguments by steps that do not.

Stages run on different machines, and Dask keeps values for several readers, so no step may
change its arguments. ``y = relu_(x)`` becomes ``y = relu(x)``, and later steps that read x
read y instead.

Views need more: after ``v = x[:, :4]; v.relu_()`` a step that reads x must see the change. So
each value is described as a piece of memory and the chain of views that leads to it. A change
through a view is carried back along the chain (``slice_scatter`` inverts ``slice``) into a new
version of the memory, and other views of that memory are made again from the new version when
they are next read::

    x -- slice --> v        v' = relu(v);  x' = slice_scatter(x, v')
    x -- select --> w      w' = select(x'), made when w is read again

Several operators return a view or a copy depending on the layout in memory. There the layout
that the export recorded decides, if it recorded enough. Otherwise nothing is guessed: if the
difference matters, :class:`AliasError` is raised.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ...errors import ModelError
from ..budget import ImportBudget
from ..network import Ref, Step
from ..operators import (
    bound_arguments,
    is_functional,
    is_number,
    may_alias,
    resolve,
    words,
    written_arguments,
)
from ..pt2.program import TensorMeta
from ..rewriting import NameSource, substitute

# These change the shape of a tensor object, not its memory.
SHAPE_ONLY = words("squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_")

# Whether a step's result is the memory of its first argument.
Sharing: TypeAlias = Literal["same", "new", "doubtful"]

_VIEWS = words(
    """
    aten.alias.default aten.detach.default aten.slice.Tensor aten.select.int
    aten.narrow.default aten.unsqueeze.default aten.squeeze.default aten.squeeze.dim
    aten.squeeze.dims aten.transpose.int aten.swapaxes.default aten.swapdims.default
    aten.t.default aten.permute.default aten.view.default aten.expand.default
    aten.diagonal.default aten.movedim.int aten.movedim.intlist aten.unfold.default
    """
)
_LISTS_OF_VIEWS = words(
    """
    aten.chunk.default aten.split.Tensor aten.split.sizes aten.split_with_sizes.default
    aten.unbind.int aten.tensor_split.sections aten.tensor_split.indices
    """
)
# Views if the argument is contiguous, copies otherwise.
_VIEWS_IF_CONTIGUOUS = words(
    "aten.reshape.default aten.flatten.using_ints aten.unflatten.int aten.contiguous.default"
)
_CASTS = words("aten.to.dtype aten.type_as.default aten.to.device aten.to.dtype_layout")
# Inverted by a reshape to the earlier shape.
_RESHAPED = words(
    """
    aten.unsqueeze.default aten.squeeze.default aten.squeeze.dim aten.squeeze.dims
    aten.view.default aten.reshape.default aten.flatten.using_ints aten.unflatten.int
    """
)
_SAME_SHAPE = words("aten.alias.default aten.detach.default aten.contiguous.default") | _CASTS
_OWN_INVERSE = words(
    "aten.transpose.int aten.swapaxes.default aten.swapdims.default aten.t.default"
)
_SCATTERS = {
    "aten.slice.Tensor": "aten.slice_scatter.default",
    "aten.select.int": "aten.select_scatter.default",
    "aten.diagonal.default": "aten.diagonal_scatter.default",
}


class AliasError(ModelError):
    """Memory that is changed may be read under another name as well."""


@dataclass(eq=False)
class _Memory:
    """A piece of memory in its current version.

    ``doubtful`` holds memory that may or may not be the same; ``last_use`` is the index of the
    last step that reads a value in it.
    """

    name: str
    current: Ref
    version: int = 0
    last_use: int = -1
    owner: str | None = None
    doubtful: list[_Memory] = field(default_factory=list)


@dataclass(eq=False)
class _View:
    """A value: memory seen through a chain of views, and its name in one version of it.

    Each link of the chain is the step that made the view; its first argument is replaced.
    """

    memory: _Memory
    chain: tuple[Step, ...]
    ref: Ref
    version: int


def functional_steps(
    steps: Sequence[Step],
    own_tensors: Collection[str],
    metas: Mapping[str, TensorMeta],
    output: str,
    budget: ImportBudget,
) -> tuple[list[Step], str, Mapping[str, TensorMeta]]:
    """Return the steps without any that changes its arguments.

    The output's name now and what is known about each value now are returned too.

    Parameters
    ----------
    steps, metas, output
        Of a program; see :class:`fcdcc.pipeline.model.pt2.program.Program`.
    own_tensors
        The model's parameters and buffers, which no step may change.
    budget
        How many steps there may be.

    Raises
    ------
    AliasError
        If it is unknown which other values a change would reach.
    ModelError
        If a step changes the model's own tensors, or has no form that leaves its arguments
        unchanged.
    """
    if all(is_functional(step.op) for step in steps):
        return list(steps), output, metas
    rewriter = _Rewriter(steps, own_tensors, metas, output, budget)
    for index, step in enumerate(steps):
        rewriter.rewrite(index, step)
    return rewriter.steps, rewriter.read(output).name, rewriter.metas


class _Rewriter:
    def __init__(
        self,
        steps: Sequence[Step],
        own_tensors: Collection[str],
        metas: Mapping[str, TensorMeta],
        output: str,
        budget: ImportBudget,
    ) -> None:
        self.steps: list[Step] = []
        self.budget = budget
        self.own_tensors = own_tensors
        self.metas = dict(metas)
        self.names = NameSource(name for step in steps for name in (step.name, *step.references))
        self.values: dict[str, _View] = {}
        self.last_use: dict[str, int] = {}
        for index, step in enumerate(steps):
            self.last_use.update(dict.fromkeys(step.references, index))
        self.last_use[output] = len(steps)

    def rewrite(self, index: int, step: Step) -> None:
        """Append the functional form of one step."""
        if not is_functional(step.op):
            self._change(index, step)
            return
        made = self._emit(step)
        kind = _sharing(step, self.metas)
        sources = [self._view(name) for name in step.references]
        member = step.op == "operator.getitem"
        if kind == "same" or (member and _is_list_of_views(sources[0])):
            self._add(step.name, sources[0].memory, (*sources[0].chain, made))
            return
        memory = self._add(step.name, _Memory(step.name, Ref(step.name)), ()).memory
        if kind == "doubtful" or (member and sources[0].memory.doubtful):
            for source in sources:
                memory.doubtful.append(source.memory)
                source.memory.doubtful.append(memory)

    def _change(self, index: int, step: Step) -> None:
        """Append the functional form of a step that changes its first argument."""
        target = step.args[0] if step.args else None
        functional = _functional_name(step.op)
        if not isinstance(target, Ref) or functional is None:
            raise ModelError(
                f"the model uses {step.op}, which changes its arguments and has no form that does "
                "not; expected operators such as relu_ or add_"
            )
        view = self._view(target.name)
        if step.op.split(".")[1] in SHAPE_ONLY:
            made = self._emit(step, functional)
            view.chain = (*view.chain, made)
            view.ref = Ref(made.name)
        else:
            self._check(index, step, view.memory)
            view.ref = self._changed(step, functional, target)
            view.memory.current = self._carried_back(step, view)
            view.memory.version += 1
            view.version = view.memory.version
        self.values[step.name] = view
        last_use = self.last_use.get(step.name, -1)
        view.memory.last_use = max(view.memory.last_use, last_use)

    def _check(self, index: int, step: Step, memory: _Memory) -> None:
        if memory.owner is not None:
            raise ModelError(
                f"the model changes its own tensor {memory.owner!r} as it runs ({step.op}); "
                "expected a network that computes the same each time: call model.eval() before "
                "the export, or take that step out"
            )
        seen, pending = {id(memory)}, [*memory.doubtful]
        while pending:
            other = pending.pop()
            if id(other) in seen:
                continue
            seen.add(id(other))
            self.budget.take_steps()
            pending.extend(other.doubtful)
            if other.last_use > index:
                raise AliasError(_unknown_alias(step))

    def _changed(self, step: Step, functional: str, target: Ref) -> Ref:
        """Append the functional form, and a cast where its result has a wider type."""
        own = self.metas.get(target.name)
        others = [self.metas[name] for name in step.references if name in self.metas]
        if own is None or all(meta.dtype == own.dtype for meta in others):
            return Ref(self._emit(step, functional).name)
        wide = self._emit(step, functional, self.names.fresh(f"{step.name}_wide"))
        self.steps.append(Step(step.name, "aten.to.dtype", (Ref(wide.name), own.dtype), {}))
        return Ref(step.name)

    def _carried_back(self, step: Step, view: _View) -> Ref:
        """Append the steps that write a changed view back; return the memory's new version."""
        sources = [view.memory.current]
        originals = [view.memory.name, *(link.name for link in view.chain)]
        for link in view.chain[:-1]:
            sources.append(self._again(link, sources[-1]))
        after = view.ref
        for place in reversed(range(len(view.chain))):
            self.budget.take_steps()
            name = self._fresh_like(f"{step.name}_base", originals[place])
            back = _write_back(view.chain[place], sources[place], after, name)
            if back is None:
                raise AliasError(_unknown_alias(step))
            self.steps.append(back)
            after = Ref(name)
        return after

    def read(self, name: str) -> Ref:
        """Return the current name of a value; it is made again if its memory has changed."""
        view = self._view(name)
        if view.version != view.memory.version:
            view.ref = view.memory.current
            for link in view.chain:
                view.ref = self._again(link, view.ref)
            view.version = view.memory.version
        return view.ref

    def _again(self, link: Step, source: Ref) -> Ref:
        self.budget.take_steps()
        name = self._fresh_like(link.name, link.name)
        self.steps.append(Step(name, link.op, (source, *link.args[1:]), link.kwargs))
        return Ref(name)

    def _fresh_like(self, name: str, like: str) -> str:
        """Return a fresh name for a value of the same shape and type as another."""
        fresh = self.names.fresh(name)
        if like in self.metas:
            self.metas[fresh] = self.metas[like]
        return fresh

    def _emit(self, step: Step, op: str | None = None, name: str | None = None) -> Step:
        """Append a step that reads the current versions of its arguments."""

        def now(ref: Ref) -> Ref:
            return self.read(ref.name)

        args, kwargs = substitute(step.args, now), substitute(step.kwargs, now)
        made = Step(name or step.name, op or step.op, args, kwargs)
        self.steps.append(made)
        return made

    def _view(self, name: str) -> _View:
        if name not in self.values:  # an input or a tensor of the model
            view = self._add(name, _Memory(name, Ref(name)), ())
            view.memory.owner = name if name in self.own_tensors else None
        return self.values[name]

    def _add(self, name: str, memory: _Memory, chain: tuple[Step, ...]) -> _View:
        self.values[name] = _View(memory, chain, Ref(name), memory.version)
        memory.last_use = max(memory.last_use, self.last_use.get(name, -1))
        return self.values[name]


def _is_list_of_views(view: _View) -> bool:
    return bool(view.chain) and _returns_views(view.chain[-1].op)


def _unknown_alias(step: Step) -> str:
    return (
        f"{step.name!r} ({step.op}) changes memory that may be read under another name; export the "
        "model as torch.export.export(...).run_decompositions({}), which takes such changes apart"
    )


def _functional_name(op: str) -> str | None:
    """Return the operator that writes the same result to new memory; None if there is none."""
    namespace, packet, overload = op.split(".")
    if not packet.endswith("_") or written_arguments(op) != ("self",):
        return None
    name = f"{namespace}.{packet.removesuffix('_')}.{overload}"
    try:
        resolve(name)
    except ModelError:
        return None
    return name if is_functional(name) else None


def _returns_views(op: str) -> bool:
    """Return whether the operator returns a list of views of its first argument."""
    return op in _LISTS_OF_VIEWS


def _sharing(step: Step, metas: Mapping[str, TensorMeta]) -> Sharing:
    """Return whether a step's result is the memory of its first argument.

    Members of lists are not examined: ``operator.getitem`` counts as new.
    """
    if step.op in _VIEWS or step.op in _LISTS_OF_VIEWS:
        return "same"
    if step.op == "operator.getitem" or is_number(step.op) or not may_alias(step.op):
        return "new"
    source = step.args[0] if step.args else None
    before = metas.get(source.name) if isinstance(source, Ref) else None
    after = metas.get(step.name)
    if before is None or after is None:
        return "doubtful"
    if step.op in _CASTS and before.dtype != after.dtype:
        return "new"
    if step.op in _VIEWS_IF_CONTIGUOUS and len(step.kwargs) == 0:
        return "same" if is_contiguous(before) else "doubtful"
    return "doubtful"


def is_contiguous(meta: TensorMeta | None) -> bool:
    """Return whether a tensor is known to be contiguous in memory."""
    if meta is None:
        return False
    expected = 1
    for size, stride in zip(reversed(meta.sizes), reversed(meta.strides), strict=True):
        if size == 1:
            continue
        if stride != expected:
            return False
        # The size of the first axis does not enter any stride.
        expected = expected * size if isinstance(size, int) else -1
    return True


def _write_back(link: Step, before: Ref, after: Ref, name: str) -> Step | None:
    """Return the step that writes a changed view back into the value that it is a view of.

    Parameters
    ----------
    link
        The step that made the view.
    before
        The value that it is a view of, before the change.
    after
        The view, after the change.
    name
        The name of the result: ``before`` with the change in it.

    Returns
    -------
    The step, or None where this kind of view cannot be written back.
    """
    if link.op in _SAME_SHAPE:
        return Step(name, "aten.alias.default", (after,), {})
    if link.op in _RESHAPED:
        return Step(name, "aten.reshape_as.default", (after, before), {})
    if link.op in _OWN_INVERSE:
        return Step(name, link.op, (after, *link.args[1:]), link.kwargs)
    if link.op in _SCATTERS:
        return Step(name, _SCATTERS[link.op], (before, after, *link.args[1:]), link.kwargs)
    if link.op == "aten.narrow.default":
        given = bound_arguments(link)
        start, length = given["start"], given["length"]
        if not (isinstance(start, int) and isinstance(length, int) and start >= 0):
            return None
        args = (before, after, given["dim"], start, start + length)
        return Step(name, "aten.slice_scatter.default", args, {})
    if link.op == "aten.permute.default":
        dims = bound_arguments(link)["dims"]
        places = [dim % len(dims) for dim in dims]
        inverse = [places.index(axis) for axis in range(len(places))]
        return Step(name, link.op, (after, inverse), {})
    return None
