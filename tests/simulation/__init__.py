"""The any-k state machine on a cluster that is only imagined: thousands of workers in seconds.

:mod:`.cluster` does what Dask's scheduler and workers do, as far as the state machine can tell,
on a clock of its own; the state machine is the real one. :mod:`.graphs` has the tasks,
:mod:`.traces` how long they take and who fails, :mod:`.policies` what a user has instead.
"""

from __future__ import annotations

from simulation.cluster import SimulatedCluster
from simulation.graphs import SimulatedBlock, chain, one_layer, simulated
from simulation.outcome import Outcome
from simulation.policies import Nothing, Oracle, Policy, TaskSpeculation
from simulation.traces import HeavyTail, ShiftedExponential, SlowShares, Steady, Times

__all__ = [
    "HeavyTail",
    "Nothing",
    "Oracle",
    "Outcome",
    "Policy",
    "ShiftedExponential",
    "SimulatedBlock",
    "SimulatedCluster",
    "SlowShares",
    "Steady",
    "TaskSpeculation",
    "Times",
    "chain",
    "one_layer",
    "simulated",
]
