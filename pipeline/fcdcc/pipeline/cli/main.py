"""The group of all commands, and how their errors become messages and exit codes."""

from __future__ import annotations

import logging
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import click

from fcdcc.coding import __version__
from fcdcc.coding.errors import FcdccError
from fcdcc.storage.errors import LockedError, OutputGoneError, UnreachableError

from ..errors import (
    ClusterLostError,
    NoWorkersError,
    SchedulerUnreachableError,
    bad_values_refused,
    full_line,
)
from ..formatting import printable
from ..runtime.fork_server import single_threaded_libraries
from .command_output import choose_form, prints_json, say
from .process_exit import ExitCode, end_process, interruptible


class _Listed(NamedTuple):
    """A command that is imported only when it is used.

    Parameters
    ----------
    module
        The module beside this one that has the command, under the name of the command.
    summary
        What the list of commands says of it.
    """

    module: str
    summary: str


COMMANDS = {
    "run": _Listed("run_command", "Run MODEL over images and write predictions; continue a run."),
    "plan": _Listed("plan_command", "Show what would run and what it costs; nothing runs."),
    "status": _Listed("status_command", "Show which blocks are done, missing or failed, and why."),
    "verify": _Listed("status_command", "Read every stored chunk and compare it with its record."),
    "report": _Listed("report_command", "Report times, workers and faults of the runs so far."),
    "ingest": _Listed("ingest_command", "Make a Zarr array of the pictures in a folder."),
    "export": _Listed("export_command", "Make a model file of a network, with its preparation."),
    "codes": _Listed("codes_command", "Compare all codes: conditioning, error, cost."),
    "schedule": _Listed("schedule_command", "Run a job at the times of a cron line."),
    "demo": _Listed("demo_command", "Classify images while worker processes are stopped."),
}
"""All commands, in the order of the list."""

AFTER_INTERRUPTION = {
    "run": "run the same command again to continue",
    "ingest": "run the same command again to continue",
    "schedule": "no more runs are started; the same command starts the schedule again",
}
"""What to do after Ctrl-C or SIGTERM, by the command."""

NOT_OF_THE_INPUT = (
    ClusterLostError,
    NoWorkersError,
    OutputGoneError,
    SchedulerUnreachableError,
    UnreachableError,
)
"""Errors that are no fault of the options or the input: the same command may succeed later."""


class _CommandGroup(click.Group):
    """A group whose commands end with one line and an exit code on errors and interruptions."""

    def __call__(self, *args: Any, **options: Any) -> NoReturn:
        """Run a command as all that this process does: this is what console scripts call."""
        try:
            super().__call__(*args, **options)
        except SystemExit as ended:
            end_process(ended.code)
        end_process(ExitCode.DONE)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import a command and return it; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        # NumPy would start threads, and a process with threads cannot be forked safely.
        with single_threaded_libraries():
            module = import_module(f".{COMMANDS[cmd_name].module}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of all commands, of which none is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command; find out early whether messages are JSON."""
        if "--log-format=json" in args or ("--log-format", "json") in pairwise(args):
            choose_form("json")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an FcdccError becomes a line on standard error and an exit code."""
        try:
            with interruptible(), bad_values_refused():
                return super().invoke(ctx)
        except FcdccError as error:
            code = _exit_code(error)
            _print_error(str(error))
        except KeyboardInterrupt as interruption:
            code = ExitCode.INTERRUPTED
            what_next = AFTER_INTERRUPTION.get(str(ctx.invoked_subcommand), "")
            done = "; ".join(getattr(interruption, "__notes__", ()))
            _print_error(": ".join(filter(None, ("interrupted", done, what_next))))
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # only to print it as JSON; else it goes on as it is
            if not prints_json():
                raise
            if isinstance(error, click.ClickException):
                code = ExitCode(error.exit_code)
                _print_error(error.format_message())
            else:
                code = ExitCode.UNEXPECTED
                say(full_line(error), logging.ERROR, error=error)
        return ctx.exit(code)


def _exit_code(error: FcdccError) -> ExitCode:
    """Return the exit code for an error, which an error that caused it may decide."""
    if isinstance(error, LockedError):
        return ExitCode.LOCKED
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, NOT_OF_THE_INPUT):
            return ExitCode.UNEXPECTED
        found = found.__cause__
    return ExitCode.BAD_INPUT


def _print_error(message: str) -> None:
    """Print an error as one line to standard error, without terminal control characters."""
    say(printable(" ".join(message.split())), logging.ERROR)


@click.group(
    name="fcdcc", cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="fcdcc")
def main() -> None:
    """Run a convolutional network over many images, on Dask.

    Slow and lost workers do not delay it, up to a number of your choice.
    """
