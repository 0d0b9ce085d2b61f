from __future__ import annotations

import pickle
from operator import itemgetter
from typing import Any

import dask.array as da
import numpy as np
import pytest
from dask._task_spec import DataNode, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.local import get_sync
from dask.threaded import get as get_threaded

from fcdcc.coding import make_code
from fcdcc.pipeline.anyk import ERASED, AnyK, AnyKError, Readiness, any_k
from support.anyk_graphs import ENOUGH, N, decode, gathered, in_parts


def values_of(there: dict[int, Any], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return there, args, kwargs


def make_node(**options: Any) -> AnyK:
    return AnyK("node", values_of, {0: "a", 2: "b", 5: "c"}, 2, "x", TaskRef("y"), z=1, **options)


GIVEN = {"a": 10, "b": 20, "c": 30, "y": 40}


def test_the_function_gets_the_values_by_position_and_the_other_arguments() -> None:
    node = make_node()
    assert node.dependencies == {"a", "b", "c", "y"}
    assert node.shares == {0: "a", 2: "b", 5: "c"}
    assert node(GIVEN) == ({0: 10, 2: 20, 5: 30}, ("x", 40), {"z": 1})


def test_what_was_given_up_is_left_out() -> None:
    node = make_node().substitute({"b": DataNode("b", ERASED)})
    assert node.dependencies == {"a", "c", "y"}
    assert node.shares == {0: "a", 5: "c"}
    assert node({"a": 10, "c": 30, "y": 40}) == ({0: 10, 5: 30}, ("x", 40), {"z": 1})


def test_positions_stay_when_tasks_are_renamed() -> None:
    node = make_node(own=5, standby=[2], seats={0: 7}, plain=[0, 2])
    renamed = node.substitute({"b": "bb", "y": "yy"}, key="other")
    assert renamed.key == "other"
    assert renamed.shares == {0: "a", 2: "bb", 5: "c"}
    assert renamed({"a": 1, "bb": 2, "c": 3, "yy": 4}) == ({0: 1, 2: 2, 5: 3}, ("x", 4), {"z": 1})
    for item in (node, renamed):
        assert (item.enough, item.own, item.standby) == (2, 5, {2})
        assert (item.seats, item.plain) == ((7, 2, 5), {0, 2})
    assert node.substitute({}) is node
    assert node.substitute({"elsewhere": "e"}) is node


@pytest.mark.parametrize("erased", [False, True])
def test_a_node_survives_pickling_and_copying(erased: bool) -> None:
    node = make_node(own=2)
    if erased:
        node = node.substitute({"a": DataNode("a", ERASED)})
    for copy in (pickle.loads(pickle.dumps(node)), node.copy()):
        assert type(copy) is AnyK
        assert copy == node
        assert copy.dependencies == node.dependencies
        assert copy(GIVEN) == node(GIVEN)


def test_erased_is_the_same_object_after_pickling() -> None:
    assert pickle.loads(pickle.dumps(ERASED)) is ERASED


def test_different_nodes_have_different_tokens() -> None:
    variants = [
        make_node(),
        make_node(own=0),
        make_node(standby=[0]),
        make_node(seats={0: 1}),
        make_node(plain=[0]),
        AnyK("node", values_of, {0: "a", 2: "b", 5: "c"}, 3, "x", TaskRef("y"), z=1),
        AnyK("node", values_of, {0: "a", 2: "b", 4: "c"}, 2, "x", TaskRef("y"), z=1),
    ]
    assert len({tokenize(node) for node in variants}) == len(variants)
    assert tokenize(make_node()) == tokenize(make_node())
    assert hash(make_node()) == hash(make_node())


def test_readiness_is_a_number_a_predicate_or_the_own_share() -> None:
    code = make_code("crme", n=6, k_a=4, k_b=4)
    by_code = AnyK("node", values_of, {p: f"s{p}" for p in range(6)}, code.is_decodable, own=5)
    assert isinstance(code.is_decodable, Readiness)
    for node in (by_code, pickle.loads(pickle.dumps(by_code))):
        assert not node.is_ready({0, 1, 2})
        assert node.is_ready({0, 1, 2, 4})
        assert node.is_ready({5})
    assert tokenize(by_code) == tokenize(by_code.copy())
    assert not make_node().is_ready({0})
    assert make_node().is_ready({0, 5})


def test_a_sequence_of_shares_is_numbered() -> None:
    node = any_k("node", values_of, ["a", "b"], 1, own=1)
    assert node.shares == {0: "a", 1: "b"}
    assert node.own == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shares": {}}, "no shares"),
        ({"shares": {0: "a", 1: "a"}}, "same task"),
        ({"enough": 0}, "expected 1 to 2"),
        ({"enough": 3}, "expected 1 to 2"),
        ({"own": 2}, r"own names \[2\]"),
        ({"standby": [0, 7]}, r"standby names \[7\]"),
        ({"seats": {3: 0}}, r"seats names \[3\]"),
        ({"plain": [9]}, r"plain names \[9\]"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(changes: dict[str, Any], said: str) -> None:
    given = {"shares": {0: "a", 1: "b"}, "enough": 1} | changes
    shares, enough = given.pop("shares"), given.pop("enough")
    with pytest.raises(AnyKError, match=said):
        AnyK("node", values_of, shares, enough, **given)


@pytest.mark.parametrize("get", [get_sync, get_threaded])
@pytest.mark.parametrize("build", [gathered, in_parts])
def test_without_a_cluster_a_node_gets_all_shares(get: Any, build: Any) -> None:
    graph = build(3)
    assert get(graph.tasks, graph.results) == tuple((3.0, tuple(range(N))) for _ in graph.results)


def as_array(graph: Any) -> da.Array:
    """Return a Dask array with tasks after the any-k node of a graph."""
    key = ("decoded", 0)
    tasks = {**graph.tasks, key: Task(key, np.atleast_1d, TaskRef(("first", 0)))}
    tasks["first", 0] = Task(("first", 0), itemgetter(0), TaskRef(graph.results[0]))
    layer = HighLevelGraph.from_collections("decoded", tasks, ())
    return da.Array(layer, "decoded", chunks=((1,),), dtype=float)


def test_an_optimised_dask_array_keeps_its_any_k_nodes_and_shares() -> None:
    graph = gathered(7)
    array = (as_array(graph) + 1.0) * 2.0
    (optimised,) = dask_optimize(array)
    left = dict(optimised.__dask_graph__())
    node = left[graph.results[0]]
    assert isinstance(node, AnyK)
    assert node.shares == graph.shares
    assert set(graph.shares.values()) <= left.keys()
    assert array.compute(scheduler="sync").tolist() == [16.0]


def dask_optimize(*collections: Any) -> tuple[Any, ...]:
    import dask

    return tuple(dask.optimize(*collections))


def test_shares_that_were_merged_with_their_inputs_still_arrive() -> None:
    keys = [f"s{p}" for p in range(N)]
    tasks: dict[Any, Any] = {f"x{p}": Task(f"x{p}", np.full, 8, 2.0) for p in range(N)}
    tasks |= {k: Task(k, np.multiply, TaskRef(f"x{p}"), p + 1) for p, k in enumerate(keys)}
    node = any_k("node", decode, keys, ENOUGH)
    tasks["node"] = node
    tasks["decoded", 0] = Task(("decoded", 0), np.array, TaskRef("first"), ndmin=1)
    tasks["first"] = Task("first", itemgetter(0), TaskRef("node"))
    layer = HighLevelGraph.from_collections("decoded", tasks, ())
    array = da.Array(layer, "decoded", chunks=((1,),), dtype=float)
    assert array.compute(scheduler="sync").tolist() == [2.0]
