"""``fcdcc report``."""

from __future__ import annotations

from io import StringIO

import click
from rich.console import Console

from .command_output import STDOUT, check_can_write, write_result


@click.command()
@click.argument("output")
@click.option(
    "--html", "html_file", metavar="FILE", help="write the report, with figures, as one HTML file"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of text")
def report(output: str, html_file: str | None, as_json: bool) -> None:
    """Report what happened in the runs of OUTPUT so far: times, workers, faults.

    This works while a run is in progress, and after a run that was interrupted.
    """
    if html_file is not None:
        check_can_write(html_file)
    from ..monitoring.report.html_report import render_report
    from ..monitoring.report.json_report import report_json
    from ..monitoring.report.recorded_run import read_report, showable
    from ..monitoring.report.text_report import print_report

    found = read_report(output)
    if html_file is not None:
        write_result(html_file, render_report(showable(found, render_report)))
        if html_file != STDOUT:
            click.echo(f"fcdcc: the report is in {html_file}", err=True)
    if as_json:
        click.echo(report_json(showable(found, report_json)))
    elif html_file is None:
        print_report(showable(found, lambda part: print_report(part, Console(file=StringIO()))))
