"""Steps that change their arguments become steps that do not.

Stages run on different machines, and Dask keeps values for several readers, so nothing may
change what it was given. ``y = relu_(x)`` becomes ``y = relu(x)``, and whoever read x later
reads y. That is exact as long as nobody reads the same memory under another name: a view of
x that is read afterwards would miss the change. Such models are handed to PyTorch's own
functionalisation instead, see :mod:`fcdcc.pipeline.functionalise`.
"""

from __future__ import annotations

from .errors import ModelError
from .network import Ref, Step
from .operators import is_functional, may_alias, resolve, words, written_arguments
from .program import Program
from .rewriting import substitute

__all__ = ["AliasError", "functional_steps"]

# These change what a tensor says about its shape, not its memory: views do not notice.
_SHAPE_ONLY = words("detach_ squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ as_strided_")


class AliasError(ModelError):
    """Memory is changed and then read under another name."""


def functional_steps(program: Program) -> tuple[Step, ...]:
    """Return the program's steps without any that changes its arguments.

    Raises
    ------
    AliasError
        If that cannot be done step by step.
    ModelError
        If the model changes its own parameters or buffers.
    """
    if all(is_functional(step.op) for step in program.steps):
        return program.steps
    return tuple(_Rewriter(program).run())


class _Rewriter:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.last_use = {program.output: len(program.steps)}
        for index, step in enumerate(program.steps):
            for name in step.references:
                self.last_use[name] = max(index, self.last_use.get(name, 0))
        # The object that a name stands for, and what that object is called now.
        self.identity: dict[str, str] = {}
        self.current: dict[str, Ref] = {}
        # Values that may share memory: a forest, and the members under each root.
        self.parent: dict[str, str] = {}
        self.members: dict[str, list[str]] = {}

    def run(self) -> list[Step]:
        steps: list[Step] = []
        for index, step in enumerate(self.program.steps):
            written = written_arguments(step.op)
            if not written:
                steps.append(self._renamed(step, step.op))
                if may_alias(step.op):
                    for name in step.references:
                        self._unite(step.name, name)
                continue
            steps.extend(self._replaced(index, step, written))
        return steps

    def _renamed(self, step: Step, op: str) -> Step:
        return Step(
            step.name, op, substitute(step.args, self._now), substitute(step.kwargs, self._now)
        )

    def _now(self, ref: Ref) -> Ref:
        return self.current.get(self.identity.get(ref.name, ref.name), ref)

    def _replaced(self, index: int, step: Step, written: tuple[str, ...]) -> list[Step]:
        target = step.args[0] if step.args else None
        functional = _functional_name(step.op)
        if not isinstance(target, Ref) or written != ("self",) or functional is None:
            raise ModelError(
                f"the model uses {step.op}, which changes its arguments and has no form that "
                "does not; expected operators such as relu_ or add_"
            )
        own = self.identity.get(target.name, target.name)
        packet = step.op.split(".")[1]
        if packet not in _SHAPE_ONLY:
            self._check_unshared(index, step, own)
        self.identity[step.name] = own
        result = self._renamed(step, functional)
        self._unite(step.name, target.name)
        steps = self._with_own_dtype(result, target)
        self.current[own] = Ref(steps[-1].name)
        return steps

    def _check_unshared(self, index: int, step: Step, own: str) -> None:
        for name in self.members.get(self._root(own), [own]):
            if name in self.program.tensors:
                raise ModelError(
                    f"the model changes its own tensor {name!r} as it runs ({step.op}); expected "
                    "a network that computes the same each time: call model.eval() before the "
                    "export"
                )
            if self.identity.get(name, name) != own and self.last_use.get(name, -1) > index:
                raise AliasError(
                    f"{step.op} changes memory that is read afterwards as {name!r} as well"
                )

    def _with_own_dtype(self, result: Step, target: Ref) -> list[Step]:
        """Return the step, and a cast where the other arguments would widen its type."""
        metas = self.program.metas
        own = metas.get(target.name)
        others = [metas[name] for name in result.references if name in metas]
        if own is None or all(meta.dtype == own.dtype for meta in others):
            return [result]
        wide = Step(f"{result.name}.wide", result.op, result.args, result.kwargs)
        return [wide, Step(result.name, "aten.to.dtype", (Ref(wide.name), own.dtype), {})]

    def _root(self, name: str) -> str:
        while (above := self.parent.get(name, name)) != name:
            self.parent[name] = self.parent.get(above, above)
            name = above
        return name

    def _unite(self, one: str, other: str) -> None:
        first, second = self._root(one), self._root(other)
        if first == second:
            return
        members = [self.members.setdefault(root, [root]) for root in (first, second)]
        if len(members[0]) < len(members[1]):
            first, second = second, first
            members.reverse()
        members[0].extend(members[1])
        self.parent[second] = first


def _functional_name(op: str) -> str | None:
    """Return the operator that computes the same into new memory; None if there is none."""
    namespace, packet, overload = op.split(".")
    if not packet.endswith("_"):
        return None
    name = f"{namespace}.{packet.removesuffix('_')}.{overload}"
    try:
        resolve(name)
    except ModelError:
        return None
    return name if is_functional(name) else None
