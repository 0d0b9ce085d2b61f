"""All shares, nodes, groups and blocks that are known, and how they hang together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fcdcc.pipeline.anyk.keys import parse_key

from .entities import BlockState, GroupState, NodeState, NodeStatus, ShareState, ShareStatus
from .events import GroupSpec, Key, NodeSpec, ShareSpec

_WANTING = (NodeStatus.WAITING, NodeStatus.STARTED)


class Registry:
    """The members, nodes, groups and blocks of an any-k state machine."""

    def __init__(self) -> None:
        self.members: dict[Key, ShareState] = {}
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

    def members_of(self, group: GroupState) -> Iterator[ShareState]:
        """Return the shares of a group."""
        return (self.members[key] for key in group.shares)

    def is_wanted(self, member: ShareState) -> bool:
        """Return whether a node that is connected to a share waits for it or runs with it."""
        return any(self.nodes[key].state in _WANTING for key in member.nodes)

    def done(self, node: NodeState) -> frozenset[int]:
        """Return the positions of the shares of a node that are done."""
        state = ShareStatus.DONE
        return frozenset(p for p, key in node.edges.items() if self.members[key].state is state)

    def disconnect(self, node: NodeState, keys: Iterable[Key]) -> None:
        """Cut a node off from some of its shares."""
        gone = dict.fromkeys(keys)
        node.edges = {p: key for p, key in node.edges.items() if key not in gone}
        for key in gone:
            member = self.members[key]
            del member.nodes[node.key]
            member.cut = True

    # ------------------------------------------------------------------- adding

    def add(self, spec: GroupSpec) -> tuple[BlockState | None, list[ShareState]]:
        """Add what is new of a group; return its block and the new shares.

        A graph may name nodes that are known already: they stay as they are, and shares that
        only they need are not added. If nothing is new there is no block.
        """
        nodes = [node for node in spec.nodes if node.key not in self.nodes]
        inputs = dict.fromkeys(key for node in nodes for _, key in node.edges)
        if not inputs:
            return None, []
        group = self._group_for(inputs, spec)
        shares = [share for share in spec.shares if share.key in inputs]
        added = [self._add_share(share, group) for share in shares if share.key not in self.members]
        for item in nodes:
            self._add_node(item, group)
        block = self.block_of(group)
        block.allowed_workers = spec.allowed_workers
        block.wanted_seats.update(member.seat for member in added)
        block.parity_seats.update(item.seat for item in added if item.stage == "parity")
        block.parity_seats.difference_update(item.seat for item in added if item.stage != "parity")
        return block, added

    def _group_for(self, shares: Iterable[Key], spec: GroupSpec) -> GroupState:
        """Return the group that one of the shares is in already, or a new one."""
        for key in shares:
            known = self.members.get(key)
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
        member = ShareState(spec.key, group.number, spec.position, spec.seat, stage)
        if spec.held:
            member.state = ShareStatus.HELD
            group.held[spec.key] = None
        self.members[spec.key] = member
        group.shares[spec.key] = None
        return member

    def _add_node(self, spec: NodeSpec, group: GroupState) -> None:
        edges = dict(spec.edges)
        node = NodeState(spec.key, group.number, edges, spec.enough, spec.own, spec.plain)
        self.nodes[node.key] = node
        group.nodes[node.key] = group.unfinished[node.key] = None
        for key in edges.values():
            self.members[key].nodes[node.key] = None

    # --------------------------------------------------------------- forgetting

    def forget_share(self, member: ShareState) -> None:
        """Forget a share, and its group if nothing else is left of it."""
        del self.members[member.key]
        for key in member.nodes:
            node = self.nodes[key]
            node.edges = {p: share for p, share in node.edges.items() if share != member.key}
        group = self.groups[member.group]
        del group.shares[member.key]
        group.held.pop(member.key, None)
        self._tidy(group)

    def forget_node(self, node: NodeState) -> None:
        """Forget a node, and its group if nothing else is left of it."""
        del self.nodes[node.key]
        for key in node.edges.values():
            del self.members[key].nodes[node.key]
        group = self.groups[node.group]
        del group.nodes[node.key]
        group.unfinished.pop(node.key, None)
        self._tidy(group)

    def _tidy(self, group: GroupState) -> None:
        if group.shares or group.nodes:
            return
        del self.groups[group.number]
        block = self.block_of(group)
        del block.groups[group.number]
        if not block.groups:
            del self.blocks[group.run, group.block]
