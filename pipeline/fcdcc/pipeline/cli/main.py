"""The group of all commands, and how their errors become messages and exit codes."""

from __future__ import annotations

from typing import Any

import click

from fcdcc.coding import __version__
from fcdcc.coding.errors import FcdccError
from fcdcc.storage.errors import LockedError

from ..errors import ClusterLostError
from .codes_command import codes
from .demo_command import demo
from .ingest_command import ingest
from .plan_command import plan
from .process_exit import ExitCode, interruptible
from .report_command import report
from .run_command import run
from .schedule_command import schedule
from .status_command import status, verify


class _CommandGroup(click.Group):
    """A group whose commands end with one line and an exit code on errors and interruptions."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an FcdccError becomes a line on standard error and an exit code."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except FcdccError as error:
            code = _exit_code(error)
            _print_error(str(error))
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
            _print_error("interrupted: run the same command again to continue")
        return ctx.exit(code)


def _exit_code(error: FcdccError) -> ExitCode:
    """Return the exit code for an error."""
    if isinstance(error, LockedError):
        return ExitCode.LOCKED
    return ExitCode.UNEXPECTED if isinstance(error, ClusterLostError) else ExitCode.BAD_INPUT


def _print_error(message: str) -> None:
    """Print a message as one line to standard error, without terminal control characters."""
    line = "".join(c if c.isprintable() else "�" for c in " ".join(message.split()))
    click.echo(f"fcdcc: {line}", err=True)


@click.group(
    name="fcdcc", cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="fcdcc")
def main() -> None:
    """Batch inference with coded convolutions on Dask.

    Slow and lost workers do not delay it, up to a number of your choice.
    """


for command in (run, plan, status, verify, report, ingest, codes, schedule, demo):
    main.add_command(command)
