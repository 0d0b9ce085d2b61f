"""``fcdcc report``."""

from __future__ import annotations

import click

from .results import check_can_write, write_result

__all__ = ["report"]


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
    from ..watch.past import read_past

    past = read_past(output)
    if html_file is not None:
        from ..watch.report_page import report_page

        write_result(html_file, report_page(past))
        if html_file != "-":
            click.echo(f"fcdcc: the report is in {html_file}", err=True)
        return
    from ..watch.report_text import print_report

    print_report(past)
