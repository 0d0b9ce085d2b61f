"""Steps that change their arguments become steps that do not.

Stages run on different machines, and Dask keeps values for several readers, so nothing may
change what it was given. ``y = relu_(x)`` becomes ``y = relu(x)``, and whoever reads x later
reads y.

Views make it harder: after ``v = x[:, :4]; v.relu_()`` a reader of x must see the change. So
each value is known as a piece of memory and the chain of views that leads to it. A change
through a view is carried back along the chain (``slice_scatter`` undoes ``slice``) into a new
version of the memory, and another view of that memory is made again from the new version
when it is next read::

    x -- slice --> v        v' = relu(v);  x' = slice_scatter(x, v')
    x -- select --> w      w' = select(x'), made when w is read again

Where it cannot be known whether an operator returned a view or a copy, nothing is guessed: if
it matters, :class:`AliasError` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import ModelError
from ..network import Ref, Step
from ..operators import is_functional, resolve, words, written_arguments
from ..pt2.program import TensorMeta
from ..rewriting import NameSource, substitute
from .views import carried_back, is_list_of_views, sharing

# These change what a tensor says about its shape, not its memory.
SHAPE_ONLY = words("squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_")


class AliasError(ModelError):
    """Memory that is changed may be read under another name as well."""


@dataclass(eq=False)
class _Memory:
    """A piece of memory in its current version.

    ``doubtful`` holds memory that may be the same, where nobody can know; ``last_use`` is
    the last step that reads a value in it.
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
) -> tuple[list[Step], str, Mapping[str, TensorMeta]]:
    """Return the steps without any that changes its arguments.

    The output's name now and what is known about each value now are returned too.

    Parameters
    ----------
    steps, metas, output
        Of a program; see :class:`fcdcc.pipeline.model.program.Program`.
    own_tensors
        The model's parameters and buffers, which nothing may change.

    Raises
    ------
    AliasError
        If it cannot be known what else a change would reach.
    ModelError
        If a step changes the model itself, or changes its arguments in a way that has no
        other form.
    """
    if all(is_functional(step.op) for step in steps):
        return list(steps), output, metas
    rewriter = _Rewriter(steps, own_tensors, metas, output)
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
    ) -> None:
        self.steps: list[Step] = []
        self.own_tensors = own_tensors
        self.metas = dict(metas)
        self.names = NameSource(name for step in steps for name in (step.name, *step.references))
        self.values: dict[str, _View] = {}
        self.last_use: dict[str, int] = {}
        for index, step in enumerate(steps):
            self.last_use.update(dict.fromkeys(step.references, index))
        self.last_use[output] = len(steps)

    def rewrite(self, index: int, step: Step) -> None:
        """Append what stands for one step."""
        if not is_functional(step.op):
            self._change(index, step)
            return
        made = self._emit(step)
        kind = sharing(step, self.metas)
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
        """Append what stands for a step that changes its first argument."""
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
                "the export"
            )
        seen, pending = {id(memory)}, [*memory.doubtful]
        while pending:
            other = pending.pop()
            if id(other) in seen:
                continue
            seen.add(id(other))
            pending.extend(other.doubtful)
            if other.last_use > index:
                raise AliasError(_unknown(step))

    def _changed(self, step: Step, functional: str, target: Ref) -> Ref:
        """Append the step in its other form, and a cast where that has a wider type."""
        own = self.metas.get(target.name)
        others = [self.metas[name] for name in step.references if name in self.metas]
        if own is None or all(meta.dtype == own.dtype for meta in others):
            return Ref(self._emit(step, functional).name)
        wide = self._emit(step, functional, self.names.fresh(f"{step.name}_wide"))
        self.steps.append(Step(step.name, "aten.to.dtype", (Ref(wide.name), own.dtype), {}))
        return Ref(step.name)

    def _carried_back(self, step: Step, view: _View) -> Ref:
        """Append the steps that put a changed view back; return the memory's new version."""
        sources = [view.memory.current]
        originals = [view.memory.name, *(link.name for link in view.chain)]
        for link in view.chain[:-1]:
            sources.append(self._again(link, sources[-1]))
        after = view.ref
        for place in reversed(range(len(view.chain))):
            name = self._fresh_like(f"{step.name}_base", originals[place])
            back = carried_back(view.chain[place], sources[place], after, name)
            if back is None:
                raise AliasError(_unknown(step))
            self.steps.append(back)
            after = Ref(name)
        return after

    def read(self, name: str) -> Ref:
        """Return the name that a value has now; it is made again if its memory has changed."""
        view = self._view(name)
        if view.version != view.memory.version:
            view.ref = view.memory.current
            for link in view.chain:
                view.ref = self._again(link, view.ref)
            view.version = view.memory.version
        return view.ref

    def _again(self, link: Step, source: Ref) -> Ref:
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
        """Append a step that reads the values of now."""

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
    return bool(view.chain) and is_list_of_views(view.chain[-1].op)


def _unknown(step: Step) -> str:
    return (
        f"{step.name!r} ({step.op}) changes memory that may be read under another name; export the "
        "model as torch.export.export(...).run_decompositions({}), which takes such changes apart"
    )


def _functional_name(op: str) -> str | None:
    """Return the operator that computes the same into new memory; None if there is none."""
    namespace, packet, overload = op.split(".")
    if not packet.endswith("_") or written_arguments(op) != ("self",):
        return None
    name = f"{namespace}.{packet.removesuffix('_')}.{overload}"
    try:
        resolve(name)
    except ModelError:
        return None
    return name if is_functional(name) else None
