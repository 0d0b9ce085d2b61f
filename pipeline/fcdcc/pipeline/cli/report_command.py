"""``fcdcc report``."""

from __future__ import annotations

from io import StringIO

import click
from rich.console import Console

from .results import check_can_write, write_result


@click.command()
@click.argument("output")
@click.option(
    "--html", "html_file", metavar="FILE", help="write one self-contained HTML file, with pictures"
)
def report(output: str, html_file: str | None) -> None:
    """Say what happened in the runs of OUTPUT so far: times, erasures, decodes, workers.

    Works while a run is going on, and for one that was interrupted.
    """
    if html_file is not None:
        check_can_write(html_file)
    from ..monitoring.report.html_report import report_page
    from ..monitoring.report.recorded_run import read_past, showable
    from ..monitoring.report.text_report import print_report

    past = read_past(output)
    if html_file is not None:
        write_result(html_file, report_page(showable(past, report_page)))
        if html_file != "-":
            click.echo(f"fcdcc: the report is in {html_file}", err=True)
        return
    print_report(showable(past, lambda some: print_report(some, Console(file=StringIO()))))
