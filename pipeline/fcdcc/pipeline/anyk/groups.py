"""From the any-k nodes of a graph to groups: which shares and nodes belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dask.typing import Key

from fcdcc.pipeline.keys import parse_key

from .messages import GroupSpec, NodeSpec, ShareSpec
from .nodes import AnyK

__all__ = ["find_groups"]


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
        together = [node]
        for other in {run_of[mark]: None for mark in _marks(node) if mark in run_of}:
            together = runs.pop(other) + together
        runs[number] = together
        run_of.update({mark: number for item in together for mark in _marks(item)})
    return list(runs.values())


def _marks(node: AnyK) -> Iterator[object]:
    """Yield what nodes of one group have in common: a share, or run, layer and block.

    Without redundancy every part has its own share alone, and is of the same layer all the same.
    """
    for key in node.shares.values():
        yield key
        label = parse_key(key)
        if label is not None:
            yield (label.run, label.layer, label.block)


def _group(nodes: list[AnyK], needed: Collection[Key], block_numbers: Iterator[int]) -> GroupSpec:
    shares: dict[Key, ShareSpec] = {}
    for node in nodes:
        seats = dict(zip(node.positions, node.seats, strict=True))
        for position, key in node.shares.items():
            held = position in node.standby and key not in needed
            if key in shares:
                held = held and shares[key].held
            shares[key] = ShareSpec(key, position, seats[position], held)
    labels = (parse_key(key) for key in shares)
    label = next((label for label in labels if label is not None), None)
    specs = tuple(
        NodeSpec(node.key, tuple(node.shares.items()), node.enough, node.own, node.plain)
        for node in nodes
    )
    among = frozenset[str]().union(*(node.among for node in nodes))
    if label is None:
        number = next(block_numbers)
        return GroupSpec("", 0, number, number, tuple(shares.values()), specs, among)
    place = (label.run, label.layer, label.block, label.block)
    return GroupSpec(*place, tuple(shares.values()), specs, among)
