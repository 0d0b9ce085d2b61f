"""All shares, nodes, groups and blocks that are known, and how they hang together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fcdcc.pipeline.anyk.keys import parse_key

from .entities import Block, Group, Member, MemberState, Node, NodeState
from .events import GroupSpec, Key, NodeSpec, ShareSpec

__all__ = ["Registry"]

_WANTING = (NodeState.WAITING, NodeState.STARTED)


class Registry:
    """The members, nodes, groups and blocks of an any-k state machine."""

    def __init__(self) -> None:
        self.members: dict[Key, Member] = {}
        self.nodes: dict[Key, Node] = {}
        self.groups: dict[int, Group] = {}
        self.blocks: dict[tuple[str, int], Block] = {}
        self._next_group = 0

    def group_of(self, item: Member | Node) -> Group:
        """Return the group of a share or a node."""
        return self.groups[item.group]

    def block_of(self, group: Group) -> Block:
        """Return the block that a group belongs to."""
        return self.blocks[group.run, group.block]

    def members_of(self, group: Group) -> Iterator[Member]:
        """Return the shares of a group."""
        return (self.members[key] for key in group.shares)

    def is_wanted(self, member: Member) -> bool:
        """Return whether a node that is connected to a share waits for it or runs with it."""
        return any(self.nodes[key].state in _WANTING for key in member.nodes)

    def done(self, node: Node) -> frozenset[int]:
        """Return the positions of the shares of a node that are done."""
        state = MemberState.DONE
        return frozenset(p for p, key in node.edges.items() if self.members[key].state is state)

    def disconnect(self, node: Node, keys: Iterable[Key]) -> None:
        """Cut a node off from some of its shares."""
        gone = dict.fromkeys(keys)
        node.edges = {p: key for p, key in node.edges.items() if key not in gone}
        for key in gone:
            member = self.members[key]
            del member.nodes[node.key]
            member.cut = True

    # ------------------------------------------------------------------- adding

    def add(self, spec: GroupSpec) -> tuple[Block | None, list[Member]]:
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
        block.among = spec.among
        block.wanted_seats.update(member.seat for member in added)
        block.parity_seats.update(item.seat for item in added if item.stage == "parity")
        block.parity_seats.difference_update(item.seat for item in added if item.stage != "parity")
        return block, added

    def _group_for(self, shares: Iterable[Key], spec: GroupSpec) -> Group:
        """Return the group that one of the shares is in already, or a new one."""
        for key in shares:
            known = self.members.get(key)
            if known is not None:
                return self.groups[known.group]
        group = Group(self._next_group, spec.run, spec.layer, spec.block)
        self._next_group += 1
        self.groups[group.number] = group
        new_block = Block(spec.run, spec.block, spec.rotation)
        self.blocks.setdefault((spec.run, spec.block), new_block).groups[group.number] = None
        return group

    def _add_share(self, spec: ShareSpec, group: Group) -> Member:
        parsed = parse_key(spec.key)
        stage = "share" if parsed is None else parsed.stage
        member = Member(spec.key, group.number, spec.position, spec.seat, stage)
        if spec.held:
            member.state = MemberState.HELD
            group.held[spec.key] = None
        self.members[spec.key] = member
        group.shares[spec.key] = None
        return member

    def _add_node(self, spec: NodeSpec, group: Group) -> None:
        edges = dict(spec.edges)
        node = Node(spec.key, group.number, edges, spec.enough, spec.own, spec.plain)
        self.nodes[node.key] = node
        group.nodes[node.key] = group.unfinished[node.key] = None
        for key in edges.values():
            self.members[key].nodes[node.key] = None

    # --------------------------------------------------------------- forgetting

    def forget_share(self, member: Member) -> None:
        """Forget a share, and its group if nothing else is left of it."""
        del self.members[member.key]
        for key in member.nodes:
            node = self.nodes[key]
            node.edges = {p: share for p, share in node.edges.items() if share != member.key}
        group = self.groups[member.group]
        del group.shares[member.key]
        group.held.pop(member.key, None)
        self._tidy(group)

    def forget_node(self, node: Node) -> None:
        """Forget a node, and its group if nothing else is left of it."""
        del self.nodes[node.key]
        for key in node.edges.values():
            del self.members[key].nodes[node.key]
        group = self.groups[node.group]
        del group.nodes[node.key]
        group.unfinished.pop(node.key, None)
        self._tidy(group)

    def _tidy(self, group: Group) -> None:
        if group.shares or group.nodes:
            return
        del self.groups[group.number]
        block = self.block_of(group)
        del block.groups[group.number]
        if not block.groups:
            del self.blocks[group.run, group.block]
