"""How people watch a run: the dashboard's page, metrics, the run's journal and the report.

::

    dashboard/    on the scheduler: collects what happens in runs; page, JSON, Prometheus metrics
    record/       in the run: reports to the scheduler, counts work, writes the journal
    report/       reads journals: ``fcdcc report``, ``fcdcc status``
    progress      bars and lines while a run goes on
    stragglers    which workers are slow, and why
    templates/    HTML of the page, of the report and of the bar in notebooks
"""
