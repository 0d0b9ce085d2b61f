"""Reads pictures as pixels of a given form.

The files are not trusted: only formats that Pillow decodes without other programs are opened, and
sizes are checked before pixels are decoded.

A file is usually one picture, whatever else it holds: the first frame of an animation, the first
picture of a JPEG with several (MPO), the one picture of a TIFF that also has reduced copies and
masks. A TIFF with several full pictures has *pages*.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .checksummed_json import Json
from .errors import InputError
from .regular_files import open_regular

__all__ = [
    "Fit",
    "Interpolation",
    "NoPictureError",
    "Picture",
    "PictureError",
    "PictureForm",
    "decode_picture",
    "has_picture_suffix",
    "is_picture",
    "pillow_settings",
    "read_pages",
    "read_picture",
]

FORMATS = (
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO", "JPEG",
    "JPEG2000", "MCIDAS", "MSP", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TIFF",
    "WEBP", "XBM", "XPM",
)  # fmt: skip
"""Pillow's names of the formats that are recognised by their first bytes, whatever the suffix.

Not among them: EPS, for which Pillow starts Ghostscript, and formats that need libraries which
Pillow does not bring.
"""

FORMATS_BY_SUFFIX = {
    ".tga": "TGA", ".icb": "TGA", ".vda": "TGA", ".vst": "TGA", ".dib": "DIB", ".im": "IM",
    ".pcd": "PCD",
}  # fmt: skip
"""Formats without a signature: they are tried only on files with their suffixes."""

PICTURE_SUFFIXES = frozenset({
    ".apng", ".arw", ".avif", ".avifs", ".bmp", ".cr2", ".cr3", ".dcm", ".dcx", ".dds", ".dib",
    ".dng", ".eps", ".exr", ".flc", ".fli", ".gif", ".heic", ".heif", ".icb", ".icns", ".ico",
    ".im", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl",
    ".nef", ".orf", ".pbm", ".pcd", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi",
    ".raf", ".ras", ".rw2", ".sgi", ".svg", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp",
    ".wmf", ".xbm", ".xpm",
})  # fmt: skip
"""A file with one of these suffixes is meant as a picture, whether it can be read or not."""

PAGED_FORMATS = ("DCX", "TIFF")
"""Formats whose frames are pictures of their own, and no animation or layers."""

NO_PICTURE = "it is no picture of a format that is read"
TEXT = f"{NO_PICTURE}: it holds text"

FORMATS_WITH_LONG_SIGNATURES = ("AVIF", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
"""Formats whose first bytes no file of another kind has."""

FIRST_BYTES = 512
"""Bytes by which a file that Pillow does not know is described."""

SEVERAL_PAGES = "it has several pages; --pages makes an image of each"

PAGES_AT_ONCE = 16
"""Pages that :func:`read_pages` returns from one call."""

Fit = Literal["exact", "crop", "stretch", "pad", "torchvision", "transformers"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Colour = Literal["rgb", "grey"]
Depth = Literal[8, 16]

CUTTING: tuple[Fit, ...] = ("crop", "torchvision", "transformers")
"""The ways to fit a picture that cut out its middle."""

ALWAYS_SCALING: tuple[Fit, ...] = CUTTING[1:]
"""Those of them that scale every picture, also one that has the size already."""

MODES: dict[str, tuple[str, int]] = {"rgb": ("RGB", 3), "grey": ("L", 1)}
"""Pillow's mode and the number of channels of each colour."""

MODES_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of 16-bit grey pictures, which its ``convert`` clips instead of scaling."""

WHITE = 65535
"""The value of white in images of 16 bits."""

WHITE_RATIO = 257
"""65535 / 255: how many values of 16 bits belong to one of 8 bits."""

GREY_WEIGHTS = np.array([299, 587, 114], np.float32) / np.float32(1000)
"""Parts of red, green and blue in grey, as in Pillow (ITU-R BT.601)."""

OTHER_BYTE = {"RGB;16L": "RGB;16B", "RGB;16B": "RGB;16L", "RGBX;16L": "RGBX;16B",
              "RGBX;16B": "RGBX;16L", "RGBA;16L": "RGBA;16B", "RGBA;16B": "RGBA;16L"}  # fmt: skip
"""Pillow's unpackers that take the high byte of each 16-bit sample, with the one that takes the
low byte, which is the unpacker for the other byte order."""

DEEP_UNPACKER = re.compile("(?!BGR)[A-Za-z]+;16[BLN]?")
"""Pillow's unpackers of more than 8 bits per channel; in ``BGR;16`` a whole pixel has 16 bits."""


class _Tag:
    """Numbers of TIFF tags."""

    SUBFILE = 254
    OLD_SUBFILE = 255
    BITS = 258
    PHOTOMETRIC = 262
    DESCRIPTION = 270
    MAX_SAMPLE = 281
    SAMPLE_FORMAT = 339


class PictureError(InputError):
    """One picture that cannot be used."""


class NoPictureError(PictureError):
    """A file that is no picture in a format that is read."""


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
        the rest is black; ``torchvision``: as torchvision's ``Resize(resize)`` and
        ``CenterCrop``, and ``transformers``: as its image processors, whose roundings differ from
        those of ``crop`` by up to one pixel.
    resize
        With a cut: the length in pixels to which the shorter side is scaled before it; by default
        as short as the cut allows for ``crop``, and the longer side of the image for others.
    colour
        ``rgb`` or ``grey``.
    depth
        Bits per channel, 8 or 16. Samples are scaled so that white is 255 or 65535.
    interpolation
        Pillow's filter for scaling, of which all but ``nearest`` average what they make smaller.
    reduce
        Whether pictures of 16 bits are scaled to images of 8 bits; otherwise they are errors.
    max_pixels
        A picture with more pixels is not decoded.
    """

    height: int
    width: int
    fit: Fit = "crop"
    resize: int | None = None
    colour: Colour = "rgb"
    depth: Depth = 8
    interpolation: Interpolation = "bilinear"
    reduce: bool = field(default=False, compare=False)
    max_pixels: int = field(default=100_000_000, compare=False)

    def __post_init__(self) -> None:
        if self.resize is not None and (
            self.fit not in CUTTING or self.resize < max(self.height, self.width)
        ):
            raise InputError(
                f"the shorter side at {self.resize} pixels for {self.height} × {self.width} by "
                f"{self.fit}; expected crop, and no less than {max(self.height, self.width)}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (self.height, self.width, MODES[self.colour][1])

    @property
    def dtype(self) -> str:
        """NumPy's name of the type of the pixels."""
        return "uint16" if self.depth == 16 else "uint8"

    def as_json(self) -> dict[str, Json]:
        """Return what determines the pixels, as JSON."""
        members: dict[str, Json] = asdict(self)
        left_out = {"reduce", "max_pixels"}
        if self.interpolation == "bilinear":  # older versions knew no other one
            left_out.add("interpolation")
        return {name: members[name] for name in members if name not in left_out}


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright, in its own size.

    Parameters
    ----------
    format
        Pillow's name, in lower case.
    content
        If it has 8 bits per channel or fewer, in Pillow's form; if it has more, (height, width,
        1 or 3) of ``uint16``, white 65535.
    """

    format: str
    content: Image.Image | NDArray[np.uint16]

    @property
    def depth(self) -> Depth:
        """Bits per channel of the images that keep its depth."""
        return 8 if isinstance(self.content, Image.Image) else 16

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        content = self.content
        shape = content.size[::-1] if isinstance(content, Image.Image) else content.shape
        return shape[0], shape[1]

    def pixels(self, form: PictureForm) -> NDArray[Any]:
        """Return (height, width, channels) of the form and its type.

        Raises
        ------
        PictureError
            If the picture does not have the form's size or depth, where it must.
        """
        if isinstance(self.content, Image.Image):
            image = _fitted(self.content.convert(MODES[form.colour][0]), form)
            pixels = np.asarray(image, dtype=np.uint8).reshape(form.shape)
            return pixels if form.depth == 8 else pixels.astype(np.uint16) * np.uint16(WHITE_RATIO)
        if form.depth == 8 and not form.reduce:
            raise PictureError(
                "it has 16 bits per channel and the images have 8: --depth 8 scales it, and "
                "--depth 16 keeps the bits in new images"
            )
        bands = [_fitted(Image.fromarray(band), form) for band in _bands(self.content, form.colour)]
        values = np.stack([np.asarray(band) for band in bands], axis=-1)
        if form.depth == 8:
            values /= np.float32(WHITE_RATIO)
        rounded: NDArray[Any] = np.rint(values).astype(form.dtype)
        return rounded


def has_picture_suffix(name: str) -> bool:
    """Return whether a file is meant as a picture by the end of its name."""
    return _suffix(name) in PICTURE_SUFFIXES


def _suffix(name: str | Path) -> str:
    return Path(name).suffix.lower()


@contextlib.contextmanager
def pillow_settings() -> Iterator[None]:
    """Let ``max_pixels`` be the only limit of size, and keep Pillow's warnings off the terminal."""
    Image.init()
    kept = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = kept


def read_picture(path: Path, form: PictureForm) -> NDArray[Any]:
    """Return a picture as (height, width, channels), rotated as its EXIF data says.

    Raises
    ------
    PictureError
        If it is damaged, too large, of another format, or has more than one page.
    """
    return decode_picture(path, form.max_pixels).pixels(form)


def decode_picture(path: Path, max_pixels: int, *, several: bool = False) -> Picture:
    """Return a picture in its own size, rotated as its EXIF data says.

    With ``several`` it is the first page of a file that may have more.

    Raises
    ------
    PictureError
        As :func:`read_picture`.
    """
    with _opened(path) as picture:
        pages = _pages(picture)
        _seek(picture, next(pages))
        decoded = _decode(path, picture, max_pixels)
        if not several and next(pages, None) is not None:
            raise PictureError(SEVERAL_PAGES)
        return decoded


def is_picture(path: Path) -> bool:
    """Return whether a file begins like a picture of a format that is read."""
    try:
        with _opened(path):
            return True
    except PictureError:
        return False


def read_pages(
    path: Path, form: PictureForm, first: int = 1, *, several: bool = False
) -> tuple[list[tuple[int | None, NDArray[Any] | PictureError]], str, int | None]:
    """Return some of the pages of a file.

    Parameters
    ----------
    first
        The number of the first page, from 1.
    several
        Whether the file may have more than one page.

    Returns
    -------
    (list, str, int or None)
        Numbers of pages, each with its pixels or its error; the number is None in a file that is
        one picture. The format. The number of the next page, None after the last.

    Raises
    ------
    PictureError
        If the file cannot be read at all, or has several pages and must not.
    """
    made: list[tuple[int | None, NDArray[Any] | PictureError]] = []
    with _opened(path) as picture:
        kind = str(picture.format).lower()
        pages = list(_pages(picture) if several else islice(_pages(picture), 2))
        if len(pages) > 1 and not several:
            raise PictureError(SEVERAL_PAGES)
        for number, frame in enumerate(pages[first - 1 : first - 1 + PAGES_AT_ONCE], first):
            page = number if len(pages) > 1 else None
            try:
                _seek(picture, frame)
                made.append((page, _decode(path, picture, form.max_pixels).pixels(form)))
            except Exception as error:  # noqa: BLE001 - damaged pages raise almost anything
                made.append((page, _as_picture_error(path, error)))
    after = first + PAGES_AT_ONCE
    return made, kind, after if after <= len(pages) else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; every error becomes a PictureError."""
    try:
        by_suffix = FORMATS_BY_SUFFIX.get(_suffix(path))
        formats = FORMATS if by_suffix is None else (*FORMATS, by_suffix)
        # Pillow maps files that it opens itself into memory. A file that shrinks meanwhile would
        # end the process, and TIFFs that lie on their side come out garbled.
        with open_regular(path) as file, Image.open(file, formats=formats) as picture:
            yield picture
    except Exception as error:
        raise _as_picture_error(path, error) from error


def _as_picture_error(path: Path, error: Exception) -> PictureError:
    if isinstance(error, PictureError):
        return error
    if isinstance(error, UnidentifiedImageError):
        with contextlib.suppress(OSError), open_regular(path) as file:
            return _unknown_contents(file.read(FIRST_BYTES))
        return NoPictureError(NO_PICTURE)
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    reason = (reason or type(error).__name__).replace(str(path), "it")
    if has_picture_suffix(path.name) or isinstance(error, OSError):
        return PictureError(f"it cannot be read: {reason}")
    return NoPictureError(f"it cannot be read: {reason}")


def _unknown_contents(first: bytes) -> PictureError:
    """Return what is wrong with a file that Pillow does not know, by its first bytes."""
    if not first:
        return NoPictureError("it cannot be read: it is empty")
    for name in FORMATS_WITH_LONG_SIGNATURES:
        accepts = Image.OPEN[name][1] if name in Image.OPEN else None
        if accepts is not None and accepts(first) is True:
            kind = name.replace("JPEG2000", "JPEG 2000")
            return PictureError(
                f"it begins as {kind} and cannot be read: it is damaged, or of a kind that Pillow "
                "does not read"
            )
    return NoPictureError(TEXT if _is_text(first) else NO_PICTURE)


def _is_text(first: bytes) -> bool:
    """Return whether the beginning of a file is text in UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()  # the last character may be cut
    try:
        text = decoder.decode(first)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)


def _pages(picture: Image.Image) -> Iterator[int]:
    """Yield the frames of a picture that are pages, at least one, without decoding pixels.

    Raises
    ------
    PictureError
        If a TIFF has only reduced copies and masks, as raw photographs of cameras do.
    """
    if picture.format not in PAGED_FORMATS:
        yield 0
        return
    found, frame = False, 0
    while True:
        try:
            picture.seek(frame)
        except EOFError:
            break
        except SyntaxError:  # pixels of an unknown kind, such as those of masks
            if picture.tell() != frame:
                raise
        if not _is_copy_or_mask(picture):
            found = True
            yield frame
        frame += 1
    if not found:
        raise PictureError("it holds only reduced copies or masks of a picture")


def _seek(picture: Image.Image, frame: int) -> None:
    if picture.tell() != frame:
        picture.seek(frame)


def _is_copy_or_mask(picture: Image.Image) -> bool:
    reduced, mask, old_reduced = 1, 4, 2
    kind, old_kind = _tag(picture, _Tag.SUBFILE, 0), _tag(picture, _Tag.OLD_SUBFILE, 1)
    return bool(kind & (reduced | mask)) or old_kind == old_reduced


def _tag(picture: Image.Image, number: int, default: int) -> int:
    """Return the value of a TIFF tag, the first if there are several."""
    value = getattr(picture, "tag_v2", {}).get(number, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def _decode(path: Path, picture: Image.Image, max_pixels: int) -> Picture:
    """Decode the frame of a picture that it stands at."""
    if picture.width * picture.height > max_pixels:
        raise PictureError(
            f"it has {picture.width} × {picture.height} pixels; at most {max_pixels} are decoded "
            "(--max-pixels)"
        )
    kind = str(picture.format).lower()
    unpacker = _unpacker(picture)
    signed = _tag(picture, _Tag.SAMPLE_FORMAT, 1) == 2
    if signed:
        raise PictureError("it has signed pixels; expected numbers of 0 and above")
    if picture.mode in MODES_OF_16_BITS or (picture.mode == "I" and kind == "ppm"):
        return Picture(kind, _white_at_65535(picture, _samples(picture)[:, :, None]))
    if unpacker in OTHER_BYTE or unpacker == "LA;16B":
        return Picture(kind, _white_at_65535(picture, _deep_colours(path, picture, unpacker)))
    if picture.mode in ("I", "F"):
        raise PictureError("it has 32 bits per pixel; expected 8 or 16 bits per channel")
    if _tag(picture, _Tag.BITS, 8) > 8 or DEEP_UNPACKER.fullmatch(unpacker):
        raise PictureError(
            f"it has 16 bits per channel in a form ({unpacker}) of which Pillow keeps only some; "
            "expected grey or RGB, interleaved"
        )
    return Picture(kind, ImageOps.exif_transpose(picture))


def _unpacker(picture: Image.Image) -> str:
    """Return Pillow's name of the order of bits in a file; empty where there is none."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    native = ";16L" if sys.byteorder == "little" else ";16B"
    return first.replace(";16N", native) if isinstance(first, str) else ""


def _samples(picture: Image.Image) -> NDArray[Any]:
    return np.asarray(ImageOps.exif_transpose(picture))


def _deep_colours(path: Path, picture: Image.Image, unpacker: str) -> NDArray[np.uint16]:
    """Return (height, width, 1 or 3) of a picture with 16 bits per channel, without its alpha.

    Pillow has no mode for such pictures and keeps the high bytes only; so the file is decoded a
    second time with an unpacker that takes the low bytes.
    """
    if unpacker == "LA;16B":  # a pixel is as long as one of RGBA: grey in two bytes, then alpha
        four_bytes = _samples(_with_unpacker(picture, "RGBA"))
        high, low = four_bytes[:, :, :1], four_bytes[:, :, 1:2]
    else:
        frame = picture.tell()
        high = _samples(picture)[:, :, :3]
        with _opened(path) as again:
            _seek(again, frame)
            low = _samples(_with_unpacker(again, OTHER_BYTE[unpacker]))[:, :, :3]
    joined = high.astype(np.uint16)
    joined <<= 8
    joined |= low
    return joined


def _with_unpacker(picture: Image.Image, unpacker: str) -> Image.Image:
    """Let a picture that is not decoded yet be decoded by another unpacker."""
    tiles = []
    for tile in picture.tile:  # type: ignore[attr-defined] # of ImageFile, which open returns
        arguments = tile[3]
        other = (unpacker, *arguments[1:]) if isinstance(arguments, tuple) else unpacker
        replaced = (*tile[:3], other)
        tiles.append(type(tile)(*replaced) if hasattr(tile, "_fields") else replaced)
    picture.tile = tiles  # type: ignore[attr-defined] # Image.open returns an ImageFile, which has it
    return picture


def _white_at_65535(picture: Image.Image, samples: NDArray[Any]) -> NDArray[np.uint16]:
    """Scale samples so that the largest value that the file declares becomes 65535."""
    declared = _declared_white(picture)
    if declared < samples.max(initial=0):
        raise PictureError(
            f"it declares {declared} as its largest value and has {samples.max()}: it contradicts "
            "itself"
        )
    values = samples.astype(np.uint16)
    if declared != WHITE:
        values = np.rint(values.astype(np.float32) * np.float32(WHITE / declared)).astype(np.uint16)
    inverted = picture.format == "TIFF" and _tag(picture, _Tag.PHOTOMETRIC, 1) == 0
    return np.uint16(WHITE) - values if inverted else values


def _declared_white(picture: Image.Image) -> int:
    """Return the largest value that samples may have, by what a TIFF file declares.

    That is the number of bits per sample; or, in files that hold 10 or 12 bits in 16,
    MaxSampleValue, if it is the largest value of so many bits, or the SignificantBits of OME. Some
    programs write the largest value that occurs as MaxSampleValue, which is not white.
    """
    if picture.format != "TIFF":
        return WHITE
    bits = min(_tag(picture, _Tag.BITS, 16), 16)
    largest = _tag(picture, _Tag.MAX_SAMPLE, 0)
    if largest > 255 and largest & (largest + 1) == 0:
        bits = min(bits, largest.bit_length())
    description = getattr(picture, "tag_v2", {}).get(_Tag.DESCRIPTION, "")
    significant = re.search(r'<Pixels[^>]*\sSignificantBits="(\d{1,2})"', str(description))
    if significant and 8 < int(significant[1]) < bits:
        bits = int(significant[1])
    return (1 << bits) - 1


def _bands(deep: NDArray[np.uint16], colour: Colour) -> list[NDArray[np.float32]]:
    """Return the channels of a colour as numbers with a fraction, which Pillow can resize."""
    values = deep.astype(np.float32)
    channels = values.shape[2]
    if colour == "grey":
        return [values[:, :, 0] if channels == 1 else np.dot(values, GREY_WEIGHTS)]
    return [np.ascontiguousarray(values[:, :, min(i, channels - 1)]) for i in range(3)]


def _fitted(picture: Image.Image, form: PictureForm) -> Image.Image:
    size = (form.width, form.height)
    if form.fit == "exact" and picture.size != size:
        raise PictureError(
            f"it has {picture.height} × {picture.width} pixels; expected {form.height} × "
            f"{form.width}, the size of the first picture or of --size"
        )
    if picture.size == size and form.resize is None and form.fit not in ALWAYS_SCALING:
        return picture
    filter_ = Image.Resampling[form.interpolation.upper()]
    if form.fit == "stretch":
        return picture.resize(size, filter_)
    if form.fit == "pad":
        return ImageOps.pad(picture, size, filter_, color=0)
    if form.fit == "crop" and form.resize is None:
        return ImageOps.fit(picture, size, filter_)
    width, height = _scaled_size(picture.size, form)
    if width * height > form.max_pixels:
        raise PictureError(
            f"it has {picture.width} × {picture.height} pixels and would be scaled to {width} × "
            f"{height}; at most {form.max_pixels} are made (--max-pixels)"
        )
    scaled = (
        picture if picture.size == (width, height) else picture.resize((width, height), filter_)
    )
    left, top = (scaled.width - form.width) // 2, (scaled.height - form.height) // 2
    if form.fit == "torchvision":  # halves are rounded to the even number
        left = round((scaled.width - form.width) / 2)
        top = round((scaled.height - form.height) / 2)
    return scaled.crop((left, top, left + form.width, top + form.height))


def _scaled_size(size: tuple[int, int], form: PictureForm) -> tuple[int, int]:
    """Return the (width, height) to which a picture is scaled before its middle is cut out."""
    resize = form.resize or max(form.height, form.width)
    if form.fit != "crop":  # the longer side is rounded down
        shorter, longer = min(size), max(size)
        other = int(resize * longer / shorter)
        return (resize, other) if size[0] == shorter else (other, resize)
    scale = resize / min(size)
    return round(size[0] * scale), round(size[1] * scale)
