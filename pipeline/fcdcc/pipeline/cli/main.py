"""The group of commands, and how their errors end."""

from __future__ import annotations

from typing import Any

import click

from fcdcc.coding import __version__
from fcdcc.coding.errors import FcdccError
from fcdcc.storage.errors import LockedError

from ..errors import ClusterLostError
from .codes_command import codes
from .demo_command import demo
from .exit_codes import ExitCode
from .ingest_command import ingest
from .interruption import interruptible
from .plan_command import plan
from .report_command import report
from .run_command import run
from .schedule_command import schedule
from .status_command import status, verify


class _Commands(click.Group):
    """A group whose commands end with one line and an exit code where a user went wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of ours become a line and a code."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except FcdccError as error:
            code = _code_of(error)
            _say(str(error))
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
            _say("interrupted: run the same command again to continue")
        return ctx.exit(code)


def _code_of(error: FcdccError) -> ExitCode:
    """Return the exit code that stands for an error of ours."""
    if isinstance(error, LockedError):
        return ExitCode.LOCKED
    return ExitCode.UNEXPECTED if isinstance(error, ClusterLostError) else ExitCode.BAD_INPUT


def _say(message: str) -> None:
    """Print one line to standard error, without what would steer the terminal."""
    line = "".join(c if c.isprintable() else "�" for c in " ".join(message.split()))
    click.echo(f"fcdcc: {line}", err=True)


@click.group(name="fcdcc", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fcdcc")
def main() -> None:
    """Coded convolution on Dask: batch inference that waits for nobody."""


main.add_command(run)
main.add_command(plan)
main.add_command(status)
main.add_command(verify)
main.add_command(report)
main.add_command(ingest)
main.add_command(codes)
main.add_command(schedule)
main.add_command(demo)
