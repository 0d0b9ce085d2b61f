"""The any-k state machine on a simulated cluster: thousands of workers in seconds.

:mod:`.cluster` does what Dask's scheduler and workers do, as far as the state machine can observe,
on a clock of its own; the state machine is the real one. :mod:`.graphs` has the tasks,
:mod:`.traces` says how long they take, :mod:`.policies` has the alternatives to the state machine.
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
