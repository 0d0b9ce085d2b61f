"""Finds scripts that a worker process would run again: those without a main guard.

A worker process of a local cluster imports the script that started it, as Python's multiprocessing
does wherever processes are not plain forks. A script that calls :func:`fcdcc.pipeline.run` on its
outermost level would call it again in each worker.
"""

from __future__ import annotations

import ast
import sys
from multiprocessing import process
from pathlib import Path
from types import FrameType

from ..errors import MainGuardError

ADVICE = (
    'put the call under `if __name__ == "__main__":`, or use threads (processes=False) or a '
    "running cluster (scheduler=...)"
)

_CONDITIONS = (ast.If, ast.IfExp, ast.BoolOp, ast.Match, ast.While, ast.Try)
"""Statements that may keep a call from being made in a worker process."""


def check_main_guard() -> None:
    """Raise MainGuardError if worker processes would make the call of this function again.

    Raises
    ------
    MainGuardError
        If the call comes from the outermost level of the script that Python was started with,
        and is under no condition.
    SystemExit
        In a worker process that runs the script again; it ends without a word, as its parent
        says what is wrong.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise SystemExit(1)
    found = script_line()
    if found is not None and _is_unconditional(*found):
        path, line = found
        raise MainGuardError(
            f"{path}, line {line}, starts worker processes, and each of them would run the script "
            f"again: {ADVICE}"
        )


def script_line() -> tuple[Path, int] | None:
    """Return the file and the line of the script that a call comes from.

    None if it does not come from the outermost level of a script, or worker processes would not
    import that: notebooks, ``python -c``, ``python -m package``.
    """
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    path = getattr(main, "__file__", None)
    if main is None or path is None or (name or "").rpartition(".")[2] == "__main__":
        return None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            return Path(path), frame.f_lineno
        frame = frame.f_back
    return None


def _is_unconditional(path: Path, line: int) -> bool:
    """Return whether a line of a script is under no condition; False where that is not known."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt | ast.expr)
        and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return bool(around) and not any(isinstance(node, _CONDITIONS) for node in around)
