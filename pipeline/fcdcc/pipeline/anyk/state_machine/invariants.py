"""What must be true of the any-k state machine after every event."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .entities import NodeState, NodeStatus, ShareState, ShareStatus

if TYPE_CHECKING:
    from .registry import Registry
    from .state import AnyKState


def check_state(state: AnyKState) -> None:
    """Check a whole state; linear in its size.

    Raises
    ------
    AssertionError
        Saying what does not fit together.
    """
    known = state.registry
    for key, member in known.members.items():
        _ensure(member.key == key, f"share {key!r} is kept under another key")
        _check_member(known, member)
    for key, node in known.nodes.items():
        _ensure(node.key == key, f"node {key!r} is kept under another key")
        _check_node(state, node)
    for number in known.groups:
        _check_group(known, number)
    _check_blocks(state)


def _check_member(known: Registry, member: ShareState) -> None:
    name = f"share {member.key!r} ({member.state})"
    group = known.groups.get(member.group)
    _ensure(group is not None and member.key in group.shares, f"{name} is in no group")
    on_worker = member.state in (ShareStatus.STARTED, ShareStatus.DONE)
    _ensure((member.worker is not None) == on_worker, f"{name} is on worker {member.worker}")
    held = group is not None and member.key in group.held
    _ensure(held == (member.state is ShareStatus.HELD), f"{name} held: {held}")
    _ensure(member.attempts > 0 or not on_worker, f"{name} was never started")
    for key in member.nodes:
        node = known.nodes.get(key)
        _ensure(node is not None, f"{name} feeds {key!r}, which is not known")
        there = node is not None and member.key in node.edges.values()
        _ensure(there, f"{name} feeds {key!r}, which does not know it")
    if member.state is ShareStatus.ERASED:
        _ensure(not member.nodes and member.cut, f"{name} is still connected")


def _check_node(state: AnyKState, node: NodeState) -> None:
    known = state.registry
    name = f"node {node.key!r} ({node.state})"
    group = known.groups.get(node.group)
    _ensure(group is not None and node.key in group.nodes, f"{name} is in no group")
    done = set()
    for position, key in node.edges.items():
        member = known.members.get(key)
        _ensure(member is not None, f"{name} needs share {key!r}, which is not known")
        if member is not None:
            _ensure(node.key in member.nodes, f"{name} needs {key!r}, which does not know it")
            if member.state is ShareStatus.DONE:
                done.add(position)
    if node.state is NodeStatus.WAITING and not node.sent and not state.unsettled:
        survivors = node.survivors(frozenset(done))
        cut = survivors is None or survivors >= node.edges.keys()
        _ensure(cut, f"{name} has enough with {sorted(done)} and still waits")


def _check_group(known: Registry, number: int) -> None:
    group = known.groups[number]
    name = f"group {number}"
    _ensure(bool(group.shares or group.nodes), f"{name} is empty")
    _ensure(group.shares.keys() <= known.members.keys(), f"{name} has unknown shares")
    _ensure(group.nodes.keys() <= known.nodes.keys(), f"{name} has unknown nodes")
    _ensure(group.unfinished.keys() <= group.nodes.keys(), f"{name} waits for foreign nodes")
    _ensure(group.held.keys() <= group.shares.keys(), f"{name} holds foreign shares")
    block = known.blocks.get((group.run, group.block))
    _ensure(block is not None and number in block.groups, f"{name} is in no block")


def _check_blocks(state: AnyKState) -> None:
    known = state.registry
    there = state.roster.workers.keys()
    for label, block in known.blocks.items():
        name = f"block {label}"
        _ensure(bool(block.groups), f"{name} is empty")
        _ensure(block.groups.keys() <= known.groups.keys(), f"{name} has unknown groups")
        _ensure(set(block.seats.values()) <= there, f"{name} has seats on absent workers")
        expected = block.wanted_seats if there else set()
        _ensure(block.seats.keys() == expected, f"{name} has unfilled seats")
    _check_loads(state)


def _check_loads(state: AnyKState) -> None:
    """Check what workers have yet to compute against the shares themselves."""
    known = state.registry
    left: Counter[tuple[tuple[str, int], int]] = Counter()
    loads: Counter[str] = Counter()
    for member in known.members.values():
        if member.expected:
            block = known.block_of(known.groups[member.group])
            left[(block.run, block.number), member.seat] += 1
            loads[block.seats.get(member.seat, "")] += 1
    for label, block in known.blocks.items():
        for seat, count in block.left.items():
            _ensure(left[label, seat] == count, f"block {label} has {count} left at seat {seat}")
    for address, worker in state.roster.workers.items():
        _ensure(loads[address] == worker.load, f"worker {address} has a load of {worker.load}")


def _ensure(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
