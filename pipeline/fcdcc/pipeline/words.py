"""What the words of plans, reports and the page ``/fcdcc`` mean: each is explained here once.

Tables on a terminal explain their words below them; pages have a list of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

WORKER_ORDER = (
    "those that do not answer, those far behind the others, then by pace, the slowest first; "
    "those that are gone last"
)
"""The order of the workers in tables."""

DEPARTURES = ("removed", "lost", "retired")
"""How workers leave."""

WAITED_FOR_LOST_INPUT = "waited for input that was lost elsewhere"
"""What pictures say of :attr:`.anyk.state_machine.history.ShareRecord.waited_for_lost_input`."""

_AMPLIFICATION = (
    "by how much decoding may amplify rounding; 1 is not at all; above 1,000, in float64 above 100 "
    "million, one more share is waited for"
)

PLAN_WORDS = {
    "block": "images that go through the network together",
    "share": "one of the n parts that the work on a block is cut into; it computes the "
    "convolutions up to a point of the network, and is a task of one worker",
    "protected": "computed in shares of which some may be lost or late. The table says at which "
    "point: 'here' is the layer at whose output shares are checked, and a layer before it is "
    "computed by the same shares, so it is protected there, too",
    "point": "where the run goes on as soon as enough shares are there, δ of n; what is missing is "
    "decoded from them. k_a × k_b, sent, memory and condition belong to a point",
    "parity": "the shares beyond the first δ: each stands in for any missing one",
    "redundancy": "when parity starts",
    "k_a × k_b": "into how many parts the input (k_a) and the filters (k_b) of a layer are cut: "
    "the result has k_a · k_b parts, and a share is as much work as k_a · k_b / δ of them, where δ "
    "shares suffice",
    "output": "whether the parts of a layer's output stay with their workers (in place) or go to "
    "one worker (gathered)",
    "work": "the layer's multiply-adds, as a part of those of the network without a code",
    "sent": "bytes that workers send to each other for an image",
    "memory": "of the largest task, which may be a parity share that runs only when "
    "another is late",
    "condition": "the condition number after the worst loss that is tolerated: " + _AMPLIFICATION,
}
"""What the words of a plan mean."""

WORDS = {
    "group": "one coded layer of one block of images: some of its shares suffice to have its "
    "output",
    "share": PLAN_WORDS["share"],
    "shares needed": "how many of the shares of a group suffice, whichever they are",
    "parity share": "a share that stands in for any missing one; it starts when one is late",
    "k_a × k_b": PLAN_WORDS["k_a × k_b"],
    "not waited for": "a share was late on its worker, and was given up there: the group was "
    "complete without it, or another worker had computed it, too",
    "lost with it": "shares that a worker had when it ended, was removed or did not answer; they "
    "were computed again where they were needed",
    "decoded": "a missing part was computed from other shares",
    "ghost": "a share, or another task, that a worker is still busy with, though no task needs it "
    "any more",
    "waiting saved": "for how long results would have waited for shares that were given up, as far "
    "as their workers were seen to be busy with them",
    "extra work": "arithmetic beyond what the network takes without coding",
    "time to output": "from when a worker was given a group's first share until the group's output "
    "was there, on average; shares wait on their worker while it computes others",
    "time to slowest share": "until the last of its shares was done, or could have been at the "
    "earliest: how long the group would have taken if it had waited for all",
    "one share": "how long a share of this layer takes, usually",
    "work of a share": "which part of the network's arithmetic a share of this layer does, with "
    "that of the layers before it that it computes, too",
    "measured time": "which part of the time of all shares the shares of this layer took",
    "condition number": _AMPLIFICATION,
    "pace": "time that a worker takes for a share, relative to the usual time: the median of the "
    "latest shares of the same layer on all workers; 2.0 × is twice as long, less than 1 × is "
    "faster. Only shares that it finished count. All workers may be below 1 × where shares have "
    "just become faster, for example because fewer workers use the same cores, and above where "
    "they have become slower, for example because other programs do",
    "late task": "a task that takes unusually long and that nothing else can replace, such as a "
    "read, a write, or a share that must not be lost, too: another worker starts it again, and the "
    "first result counts",
    "late on average": "for how long a worker was busy with a share after it was given up, at "
    "least; – if it was not seen busy with one",
    "longest late": "the largest of these times",
    "removed": "the worker did not answer, and the run went on without it; it counts as lost",
    "lost": "the run went on without the worker: its process or its connection ended, or it was "
    "removed",
    "retired": "the worker left as requested",
}
"""What the words of the reports and of the page mean."""


def explained(names: Iterable[str], words: Mapping[str, str] = WORDS) -> Iterator[str]:
    """Yield a line for each of some words.

    >>> list(explained(["decoded"]))
    ['decoded: a missing part was computed from other shares']
    """
    for name in names:
        yield f"{name}: {words[name]}"
