"""Results of commands in files: whole or not at all, since others wait for them."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import OptionError

STDOUT = "-"


def check_can_write(path: str) -> None:
    """Refuse a file that cannot be written, before hours of work end with it.

    Raises
    ------
    OptionError
        If it is a folder, or lies in one that is not there or not to be written.
    """
    if path == STDOUT:
        return
    file = Path(path)
    place = file if file.exists() else file.parent
    if file.is_dir() or not place.exists() or not os.access(place, os.W_OK):
        raise OptionError(f"{path} cannot be written: expected a file in a folder that is there")


def write_result(path: str, text: str) -> None:
    """Write a text and a line break to a file, or to standard output for ``-``."""
    if path == STDOUT:
        click.echo(text)
        return
    file = Path(path)
    if file.exists() and not file.is_file():  # a pipe or a device
        file.write_text(text + "\n", encoding="utf-8")
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(file)
