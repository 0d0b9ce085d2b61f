from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.anyk.state_machine.seats import Seatable, assign, interleave


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Seatable, ...]:
    hosts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    return interleave(
        Seatable(f"host{h}:{w}", f"host{h}", draw(st.booleans()))
        for h, workers in enumerate(hosts)
        for w in range(workers)
    )


@given(clusters(), st.integers(1, 12), st.integers(0, 50))
def test_seats_are_spread_evenly(workers: tuple[Seatable, ...], count: int, rotation: int) -> None:
    seats = assign(range(count), {}, workers, rotation)
    assert seats.keys() == set(range(count))
    loads = Counter(seats.values())
    assert max(loads.values()) <= -(-count // len(workers))
    assert len(loads) == min(count, len(workers))


@given(clusters(), st.integers(1, 12), st.integers(0, 50))
def test_no_two_seats_share_a_host_while_there_are_hosts_enough(
    workers: tuple[Seatable, ...], count: int, rotation: int
) -> None:
    willing = tuple(Seatable(w.address, w.host) for w in workers)
    host = {w.address: w.host for w in willing}
    seats = assign(range(count), {}, willing, rotation)
    if count <= len(set(host.values())):
        assert len({host[address] for address in seats.values()}) == count


@given(clusters(), st.integers(1, 12), st.integers(0, 50))
def test_avoided_workers_get_seats_only_when_the_others_have_one(
    workers: tuple[Seatable, ...], count: int, rotation: int
) -> None:
    seats = assign(range(count), {}, workers, rotation)
    avoided = {w.address for w in workers if w.avoid_rank}
    if set(seats.values()) & avoided:
        assert {w.address for w in workers} - avoided <= set(seats.values())


@given(clusters(), st.integers(1, 12), st.integers(0, 50), st.data())
def test_the_seats_of_a_lost_worker_move_and_the_others_stay(
    workers: tuple[Seatable, ...], count: int, rotation: int, data: st.DataObject
) -> None:
    before = assign(range(count), {}, workers, rotation)
    lost = data.draw(st.sampled_from(workers))
    left = tuple(w for w in workers if w is not lost)
    kept = {seat: address for seat, address in before.items() if address != lost.address}
    after = assign(range(count), kept, left, rotation)
    assert kept.items() <= after.items()
    assert lost.address not in after.values()


def test_every_worker_gets_every_position_in_turn() -> None:
    workers = interleave(Seatable(name, name) for name in "abcdef")
    at_zero = [assign(range(6), {}, workers, block)[0] for block in range(6)]
    assert sorted(at_zero) == list("abcdef")


def test_a_rack_holds_positions_that_are_far_apart() -> None:
    workers = interleave(Seatable(f"{h}{w}", h) for h in "abcde" for w in range(4))
    seats = assign(range(20), {}, workers, 0)
    assert [seat for seat, address in seats.items() if address[0] == "a"] == [0, 5, 10, 15]


def test_without_workers_there_are_no_seats() -> None:
    assert assign(range(3), {}, (), 0) == {}


def test_who_does_not_answer_comes_after_who_is_only_late() -> None:
    workers = (
        Seatable("late", "a", avoid_rank=1, load=9.0, pace=3.0),
        Seatable("silent", "a", avoid_rank=2),
        *(Seatable(name, "a") for name in ("w0", "w1", "w2")),
    )
    seats = assign(range(4), {}, workers, rotation=0)
    assert set(seats.values()) == {"w0", "w1", "w2", "late"}
