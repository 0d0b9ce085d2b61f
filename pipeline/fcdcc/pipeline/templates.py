"""HTML templates: files in the folder ``templates`` of a package, filled in by Jinja.

Every value is escaped. The functions of :mod:`.formatting` are filters by their names.
"""

from __future__ import annotations

from functools import cache

import jinja2

from . import formatting

_FORMATS = (
    "amount", "clock", "count", "duration", "percent", "rate", "rounded", "time_left", "times",
)  # fmt: skip


def environment(
    package: str,
    *more: jinja2.BaseLoader,
    undefined: type[jinja2.Undefined] = jinja2.StrictUndefined,
) -> jinja2.Environment:
    """Return the templates of a package; by default a value that is missing is an error.

    Parameters
    ----------
    package
        Full name of the package that has the folder ``templates``.
    more
        Where to look for templates that this folder does not have.
    undefined
        What a value that is missing stands for.
    """
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), *more]),
        autoescape=True,
        undefined=undefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({name: getattr(formatting, name) for name in _FORMATS})
    return made


@cache
def _environment(package: str) -> jinja2.Environment:
    return environment(package)


def render(package: str, name: str, /, **values: object) -> str:
    """Return a package's template as HTML, filled in with values."""
    return _environment(package).get_template(name).render(values)
