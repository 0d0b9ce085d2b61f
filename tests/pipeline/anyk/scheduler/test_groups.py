from __future__ import annotations

import itertools
import random

from fcdcc.pipeline.anyk import AnyK
from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.scheduler.groups import find_groups
from fcdcc.pipeline.anyk.state_machine.events import GroupSpec, Key
from support.anyk_graphs import in_parts


def groups_of(nodes: list[AnyK], needed: set[Key] | None = None) -> tuple[GroupSpec, ...]:
    return find_groups(nodes, needed or set(), itertools.count())


def test_nodes_that_have_a_share_in_common_are_one_group() -> None:
    nodes = [
        AnyK("a", dict, {0: "s0", 1: "s1"}, 1),
        AnyK("b", dict, {0: "t0", 1: "t1"}, 1),
        AnyK("c", dict, {2: "s2", 1: "s1"}, 1),
        AnyK("d", dict, {2: "s2", 3: "s3"}, 1),
    ]
    for order in itertools.permutations(nodes):
        groups = groups_of(list(order))
        together = {frozenset(node.key for node in group.nodes) for group in groups}
        assert together == {frozenset("acd"), frozenset("b")}
        assert {frozenset(s.key for s in group.shares) for group in groups} == {
            frozenset(("s0", "s1", "s2", "s3")),
            frozenset(("t0", "t1")),
        }
        assert len({group.block for group in groups}) == 2


def test_keys_say_which_run_layer_and_block() -> None:
    nodes = [task for task in in_parts(7, run="abc").tasks.values() if isinstance(task, AnyK)]
    random.Random(1).shuffle(nodes)
    (group,) = groups_of(nodes)
    assert (group.run, group.layer, group.block, group.rotation) == ("abc", 0, 7, 7)
    assert len(group.nodes) == 4
    assert {share.position for share in group.shares if share.held} == {4, 5}


def test_a_share_is_held_only_if_it_is_standby_for_all_its_nodes_and_not_needed_otherwise() -> None:
    shares = {p: task_key("share", "r", 0, 0, p) for p in range(3)}
    willing = AnyK("a", dict, shares, 1, standby=[1, 2])
    partly = AnyK("b", dict, shares, 1, standby=[2])
    assert [s.held for s in groups_of([willing])[0].shares] == [False, True, True]
    assert [s.held for s in groups_of([willing, partly])[0].shares] == [False, False, True]
    assert [s.held for s in groups_of([partly, willing])[0].shares] == [False, False, True]
    needed: set[Key] = {shares[2]}
    assert [s.held for s in groups_of([willing], needed)[0].shares] == [False, True, False]


def test_no_share_is_held_if_the_others_are_not_enough() -> None:
    shares = {p: f"s{p}" for p in range(3)}
    for enough in (2, lambda done: len(done) >= 2):
        rests = AnyK("a", dict, shares, enough, standby=[2])
        assert [s.held for s in groups_of([rests])[0].shares] == [False, False, True]
        for waits in (AnyK("a", dict, shares, enough, standby=[1, 2]), rests.without(["s0"])):
            assert not any(s.held for s in groups_of([waits])[0].shares)


def test_seats_come_from_the_nodes() -> None:
    node = AnyK("a", dict, {0: "s0", 1: "s1"}, 1, seats={0: 5})
    assert [share.seat for share in groups_of([node])[0].shares] == [5, 1]
