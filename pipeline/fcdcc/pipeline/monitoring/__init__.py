"""What people see of a run: the dashboard's page, metrics, the run's record and the report.

On the scheduler a :class:`.board.RunCollector` adds up what the any-k plugin's history says, and
shows it as a page, as JSON and as Prometheus metrics. A run tells it about its blocks, and
takes over what it says to keep it beside the output, for ``fcdcc report``.
"""
