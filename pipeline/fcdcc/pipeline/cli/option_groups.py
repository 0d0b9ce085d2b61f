"""Groups of options: the sections of a command's help and of the template of a job file."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from pydantic.fields import FieldInfo

from ..options import ARGUMENTS, CommandOptions, JobConfig

OPTION_GROUPS: dict[str, tuple[str, ...]] = {
    "Common options": (
        *("config", "print_config", "html_file"),
        *("batch", "limit", "store", "classes", "workers", "scheduler", "restart", "progress"),
    ),
    "Images and their preparation": (
        *("input_array", "channels", "scale", "mean", "std", "absent", "compare"),
        "inputs",
    ),
    "What is predicted": ("outputs", "head", "threshold"),
    "Tiles of large images": ("tile", "overlap", "blend"),
    "Redundancy against lost workers": ("n", "tolerate", "redundancy", "verify", "code", "split"),
    "Computation": (
        *("engine", "dtype", "torch_threads", "memory", "band", "in_flight"),
        *("plan", "objective", "calibrate"),
    ),
    "Cluster": (
        *("processes", "threads_per_worker", "dashboard_address"),
        *("tls_ca_file", "tls_cert", "tls_key"),
    ),
    "Result and logs": ("json", "log_level", "log_format"),
}
"""The options of each group, the most common first. Those of no group come last."""

OTHER_OPTIONS = "Other options"

COMMENT_WIDTH = 78
"""Characters of a line in the template of a job file."""


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups.

    Parameters
    ----------
    groups
        The names of the options of each group, by its title; by default those of jobs.
    """

    def __init__(
        self, *args: Any, groups: Mapping[str, Sequence[str]] = OPTION_GROUPS, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each group below its name."""
        rows = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None and param.name is not None:
                rows[param.name] = record
        for title, names in self._groups.items():
            found = [rows.pop(name) for name in names if name in rows]
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)
        if rows:
            with formatter.section(OTHER_OPTIONS):
                formatter.write_dl(list(rows.values()))


def job_file_template(given: Mapping[str, Any]) -> str:
    """Return a job file with the given options, and every other one as a comment.

    Each has its meaning, and the others have their defaults. The file can be read as it is once
    the names of the model, the input and the output are right.
    """
    return "\n".join(_template_lines(given))


def _template_lines(given: Mapping[str, Any]) -> Iterator[str]:
    fields = {
        field.alias or name: field
        for model in (JobConfig, CommandOptions)
        for name, field in model.model_fields.items()
    }
    yield "# A job for `fcdcc run --config JOB.toml`. Relative paths start from the folder of this"
    yield "# file, and options on the command line come before those here."
    yield ""
    examples = {"model": "model.pt2", "input": "images.zarr", "output": "predictions.zarr"}
    for name in ARGUMENTS:
        yield from _comment(fields.pop(name).description or "")
        yield f"{name} = {_toml(given.get(name, examples[name]))}"
    for title, names in OPTION_GROUPS.items():
        found = [name for name in names if name in fields]
        if not found:
            continue
        yield ""
        yield f"# ---- {title}"
        for name in found:
            field = fields.pop(name)
            yield ""
            yield from _comment(field.description or "")
            key = name.replace("_", "-")
            if name in given:
                yield f"{key} = {_toml(given[name])}"
            else:
                yield f"# {key} = {_shown_value(name, field)}"
    yield ""


def job_file_without_comments(text: str) -> str:
    """Return a job file with the same options, each in one line, and nothing else.

    Parameters
    ----------
    text
        Contents of a job file that :func:`~.job_file.read_job_file` accepts.
    """
    return "".join(f"{key} = {_toml(value)}\n" for key, value in tomllib.loads(text).items())


def _toml(value: object) -> str:
    """Return a text, number, truth value or list as TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # JSON has no inf and nan
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, COMMENT_WIDTH):
        yield f"# {line}"


EXAMPLES: dict[str, Any] = {
    "batch": 32,
    "limit": 1000,
    "classes": "classes.txt",
    "workers": 4,
    "scheduler": "tcp://scheduler:8786",
    "progress": True,
    "input_array": "image",
    "channels": [0, 1, 2],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "inputs": ["threshold=0.5"],
    "outputs": ["out"],
    "head": "probabilities",
    "threshold": 0.5,
    "memory": "4GB",
    "band": 512,
    "tile": [512, 512],
    "overlap": 64,
    "in_flight": 4,
    "plan": "plan.json",
    "tls_ca_file": "ca.pem",
    "tls_cert": "client.pem",
    "tls_key": "client.key",
    "json": "summary.json",
}
"""Values of options that have no default, for the template of a job file."""


def _shown_value(name: str, field: FieldInfo) -> str:
    """Return the default of an option as TOML, or an example where it has none."""
    return _toml(EXAMPLES[name] if field.default is None else field.default)
