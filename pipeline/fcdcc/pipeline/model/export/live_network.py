"""A live network with what belongs to it, as each kind of NAME gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch
from torch import nn

from fcdcc.coding.errors import FcdccError

from ...errors import OptionError, full_line
from ..description import ModelPreparation, OutputKind

MAX_REASON = 400
"""Characters of an error of another library in a message."""


NO_PREPARATION = ModelPreparation()


@dataclass(frozen=True, eq=False)
class LiveNetwork:
    """A network that is to be exported.

    Parameters
    ----------
    name
        The NAME that it was found by.
    module
        The network; it takes one tensor of images (batch, C, *space).
    input_shape
        (C, *space) of the images that it is for; None if that is not known.
    preparation
        How images are prepared for it.
    class_names
        In the order of the classes; None if they are not known.
    output
        What its main output is; None if that is not known.
    libraries
        Packages whose versions belong to it.
    notes
        What the user should know about all that, each in one line.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...] | None = None
    preparation: ModelPreparation = NO_PREPARATION
    class_names: tuple[str, ...] | None = None
    output: OutputKind | None = None
    libraries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        found = {}
        for library in ("torch", "fcdcc", *self.libraries):
            try:
                found[library] = version(library)
            except PackageNotFoundError:  # not installed as a package
                continue
        object.__setattr__(self, "versions", found)

    def with_options(
        self,
        preparation: ModelPreparation,
        class_names: tuple[str, ...] | None,
        output: OutputKind | None,
    ) -> LiveNetwork:
        """Return the network with this preparation, and with what else is not None."""
        return replace(
            self,
            preparation=preparation,
            class_names=self.class_names if class_names is None else class_names,
            output=self.output if output is None else output,
        )


def library(name: str, option: str) -> ModuleType:
    """Import an optional library.

    Raises
    ------
    OptionError
        If it is not there, or cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise OptionError(
            f"{option} needs the package {package}, which cannot be imported "
            f"({full_line(error):.200}): install it beside fcdcc, with "
            f"pip install 'fcdcc[{package}]'"
        ) from error
    except Exception as error:  # a library built for another PyTorch may raise anything
        is_torchvision = package == "torchvision"  # which the other libraries import, too
        wrong = "it" if is_torchvision else f"{package} or torchvision"
        needed = "version of torchvision" if is_torchvision else "versions"
        raise OptionError(
            f"{option} needs the package {package}, which cannot be imported "
            f"({full_line(error):.200}): {wrong} probably does not match PyTorch "
            f"{torch.__version__}; install the {needed} for it"
        ) from error


@contextmanager
def errors_refused(what: str, advice: str) -> Iterator[None]:
    """Raise an OptionError in place of any error of other people's code.

    Parameters
    ----------
    what
        What was tried, such as ``the weights of resnet50 cannot be loaded``.
    advice
        What to do.
    """
    try:
        yield
    except FcdccError:
        raise
    except Exception as error:
        raise OptionError(f"{what}: {full_line(error):.{MAX_REASON}}; {advice}") from error
