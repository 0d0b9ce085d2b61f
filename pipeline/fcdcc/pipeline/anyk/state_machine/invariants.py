"""What must be true of the any-k state machine after every event.

The scheduler plugin calls :func:`check_state` after its decisions if Dask's own validation is on
(``distributed.scheduler.validate``), and tests call it after every event.
"""

from __future__ import annotations

from collections import Counter

from .registry import NodeState, NodeStatus, Registry, ShareState, ShareStatus
from .state import AnyKState


def check_state(state: AnyKState) -> None:
    """Check a whole state; the time that it takes grows with the number of shares.

    Raises
    ------
    AssertionError
        Saying what does not fit together.
    """
    registry = state.registry
    for key, share in registry.shares.items():
        _ensure(share.key == key, f"share {key!r} is kept under another key")
        _check_share(registry, share)
    for key, node in registry.nodes.items():
        _ensure(node.key == key, f"node {key!r} is kept under another key")
        _check_node(state, node)
    for number in registry.groups:
        _check_group(registry, number)
    _check_blocks(state)


def _check_share(registry: Registry, share: ShareState) -> None:
    name = f"share {share.key!r} ({share.state})"
    group = registry.groups.get(share.group)
    _ensure(group is not None and share.key in group.shares, f"{name} is in no group")
    on_worker = share.state in (ShareStatus.STARTED, ShareStatus.DONE)
    _ensure((share.worker is not None) == on_worker, f"{name} is on worker {share.worker}")
    held = group is not None and share.key in group.held
    _ensure(held == (share.state is ShareStatus.HELD), f"{name} held: {held}")
    _ensure(share.attempts > 0 or not on_worker, f"{name} was never started")
    for key in share.nodes:
        node = registry.nodes.get(key)
        _ensure(node is not None, f"{name} feeds {key!r}, which is not known")
        there = node is not None and share.key in node.edges.values()
        _ensure(there, f"{name} feeds {key!r}, which is not connected to it")
    if share.state is ShareStatus.ERASED:
        _ensure(not share.nodes and share.cut, f"{name} is still connected")


def _check_node(state: AnyKState, node: NodeState) -> None:
    registry = state.registry
    name = f"node {node.key!r} ({node.state})"
    group = registry.groups.get(node.group)
    _ensure(group is not None and node.key in group.nodes, f"{name} is in no group")
    done = set()
    for position, key in node.edges.items():
        share = registry.shares.get(key)
        _ensure(share is not None, f"{name} needs share {key!r}, which is not known")
        if share is not None:
            _ensure(node.key in share.nodes, f"{name} needs {key!r}, which does not feed it")
            if share.state is ShareStatus.DONE:
                done.add(position)
    if node.state is NodeStatus.WAITING and not node.sent and not state.unsettled:
        survivors = node.survivors(frozenset(done))
        waits = survivors is None or survivors >= node.edges.keys()
        _ensure(waits, f"{name} has enough shares with {sorted(done)} and still waits")


def _check_group(registry: Registry, number: int) -> None:
    group = registry.groups[number]
    name = f"group {number}"
    _ensure(bool(group.shares or group.nodes), f"{name} is empty")
    _ensure(group.shares.keys() <= registry.shares.keys(), f"{name} has unknown shares")
    _ensure(group.nodes.keys() <= registry.nodes.keys(), f"{name} has unknown nodes")
    _ensure(group.unfinished.keys() <= group.nodes.keys(), f"{name} waits for foreign nodes")
    _ensure(group.held.keys() <= group.shares.keys(), f"{name} holds foreign shares")
    block = registry.blocks.get((group.run, group.block))
    _ensure(block is not None and number in block.groups, f"{name} is in no block")


def _check_blocks(state: AnyKState) -> None:
    registry = state.registry
    there = state.workers.by_address.keys()
    for label, block in registry.blocks.items():
        name = f"block {label}"
        _ensure(bool(block.groups), f"{name} is empty")
        _ensure(block.groups.keys() <= registry.groups.keys(), f"{name} has unknown groups")
        _ensure(set(block.seats.values()) <= there, f"{name} has seats on absent workers")
        expected = block.wanted_seats if there else set()
        _ensure(block.seats.keys() == expected, f"{name} has seats without a worker")
    _check_loads(state)


def _check_loads(state: AnyKState) -> None:
    """Compare what workers have yet to compute with the shares themselves."""
    registry = state.registry
    left: Counter[tuple[tuple[str, int], int]] = Counter()
    loads: Counter[str] = Counter()
    for share in registry.shares.values():
        if share.expected:
            block = registry.block_of(registry.groups[share.group])
            left[(block.run, block.number), share.seat] += 1
            loads[block.seats.get(share.seat, "")] += 1
    for label, block in registry.blocks.items():
        for seat, count in block.left.items():
            _ensure(left[label, seat] == count, f"block {label} has {count} left at seat {seat}")
    for address, worker in state.workers.by_address.items():
        _ensure(loads[address] == worker.load, f"worker {address} has a load of {worker.load}")


def _ensure(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
