"""The shares, nodes, groups and blocks that the any-k state machine knows, and their relations.

::

    block  (run, block number)       has the seats: which worker computes which shares
      └─ group  (one layer of it)    the shares of one code word, and the nodes that they feed
           ├─ share  (position)      one task; it feeds one or several nodes
           └─ node                   one task; it needs sufficiently many of its shares

A share or node is added with its graph and forgotten when Dask forgets the task; with the last
of them its group is forgotten, and with its last group a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from fcdcc.pipeline.anyk.keys import parse_key

from .events import GroupSpec, Key, NodeSpec, Readiness, ShareSpec, is_ready, used_positions


class ShareStatus(StrEnum):
    """State of a share."""

    WAITING = "waiting"
    """It waits for its inputs, for a worker, or for a node that needs it."""
    HELD = "held"
    """It is on standby: Dask must not run it before it is started."""
    STARTED = "started"
    """It was assigned to a worker."""
    DONE = "done"
    """Its result is in a worker's memory."""
    LOST = "lost"
    """It was started or done, was then lost, and is still needed: Dask computes it again."""
    ERASED = "erased"
    """It was started, and given up before there was a result."""
    RELEASED = "released"
    """No node needs it any more: its result was used, or it never started."""
    ERRED = "erred"
    """It raised an exception."""


class NodeStatus(StrEnum):
    """State of an any-k node."""

    IDLE = "idle"
    """Nothing needs its result now."""
    WAITING = "waiting"
    """It waits for shares. Only in this state can it be disconnected from some of them."""
    STARTED = "started"
    """All shares that it is connected to are done."""
    DONE = "done"
    """Its result is in a worker's memory."""
    ERRED = "erred"
    """It, or a share that it needs, raised an exception."""


@dataclass(slots=True)
class ShareState:
    """One share of a group."""

    key: Key
    group: int
    """Number of its group."""
    position: int
    seat: int
    stage: str
    """``share`` or ``parity``, from its key."""
    state: ShareStatus = ShareStatus.WAITING
    worker: str | None = None
    """The worker that it was assigned to or that has its result."""
    since: float = 0.0
    """When it was assigned."""
    attempts: int = 0
    """How often it was assigned."""
    from_standby: bool = False
    """Whether it was on standby and was started."""
    was_lost: bool = False
    """Whether it was lost with a worker, and computed again."""
    cut: bool = False
    """Whether a node was disconnected from it."""
    nodes: dict[Key, None] = field(default_factory=dict)
    """The nodes that are connected to it."""
    expected: bool = False
    """Whether it counts as work that the worker of its seat has yet to do."""

    @property
    def is_stand_in(self) -> bool:
        """Whether it was started because shares were late or lost, itself among them or not.

        If others come first after all, its worker was not late with it.
        """
        return self.from_standby or self.was_lost


@dataclass(slots=True)
class NodeState:
    """One any-k node."""

    key: Key
    group: int
    """Number of its group."""
    edges: dict[int, Key]
    """The shares that it is connected to, by position."""
    enough: int | Readiness
    """How many shares it needs, or a predicate over their positions."""
    own: int | None
    """Position of the share that alone is its result; None if there is none."""
    plain: frozenset[int]
    """Positions of the plain shares."""
    state: NodeStatus = NodeStatus.IDLE
    sent: bool = False
    """Whether it was ever sent to a worker, which then knows its inputs."""

    def survivors(self, done: frozenset[int]) -> frozenset[int] | None:
        """Return the positions that it runs with, or None if these are not enough."""
        return used_positions(self.own, done) if is_ready(self.enough, self.own, done) else None

    def solves(self, survivors: frozenset[int]) -> bool:
        """Return whether a linear system is solved to get its result from these positions."""
        if self.own is not None:
            return self.own not in survivors
        return not self.plain or not self.plain <= survivors


@dataclass(slots=True)
class GroupState:
    """The shares of one layer of one block, and the nodes that they feed."""

    number: int
    run: str
    layer: int
    block: int
    shares: dict[Key, None] = field(default_factory=dict)
    nodes: dict[Key, None] = field(default_factory=dict)
    unfinished: dict[Key, None] = field(default_factory=dict)
    """Its nodes that have not had a result yet."""
    held: dict[Key, None] = field(default_factory=dict)
    """Its shares that are on standby."""
    started: float | None = None
    """When its first share was assigned."""
    solved: bool = False
    """Whether one of its nodes solved a linear system."""


@dataclass(slots=True)
class BlockState:
    """The groups of one block of one run, and the workers of its seats."""

    run: str
    number: int
    rotation: int
    """Index of the worker at which seating begins, so that equal workers take turns."""
    seats: dict[int, str] = field(default_factory=dict)
    """Address of the worker of each seat."""
    wanted_seats: set[int] = field(default_factory=set)
    """The seats that its shares need."""
    parity_seats: set[int] = field(default_factory=set)
    """The seats that have parity shares only."""
    allowed_workers: frozenset[str] = frozenset()
    """The workers that may have its seats; all if empty."""
    groups: dict[int, None] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)
    """How many shares are yet to be computed at each seat."""


_NEEDING_SHARES = (NodeStatus.WAITING, NodeStatus.STARTED)


class Registry:
    """The shares, nodes, groups and blocks of an any-k state machine."""

    def __init__(self) -> None:
        self.shares: dict[Key, ShareState] = {}
        self.nodes: dict[Key, NodeState] = {}
        self.groups: dict[int, GroupState] = {}
        self.blocks: dict[tuple[str, int], BlockState] = {}
        self._next_group = 0

    def group_of(self, item: ShareState | NodeState) -> GroupState:
        """Return the group of a share or a node."""
        return self.groups[item.group]

    def block_of(self, group: GroupState) -> BlockState:
        """Return the block that a group belongs to."""
        return self.blocks[group.run, group.block]

    def shares_of(self, group: GroupState) -> Iterator[ShareState]:
        """Yield the shares of a group."""
        return (self.shares[key] for key in group.shares)

    def is_wanted(self, share: ShareState) -> bool:
        """Return whether a node that is connected to a share waits for it or runs with it."""
        return any(self.nodes[key].state in _NEEDING_SHARES for key in share.nodes)

    def done_positions(self, node: NodeState) -> frozenset[int]:
        """Return the positions of the shares of a node that are done."""
        state = ShareStatus.DONE
        return frozenset(p for p, key in node.edges.items() if self.shares[key].state is state)

    def disconnect(self, node: NodeState, keys: Iterable[Key]) -> None:
        """Remove the connections of a node to some of its shares."""
        gone = dict.fromkeys(keys)
        node.edges = {p: key for p, key in node.edges.items() if key not in gone}
        for key in gone:
            share = self.shares[key]
            del share.nodes[node.key]
            share.cut = True

    # ------------------------------------------------------------------- adding

    def add(self, spec: GroupSpec) -> tuple[BlockState | None, list[ShareState]]:
        """Add what is new of a group; return its block and the new shares.

        A graph may name nodes that are known already. They stay as they are, and shares that
        only they need are not added. If nothing is new, the block is None.
        """
        nodes = [node for node in spec.nodes if node.key not in self.nodes]
        inputs = dict.fromkeys(key for node in nodes for _, key in node.edges)
        if not inputs:
            return None, []
        group = self._group_for(inputs, spec)
        shares = [share for share in spec.shares if share.key in inputs]
        added = [self._add_share(share, group) for share in shares if share.key not in self.shares]
        for item in nodes:
            self._add_node(item, group)
        block = self.block_of(group)
        block.allowed_workers = spec.allowed_workers
        block.wanted_seats.update(share.seat for share in added)
        block.parity_seats.update(share.seat for share in added if share.stage == "parity")
        block.parity_seats.difference_update(
            share.seat for share in added if share.stage != "parity"
        )
        return block, added

    def _group_for(self, shares: Iterable[Key], spec: GroupSpec) -> GroupState:
        """Return the group that one of the shares is in already, or a new one."""
        for key in shares:
            known = self.shares.get(key)
            if known is not None:
                return self.groups[known.group]
        group = GroupState(self._next_group, spec.run, spec.layer, spec.block)
        self._next_group += 1
        self.groups[group.number] = group
        new_block = BlockState(spec.run, spec.block, spec.rotation)
        self.blocks.setdefault((spec.run, spec.block), new_block).groups[group.number] = None
        return group

    def _add_share(self, spec: ShareSpec, group: GroupState) -> ShareState:
        parsed = parse_key(spec.key)
        stage = "share" if parsed is None else parsed.stage
        share = ShareState(spec.key, group.number, spec.position, spec.seat, stage)
        if spec.held:
            share.state = ShareStatus.HELD
            group.held[spec.key] = None
        self.shares[spec.key] = share
        group.shares[spec.key] = None
        return share

    def _add_node(self, spec: NodeSpec, group: GroupState) -> None:
        edges = dict(spec.edges)
        node = NodeState(spec.key, group.number, edges, spec.enough, spec.own, spec.plain)
        self.nodes[node.key] = node
        group.nodes[node.key] = group.unfinished[node.key] = None
        for key in edges.values():
            self.shares[key].nodes[node.key] = None

    # --------------------------------------------------------------- forgetting

    def forget_share(self, share: ShareState) -> None:
        """Forget a share, and its group if it is empty then."""
        del self.shares[share.key]
        for key in share.nodes:
            node = self.nodes[key]
            node.edges = {p: other for p, other in node.edges.items() if other != share.key}
        group = self.groups[share.group]
        del group.shares[share.key]
        group.held.pop(share.key, None)
        self._forget_if_empty(group)

    def forget_node(self, node: NodeState) -> None:
        """Forget a node, and its group if it is empty then.

        The shares that it was connected to were not given up because others sufficed.
        """
        del self.nodes[node.key]
        for key in node.edges.values():
            share = self.shares[key]
            del share.nodes[node.key]
            share.cut = False
        group = self.groups[node.group]
        del group.nodes[node.key]
        group.unfinished.pop(node.key, None)
        self._forget_if_empty(group)

    def _forget_if_empty(self, group: GroupState) -> None:
        if group.shares or group.nodes:
            return
        del self.groups[group.number]
        block = self.block_of(group)
        del block.groups[group.number]
        if not block.groups:
            del self.blocks[group.run, group.block]
