"""Finds pictures in a folder, and reads one as pixels of a given size.

The files are not trusted: only JPEG, PNG and TIFF are opened, sizes are checked before pixels are
decoded, and links that leave the folder are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import InputError

__all__ = ["Fit", "Found", "PictureError", "PictureForm", "find_pictures", "read_picture"]

FORMATS = ("JPEG", "PNG", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})

Fit = Literal["exact", "crop", "stretch", "pad"]
Colour = Literal["rgb", "grey"]

MODES: dict[str, tuple[str, int]] = {"rgb": ("RGB", 3), "grey": ("L", 1)}
"""Pillow's mode and the number of channels of each colour."""

MODES_OF_16_BITS = ("I;16", "I;16L", "I;16B")
"""Pillow's modes of 16-bit grey pictures, which its ``convert`` clips instead of scaling."""

EXIF_ORIENTATION = 0x0112
EXIF_FIRST_SIDEWAYS = 5
"""The EXIF tag of the orientation, and its first value that exchanges height and width."""


class PictureError(InputError):
    """One picture that cannot be used."""


@dataclass(frozen=True)
class Found:
    """A file in a folder: its name there, with ``/``, and the reason if it cannot be used."""

    name: str
    problem: str | None = None


@dataclass(frozen=True)
class PictureForm:
    """The form that every picture is converted to.

    Parameters
    ----------
    height, width
        In pixels.
    fit
        ``exact``: another size is an error; ``crop``: scaled until it covers the size, then
        the middle is cut out; ``stretch``: scaled to the size; ``pad``: scaled until it fits,
        the rest is black.
    resize
        For ``crop``: the length in pixels to which the shorter side is scaled before the cut.
    colour
        ``rgb`` or ``grey``.
    max_pixels
        A picture with more pixels is not decoded.
    """

    height: int
    width: int
    fit: Fit = "crop"
    resize: int | None = None
    colour: Colour = "rgb"
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        if self.resize is not None and (
            self.fit != "crop" or self.resize < max(self.height, self.width)
        ):
            raise InputError(
                f"the shorter side at {self.resize} pixels for {self.height} × {self.width} by "
                f"{self.fit}; expected crop, and no less than {max(self.height, self.width)}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (self.height, self.width, MODES[self.colour][1])


def find_pictures(folder: Path) -> Iterator[Found]:
    """Yield the files under a folder with a suffix of pictures, sorted by name, no hidden ones.

    Links to files inside the folder are followed, links to folders are not.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one with JPEG, PNG or TIFF files")
    root = folder.resolve()
    yield from _walk(folder, "", root)


def _walk(folder: Path, prefix: str, root: Path) -> Iterator[Found]:
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.is_symlink():
                yield Found(name, "it is a link to a folder, which is not followed")
            else:
                yield from _walk(Path(entry.path), f"{name}/", root)
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            leaves = entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root)
            yield Found(name, "it is a link that leaves the folder" if leaves else None)


def read_picture(path: Path, form: PictureForm) -> NDArray[np.uint8]:
    """Return a picture as (height, width, channels), rotated as its EXIF data says.

    Raises
    ------
    PictureError
        If it is damaged, too large, of another format, or has more than one page.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > form.max_pixels:
                raise PictureError(
                    f"it has {picture.width} × {picture.height} pixels; at most "
                    f"{form.max_pixels} are decoded"
                )
            if getattr(picture, "n_frames", 1) > 1:
                raise PictureError("it has several pages; expected one")
            upright = ImageOps.exif_transpose(_eight_bits(picture))
            return _pixels(_fitted(upright.convert(MODES[form.colour][0]), form))
    except PictureError:
        raise
    except Exception as error:  # damaged files raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"it cannot be read: {reason.replace(str(path), 'it')}") from error


def picture_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a picture, rotated as its EXIF data says, without decoding it.

    Raises
    ------
    PictureError
        If it cannot be opened.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            sideways = picture.getexif().get(EXIF_ORIENTATION, 1) >= EXIF_FIRST_SIDEWAYS
            height, width = picture.height, picture.width
    except Exception as error:
        raise PictureError(f"it cannot be read: {error}") from error
    return (width, height) if sideways else (height, width)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Return a picture of 8 bits per channel; 16-bit grey is scaled."""
    if picture.mode in MODES_OF_16_BITS:
        scaled = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        scaled.info = picture.info
        return scaled
    if picture.mode in ("I", "F"):
        raise PictureError("it has 32 bits per pixel; expected 8 or 16")
    return picture


def _fitted(picture: Image.Image, form: PictureForm) -> Image.Image:
    size = (form.width, form.height)
    if form.fit == "exact" and picture.size != size:
        raise PictureError(
            f"it has {picture.height} × {picture.width} pixels; expected {form.height} × "
            f"{form.width}"
        )
    if picture.size == size and form.resize is None:
        return picture
    bilinear = Image.Resampling.BILINEAR
    if form.fit == "stretch":
        return picture.resize(size, bilinear)
    if form.fit == "pad":
        return ImageOps.pad(picture, size, bilinear)
    if form.resize is None:
        return ImageOps.fit(picture, size, bilinear)
    scale = form.resize / min(picture.size)
    scaled = picture.resize((round(picture.width * scale), round(picture.height * scale)), bilinear)
    left, top = (scaled.width - form.width) // 2, (scaled.height - form.height) // 2
    return scaled.crop((left, top, left + form.width, top + form.height))


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
