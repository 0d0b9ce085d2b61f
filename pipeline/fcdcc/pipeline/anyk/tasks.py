"""How a Dask graph says that a task needs any k of its inputs: the node and its shares.

An :class:`AnyK` node is a Dask task with numbered inputs, its *shares*. The number is the
share's *position* in the code. When the node runs, its function receives as first argument
a dictionary from position to value that holds only the shares that were computed::

    AnyK("layer", decode, {0: "s0", 1: "s1", 2: "s2"}, 2)

    all three computed        decode({0: …, 1: …, 2: …})
    share 1 was given up      decode({0: …, 2: …})

The node says itself when it has enough: by a number, or by a predicate over positions
(:class:`.state_machine.events.Readiness`), which for a code is ``Code.is_decodable``. This belongs
to the node and not to the group of shares, because a share may feed several nodes: a part of a
layer is ready when its own share is computed (``own``), or when any δ shares are.

Without the scheduler plugin no share is ever given up. The node is then an ordinary task that
waits for all its shares, and the graph gives the same result with every Dask scheduler.

``dask.array`` renames and merges the tasks of a graph. An any-k node is never merged
(``block_fusion``), and neither is a :class:`Share`, an ordinary task otherwise, so that its key
keeps its stage and position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast

from dask._task_spec import GraphNode, Task, TaskRef
from dask.tokenize import tokenize
from dask.typing import Key

from fcdcc.coding.errors import FcdccError

from .state_machine.events import Readiness, is_ready


class AnyKError(FcdccError, ValueError):
    """An any-k node whose shares, threshold and positions do not fit together.

    Examples
    --------
    >>> any_k("sum", sum, ["a", "b"], 3)
    Traceback (most recent call last):
    fcdcc.pipeline.anyk.tasks.AnyKError: ...
    """


class _Marker(Enum):
    """An enumeration, so that its value is still the same object after it was pickled."""

    ERASED = "erased"


ERASED: Final[Literal[_Marker.ERASED]] = _Marker.ERASED
"""Replaces a share that was given up in the arguments of an any-k node."""

ShareRef: TypeAlias = Key | TaskRef | GraphNode


class BackedUpTask(Task):
    """A task with another one that makes the same value from fewer inputs, or from none.

    If a backup of the task is started on another worker
    (:mod:`.state_machine.speculation`), the other task runs there: the worker that is late may be
    the one that holds the inputs.

    Parameters
    ----------
    key, func, args, kwargs
        As of any task.
    backup
        The other task, under any key; None if a backup is the same task again.

    Examples
    --------
    >>> from dask._task_spec import Task, TaskRef
    >>> half = BackedUpTask("half", max, TaskRef("a"), 1, backup=Task("again", max, 2, 1))
    >>> half.backup()
    2
    """

    backup: Task | None
    __slots__ = ("backup",)

    def __init__(
        self,
        key: Key | None,
        func: Callable[..., Any],
        /,
        *args: Any,
        backup: Task | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(key, func, *args, **kwargs)
        self.backup = backup


class Share(BackedUpTask):
    """A task that Dask's optimisations neither rename nor merge with its neighbours.

    Examples
    --------
    >>> share = Share("a", pow, 2, 3)
    >>> share(), share.block_fusion
    (8, True)
    """

    __slots__ = ()

    @property
    def block_fusion(self) -> bool:
        """Always true: Dask must not merge the task with its neighbours."""
        return True


class AnyK(Task):
    """A task that needs any sufficient subset of its shares.

    Parameters
    ----------
    key
        The task's key.
    func
        Called as ``func(there, *args, **kwargs)``; ``there`` is a dictionary from position
        to value, in ascending positions, without the shares that were given up.
    shares
        Position to the key of the task that computes the share.
    enough
        How many shares suffice, or a predicate over their positions.
    *args, **kwargs
        Further arguments, with :class:`dask._task_spec.TaskRef` where they are tasks.
    own
        The position of the one share that suffices alone, if there is such a share.
    standby
        Positions that the scheduler plugin does not run before they are needed. It ignores this
        if the others alone are not enough. Without the plugin they simply run.
    seats
        Position to seat. Shares with the same seat in one block of one run go to the same
        worker, shares with different seats to different workers. By default a share's seat
        is its position.
    plain
        Positions that together leave nothing to be solved for: the uncoded shares of a
        systematic code. They only matter for what is counted as a decode.
    allowed_workers
        Addresses of the workers that the shares are placed on as long as one of them is there; by
        default all.

    Raises
    ------
    AnyKError
        If there are no shares, if two positions name the same task, or if ``enough``,
        ``own``, ``standby``, ``seats`` or ``plain`` do not fit the positions.

    Examples
    --------
    >>> from dask.threaded import get
    >>> graph = {key: Share(key, abs, -1) for key in ("a", "b", "c")}
    >>> graph["total"] = AnyK("total", len, {0: "a", 1: "b", 2: "c"}, 2)
    >>> get(graph, "total")  # without the plugin it waits for all
    3
    """

    positions: tuple[int, ...]
    enough: int | Readiness
    own: int | None
    standby: frozenset[int]
    seats: tuple[int, ...]
    plain: frozenset[int]
    allowed_workers: frozenset[str]
    __slots__ = ("allowed_workers", "enough", "own", "plain", "positions", "seats", "standby")

    def __init__(
        self,
        key: Key,
        func: Callable[..., Any],
        /,
        shares: Mapping[int, ShareRef],
        enough: int | Readiness,
        *args: Any,
        own: int | None = None,
        standby: Iterable[int] = (),
        seats: Mapping[int, int] | None = None,
        plain: Iterable[int] = (),
        allowed_workers: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        positions = tuple(sorted(shares))
        refs = [_as_ref(shares[position]) for position in positions]
        super().__init__(key, func, *refs, *args, **kwargs)
        self.positions = positions
        self.enough = enough
        self.own = own
        self.standby = frozenset(standby)
        self.seats = tuple((seats or {}).get(position, position) for position in positions)
        self.plain = frozenset(plain)
        self.allowed_workers = frozenset(allowed_workers)
        _check(self, seats)

    @property
    def block_fusion(self) -> bool:
        """Always true: Dask must not merge the node with its shares."""
        return True

    @property
    def shares(self) -> dict[int, Key]:
        """Position to key of the shares that have not been given up."""
        inputs = zip(self.positions, self.args, strict=False)  # further arguments follow
        return {position: ref.key for position, ref in inputs if isinstance(ref, TaskRef)}

    def is_ready(self, done: Collection[int]) -> bool:
        """Return whether the node can run with the shares at these positions."""
        return is_ready(self.enough, self.own, done)

    def __call__(self, values: Mapping[Key, Any] = {}) -> Any:
        """Run the function on the shares that were computed; ``values`` holds them by key."""
        self._verify_values(cast("dict[Key, Any]", values))
        arguments = [_evaluate(argument, values) for argument in self.args]
        inputs = zip(self.positions, arguments, strict=False)  # further arguments follow
        there = {position: value for position, value in inputs if value is not ERASED}
        kwargs = {name: _evaluate(argument, values) for name, argument in self.kwargs.items()}
        return self.func(there, *arguments[len(self.positions) :], **kwargs)

    def without(self, gone: Collection[Key]) -> AnyK:
        """Return the node with :data:`ERASED` in place of shares that were given up."""
        args = (
            ERASED if isinstance(argument, TaskRef) and argument.key in gone else argument
            for argument in self.args
        )
        return self._copy_with(self.key, tuple(args), self.kwargs)

    def copy(self) -> AnyK:
        """Return an equal node."""
        return self._copy_with(self.key, self.args, self.kwargs)

    def substitute(self, subs: dict[Key, Key | GraphNode], key: Key | None = None) -> AnyK:
        """Return the node with some inputs replaced, and another key if one is given."""
        changed = {old: subs[old] for old in self.dependencies & subs.keys() if subs[old] != old}
        if not changed and (key is None or key == self.key):
            return self
        return self._copy_with(
            self.key if key is None else key,
            tuple(_substituted(argument, changed) for argument in self.args),
            {name: _substituted(argument, changed) for name, argument in self.kwargs.items()},
        )

    def _copy_with(self, key: Key, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AnyK:
        copy = object.__new__(type(self))  # without the checks, which this node has passed
        Task.__init__(copy, key, self.func, *args, **kwargs)
        copy.positions, copy.seats = self.positions, self.seats
        copy.enough, copy.own = self.enough, self.own
        copy.standby, copy.plain = self.standby, self.plain
        copy.allowed_workers = self.allowed_workers
        return copy

    def _get_token(self) -> str:
        if not self._token:
            self._token = tokenize(
                type(self).__name__,
                self.func,
                self.args,
                self.kwargs,
                self.positions,
                self.enough,
                self.own,
                sorted(self.standby),
                self.seats,
                sorted(self.plain),
                sorted(self.allowed_workers),
            )
        return self._token


def any_k(
    key: Key,
    func: Callable[..., Any],
    shares: Mapping[int, ShareRef] | Sequence[ShareRef],
    enough: int | Readiness,
    *args: Any,
    **options: Any,
) -> AnyK:
    """Return an any-k node; shares given as a sequence get the positions 0, 1, 2, ….

    See :class:`AnyK` for the parameters and the errors.

    >>> from dask._task_spec import DataNode
    >>> node = any_k("total", lambda there: sum(there.values()), ["a", "b", "c"], 2)
    >>> sorted(node.dependencies)
    ['a', 'b', 'c']
    >>> node.substitute({"b": DataNode("b", ERASED)})({"a": 1, "c": 3})
    4
    """
    numbered = shares if isinstance(shares, Mapping) else dict(enumerate(shares))
    return AnyK(key, func, numbered, enough, *args, **options)


def _as_ref(share: ShareRef) -> TaskRef | GraphNode:
    if isinstance(share, TaskRef | GraphNode):
        return share
    return TaskRef(share)


def _evaluate(argument: Any, values: Mapping[Key, Any]) -> Any:
    """Return an argument's value, as :class:`dask._task_spec.Task` does."""
    if isinstance(argument, GraphNode):
        return argument({key: values[key] for key in argument.dependencies})
    if isinstance(argument, TaskRef):
        return values[argument.key]
    return argument


def _substituted(argument: Any, subs: dict[Key, Key | GraphNode]) -> Any:
    if isinstance(argument, GraphNode | TaskRef):
        return argument.substitute(subs)
    return argument


def _check(node: AnyK, seats: Mapping[int, int] | None) -> None:
    positions = set(node.positions)
    shown = list(node.positions)
    if not positions:
        raise AnyKError(f"any-k node {node.key!r} has no shares; expected at least one")
    if len(set(node.shares.values())) < len(node.shares):
        raise AnyKError(
            f"any-k node {node.key!r} has the same task at two positions: {node.shares}; "
            "give every position a task of its own"
        )
    if isinstance(node.enough, int) and not 1 <= node.enough <= len(positions):
        raise AnyKError(
            f"any-k node {node.key!r} has {len(positions)} shares and needs {node.enough}; "
            f"expected 1 to {len(positions)}"
        )
    named = {
        "own": {node.own} if node.own is not None else set(),
        "standby": node.standby,
        "seats": set(seats or ()),
        "plain": node.plain,
    }
    for label, used in named.items():
        if not used <= positions:
            raise AnyKError(
                f"any-k node {node.key!r}: {label} names {sorted(used - positions)}; expected "
                f"positions of its shares, which are {shown}"
            )
