"""From the any-k nodes of a graph to groups: which shares and nodes belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dask.typing import Key

from fcdcc.pipeline.anyk.keys import parse_key

from ..state_machine.events import GroupSpec, NodeSpec, ShareSpec
from ..tasks import AnyK


def find_groups(
    nodes: Iterable[AnyK], needed: Collection[Key], block_numbers: Iterator[int]
) -> tuple[GroupSpec, ...]:
    """Return the groups: shares that feed a common node, directly or through other nodes.

    Parameters
    ----------
    nodes
        All any-k nodes of a graph.
    needed
        Shares that somebody else needs as well; these are never held back.
    block_numbers
        Numbers for groups whose keys say nothing about blocks (see
        :mod:`fcdcc.pipeline.keys`); each is a block of its own.
    """
    return tuple(_group(together, needed, block_numbers) for together in _connected(nodes))


def _connected(nodes: Iterable[AnyK]) -> list[list[AnyK]]:
    """Return the nodes in runs that are connected through shares, or by what their keys say."""
    runs: dict[int, list[AnyK]] = {}
    run_of: dict[object, int] = {}
    for number, node in enumerate(nodes):
        keys = node.shares.values()
        marks = (*keys, *_labels(key for key in keys if key not in run_of))
        met = dict.fromkeys(run_of[mark] for mark in marks if mark in run_of)
        first = next(iter(met), number)
        together = runs.setdefault(first, [])
        together.append(node)
        for other in [other for other in met if other != first]:
            together += runs.pop(other)
            run_of.update({mark: first for mark, run in run_of.items() if run == other})
        run_of.update(dict.fromkeys(marks, first))
    return list(runs.values())


def _labels(keys: Iterable[Key]) -> set[object]:
    """Return what shares of one group have in common: run, layer and block.

    Without redundancy every part has its own share alone, and is of the same layer all the same.
    """
    parsed = (parse_key(key) for key in keys)
    return {(label.run, label.layer, label.block) for label in parsed if label is not None}


def _group(nodes: list[AnyK], needed: Collection[Key], block_numbers: Iterator[int]) -> GroupSpec:
    shares: dict[Key, ShareSpec] = {}
    specs: list[NodeSpec] = []
    for node in nodes:
        seats = dict(zip(node.positions, node.seats, strict=True))
        edges = tuple(node.shares.items())
        standby = _spared(node)
        specs.append(NodeSpec(node.key, edges, node.enough, node.own, node.plain))
        for position, key in edges:
            held = position in standby and key not in needed
            known = shares.get(key)
            if known is None or (known.held and not held):
                shares[key] = ShareSpec(key, position, seats[position], held)
    labels = (parse_key(key) for key in shares)
    label = next((label for label in labels if label is not None), None)
    allowed_workers = frozenset[str]().union(*(node.allowed_workers for node in nodes))
    if label is None:
        number = next(block_numbers)
        return GroupSpec(
            "", 0, number, number, tuple(shares.values()), tuple(specs), allowed_workers
        )
    place = (label.run, label.layer, label.block, label.block)
    return GroupSpec(*place, tuple(shares.values()), tuple(specs), allowed_workers)


def _spared(node: AnyK) -> Collection[int]:
    """Return the positions that a node has no need of while all others come."""
    others = [position for position in node.shares if position not in node.standby]
    return node.standby if node.standby and node.is_ready(others) else ()
