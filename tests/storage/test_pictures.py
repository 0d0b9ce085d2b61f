"""One picture: every form of colour and depth against Pillow and NumPy, one picture a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from fcdcc.storage.pictures import PictureError, PictureForm, read_pages, read_picture

RANDOM = np.random.default_rng(11)
HEIGHT, WIDTH = 20, 30
FORM = PictureForm(HEIGHT, WIDTH, fit="exact")
DEEP = PictureForm(HEIGHT, WIDTH, fit="exact", depth=16)


def noise(*shape: int, below: int = 256, dtype: str = "uint8") -> np.ndarray[Any, Any]:
    return RANDOM.integers(0, below, shape or (HEIGHT, WIDTH, 3)).astype(dtype)


def deep_noise(*channels: int) -> np.ndarray[Any, Any]:
    return noise(HEIGHT, WIDTH, *channels, below=65536, dtype="uint16")


def picture(mode: str) -> Image.Image:
    """Random pixels in one of Pillow's modes."""
    if mode == "P":
        return Image.fromarray(noise()).quantize(64)
    return Image.fromarray(noise()).convert("RGBA").convert(mode)


MODES = {
    "1": ".png .bmp .tif .pbm",
    "L": ".png .jpg .bmp .gif .tif .webp .pgm .tga .jp2",
    "LA": ".png .tif .tga .jp2",
    "P": ".png .bmp .gif .tif .tga .ico",
    "RGB": ".png .jpg .bmp .tif .webp .ppm .tga .jp2 .avif .qoi .dds .pcx .sgi .jfif .icns .ico",
    "RGBA": ".png .tif .webp .tga .jp2 .avif .qoi .dds .sgi .ico .icns",
    "CMYK": ".jpg .tif",
    "YCbCr": ".jpg .tif",
}
KINDS = [(mode, suffix) for mode, suffixes in MODES.items() for suffix in suffixes.split()]


@pytest.mark.parametrize(("mode", "suffix"), KINDS)
@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_pictures_become_what_pillow_converts_them_to(
    mode: str, suffix: str, colour: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    side = 32 if suffix in (".ico", ".icns") else 0
    made = picture(mode).resize((side, side)) if side else picture(mode)
    made.save(path)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        expected = np.asarray(upright.convert("RGB" if colour == "rgb" else "L"))
    form = PictureForm(*expected.shape[:2], fit="exact", colour=colour)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_picture(path, form), expected.reshape(form.shape))
    named_otherwise = path.rename(tmp_path / "no suffix")
    if suffix != ".tga":  # which has no signature
        np.testing.assert_array_equal(
            read_picture(named_otherwise, form), expected.reshape(form.shape)
        )


TURNS: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What makes pixels upright, by the EXIF orientation."""

ON_THEIR_SIDE = [
    ("RGB", ".png .jpg .tif .webp .avif"),
    ("L", ".png .jpg .tif"),
    ("P", ".png .tif"),
    ("1", ".png .tif"),
    ("I;16", ".png .tif"),
    ("RGB;16", ".png .tif"),
]


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(
    ("mode", "suffix"), [(mode, s) for mode, suffixes in ON_THEIR_SIDE for s in suffixes.split()]
)
def test_pictures_are_turned_as_their_exif_data_says(
    mode: str, suffix: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, turned = tmp_path / f"plain{suffix}", tmp_path / f"turned{suffix}"
    if mode == "RGB;16":
        pixels = deep_noise(3)
        png(plain, pixels)
        png(turned, pixels, exif.tobytes())
        if suffix == ".tif":
            tifffile.imwrite(plain, pixels)
            tifffile.imwrite(turned, pixels, extratags=[(274, "H", 1, orientation, True)])
    else:
        made = Image.fromarray(deep_noise()) if mode == "I;16" else picture(mode)
        made.save(plain)
        made.save(turned, exif=exif)
    depth = 16 if "16" in mode else 8
    expected = TURNS[orientation](read_picture(plain, PictureForm(HEIGHT, WIDTH, depth=depth)))
    form = PictureForm(*expected.shape[:2], fit="exact", depth=depth)
    np.testing.assert_array_equal(read_picture(turned, form), expected)


def test_the_first_frame_of_an_animation_is_the_picture(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise()) for _ in range(3)]
    for suffix in (".gif", ".webp", ".png", ".avif"):
        path = tmp_path / f"a{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with Image.open(path) as opened:
            assert opened.n_frames == 3
            expected = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(read_picture(path, FORM), expected)


def test_the_first_picture_of_a_jpeg_with_several_is_the_picture(tmp_path: Path) -> None:
    path, alone = tmp_path / "a.jpg", tmp_path / "b.jpg"
    first = Image.fromarray(noise())
    first.save(path, "MPO", save_all=True, append_images=[first.resize((10, 10))])
    first.save(alone)
    np.testing.assert_array_equal(read_picture(path, FORM), read_picture(alone, FORM))


def write_pages(path: Path, *pages: tuple[np.ndarray[Any, Any], int], **options: Any) -> Path:
    """Write a TIFF of images, each with its kind of subfile."""
    with tifffile.TiffWriter(path, **options) as file:
        for pixels, kind in pages:
            photometric = {2: "minisblack", 3: "rgb"}[pixels.ndim]
            if kind & 4:
                file.write(pixels > 0, photometric=4, subfiletype=kind)
            else:
                file.write(pixels, photometric=photometric, subfiletype=kind)
    return path


@pytest.mark.parametrize("others", [(1,), (4,), (5,), (1, 1, 4), (4, 5, 5)])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_reduced_copies_and_masks_are_no_pages(
    others: tuple[int, ...], bigtiff: bool, tmp_path: Path
) -> None:
    main = noise()
    small = [(main[::2, ::2, 0] if kind & 4 else main[::2, ::2], kind) for kind in others]
    path = write_pages(tmp_path / "a.tif", (main, 0), *small, bigtiff=bigtiff)
    np.testing.assert_array_equal(read_picture(path, FORM), main)
    [(page, pixels)], kind, after = read_pages(path, FORM, several=True)
    assert (page, kind, after) == (None, "tiff", None)
    np.testing.assert_array_equal(pixels, main)


def test_the_picture_may_come_after_its_reduced_copy(tmp_path: Path) -> None:
    main = noise()
    path = write_pages(tmp_path / "a.tif", (main[::2, ::2], 1), (main, 0))
    np.testing.assert_array_equal(read_picture(path, FORM), main)


def test_a_file_of_copies_only_is_refused(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "raw.dng", (noise(10, 15, 3), 1))
    with pytest.raises(PictureError, match="only reduced copies"):
        read_picture(path, FORM)


def test_pages_come_in_parts_with_their_numbers(tmp_path: Path) -> None:
    pages = [noise() for _ in range(35)]
    path = write_pages(tmp_path / "a.tif", *((page, 0) for page in pages))
    with pytest.raises(PictureError, match="--pages"):
        read_picture(path, FORM)
    with pytest.raises(PictureError, match="--pages"):
        read_pages(path, FORM)
    made: list[Any] = []
    first: int | None = 1
    while first is not None:
        part, _, first = read_pages(path, FORM, first, several=True)
        made += part
    assert [number for number, _ in made] == list(range(1, 36))
    np.testing.assert_array_equal(np.stack([pixels for _, pixels in made]), np.stack(pages))


def test_a_bad_page_does_not_spoil_the_others(tmp_path: Path) -> None:
    first, last = noise(), noise()
    path = write_pages(tmp_path / "a.tif", (first, 0), (noise(5, 5, 3), 0), (last, 2))
    made, _, _ = read_pages(path, FORM, several=True)
    np.testing.assert_array_equal(made[0][1], first)
    assert isinstance(made[1][1], PictureError)
    assert "5 × 5" in str(made[1][1])
    np.testing.assert_array_equal(made[2][1], last)


Save = Callable[[Path, np.ndarray[Any, Any]], None]


def tiff(**options: Any) -> Save:
    """Return a function that writes a TIFF."""

    def save(path: Path, pixels: np.ndarray[Any, Any]) -> None:
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else None, **options)

    return save


def png(path: Path, pixels: np.ndarray[Any, Any], exif: bytes = b"") -> None:
    """Write a PNG of 16 bits per channel, which Pillow cannot do for colours."""

    def part(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = pixels.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + (part(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b"")
        + part(b"IDAT", zlib.compress(raw))
        + part(b"IEND", b"")
    )


def pgm(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    data = pixels.astype(">u2").tobytes()
    path.write_bytes(b"P5 %d %d 65535\n" % pixels.shape[::-1] + data)


DEEP_FILES: dict[str, tuple[Save, tuple[int, ...]]] = {
    "grey little-endian TIFF": (tiff(), ()),
    "grey big-endian TIFF": (tiff(byteorder=">"), ()),
    "grey compressed TIFF": (tiff(compression="zlib"), ()),
    "colour little-endian TIFF": (tiff(), (3,)),
    "colour big-endian TIFF": (tiff(byteorder=">"), (3,)),
    "colour compressed TIFF": (tiff(compression="zlib"), (3,)),
    "colour compressed big-endian TIFF": (tiff(compression="zlib", byteorder=">"), (3,)),
    "colour tiled TIFF": (tiff(tile=(16, 16)), (3,)),
    "colour TIFF with alpha": (tiff(extrasamples=["unassalpha"]), (4,)),
    "grey PNG": (png, ()),
    "grey PNG with alpha": (png, (2,)),
    "colour PNG": (png, (3,)),
    "colour PNG with alpha": (png, (4,)),
    "grey PGM": (pgm, ()),
}


@pytest.mark.parametrize("name", DEEP_FILES)
def test_pictures_of_16_bits_keep_every_bit(name: str, tmp_path: Path) -> None:
    save, channels = DEEP_FILES[name]
    pixels = deep_noise(*channels)
    path = tmp_path / "a"
    save(path, pixels)
    visible = pixels.reshape(HEIGHT, WIDTH, -1)
    visible = visible[:, :, :3] if visible.shape[2] >= 3 else visible[:, :, :1]
    made = read_picture(path, DEEP)
    np.testing.assert_array_equal(made, np.broadcast_to(visible, (HEIGHT, WIDTH, 3)))
    grey = read_picture(path, PictureForm(HEIGHT, WIDTH, depth=16, colour="grey"))
    weights = [0.299, 0.587, 0.114] if visible.shape[2] == 3 else [1.0]
    np.testing.assert_allclose(grey[:, :, 0], visible @ np.array(weights), atol=1)


def test_pages_of_16_bits_keep_every_bit(tmp_path: Path) -> None:
    pages = [deep_noise(3) for _ in range(2)]
    path = write_pages(tmp_path / "a.tif", *((page, 0) for page in pages))
    made, _, _ = read_pages(path, DEEP, several=True)
    np.testing.assert_array_equal(np.stack([pixels for _, pixels in made]), np.stack(pages))


def declared(bits: int) -> list[dict[str, Any]]:
    """Return the ways to say in a TIFF that so many bits of 16 are used."""
    largest = (1 << bits) - 1
    ome = f'<OME><Image><Pixels Type="uint16" SignificantBits="{bits}"/></Image></OME>'
    return [{"extratags": [(281, "H", 1, largest, True)]}, {"description": ome}]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("way", [0, 1])
def test_samples_are_scaled_by_the_bits_that_a_file_declares(
    bits: int, way: int, tmp_path: Path
) -> None:
    pixels = noise(HEIGHT, WIDTH, below=1 << bits, dtype="uint16")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, metadata=None, **declared(bits)[way])
    exact = pixels / ((1 << bits) - 1)
    grey = PictureForm(HEIGHT, WIDTH, colour="grey", depth=16)
    np.testing.assert_allclose(read_picture(path, grey)[:, :, 0], exact * 65535, atol=1)
    bytes_ = PictureForm(HEIGHT, WIDTH, colour="grey", reduce=True)
    np.testing.assert_allclose(read_picture(path, bytes_)[:, :, 0], exact * 255, atol=0.51)


def test_twelve_bits_that_nothing_declares_keep_their_numbers(tmp_path: Path) -> None:
    pixels = noise(HEIGHT, WIDTH, below=4096, dtype="uint16")
    path = tmp_path / "a.tif"
    # Many programs write the largest value that occurs, which says nothing about white.
    tifffile.imwrite(path, pixels, extratags=[(281, "H", 1, int(pixels.max()) & ~1, True)])
    made = read_picture(path, PictureForm(HEIGHT, WIDTH, colour="grey", depth=16))
    np.testing.assert_array_equal(made[:, :, 0], pixels)


def test_a_declaration_that_the_pixels_contradict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, deep_noise() | 4096, extratags=[(281, "H", 1, 4095, True)])
    with pytest.raises(PictureError, match="declares 4095"):
        read_picture(path, DEEP)


def test_white_may_be_zero(tmp_path: Path) -> None:
    pixels = deep_noise()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(path, DEEP)[:, :, 0], 65535 - pixels)
    tifffile.imwrite(path, (pixels >> 8).astype("uint8"), photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(path, FORM)[:, :, 0], 255 - (pixels >> 8))


def test_depths_are_converted_with_the_same_white(tmp_path: Path) -> None:
    shallow = noise()
    path = tmp_path / "a.png"
    Image.fromarray(shallow).save(path)
    np.testing.assert_array_equal(read_picture(path, DEEP), shallow.astype("uint16") * 257)
    pixels = deep_noise(3)
    pixels[0, 0] = 0, 32768, 65535
    png(path, pixels)
    with pytest.raises(PictureError, match="--depth 8 scales it"):
        read_picture(path, FORM)
    made = read_picture(path, PictureForm(HEIGHT, WIDTH, reduce=True))
    np.testing.assert_allclose(made, pixels / 257, atol=0.51)
    assert made[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("fit", "resize"), [("crop", None), ("crop", 40), ("stretch", None), ("pad", None)]
)
def test_deep_pictures_are_fitted_like_others(fit: str, resize: int | None, tmp_path: Path) -> None:
    pixels = noise(70, 90, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    png(tmp_path / "deep.png", pixels.astype("uint16") * 257)
    form = PictureForm(32, 24, fit=fit, resize=resize)  # type: ignore[arg-type]
    deep = PictureForm(32, 24, fit=fit, resize=resize, depth=16)  # type: ignore[arg-type]
    expected = read_picture(tmp_path / "a.png", form)
    made = read_picture(tmp_path / "deep.png", deep)
    np.testing.assert_allclose(made / 257, expected, atol=1.01)


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic", "lanczos"])
def test_pictures_are_scaled_by_the_filter_that_is_named(
    interpolation: str, tmp_path: Path
) -> None:
    pixels = noise(50, 70, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    form = PictureForm(20, 30, fit="stretch", interpolation=interpolation)  # type: ignore[arg-type]
    expected = Image.fromarray(pixels).resize((30, 20), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", form), np.asarray(expected))


@pytest.mark.parametrize(
    ("shape", "scaled", "left", "top"),
    [
        # As torchvision 0.28 scales and cuts: 40 * 101 / 75 = 53.87 becomes 53, and (53 - 31) / 2
        # is 11; 40 * 60 / 44 = 54.5 becomes 54, and (54 - 31) / 2 = 11.5 becomes 12.
        ((75, 101), (53, 40), 11, 4),
        ((101, 75), (40, 53), 4, 10),
        ((44, 60), (54, 40), 12, 4),
        ((40, 40), (40, 40), 4, 4),
    ],
)
def test_pictures_are_scaled_and_cut_as_torchvision_does(
    shape: tuple[int, int], scaled: tuple[int, int], left: int, top: int, tmp_path: Path
) -> None:
    pixels = noise(*shape, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    form = PictureForm(32, 31, fit="torchvision", resize=40)
    expected = Image.fromarray(pixels).resize(scaled, Image.Resampling.BILINEAR)
    cut = np.asarray(expected.crop((left, top, left + 31, top + 32)))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", form), cut)


def test_forms_that_older_versions_knew_are_written_as_they_wrote_them() -> None:
    assert "interpolation" not in PictureForm(8, 8).as_json()
    assert PictureForm(8, 8, interpolation="bicubic").as_json()["interpolation"] == "bicubic"


def signed(path: Path) -> None:
    tifffile.imwrite(path, noise(HEIGHT, WIDTH, below=128).astype("int8"))


def signed_16(path: Path) -> None:
    tifffile.imwrite(path, deep_noise().astype("int16"))


def integers_of_32_bits(path: Path) -> None:
    tifffile.imwrite(path, deep_noise().astype("uint32"))


def floats(path: Path) -> None:
    tifffile.imwrite(path, deep_noise().astype("float32"))


def separate_planes(path: Path) -> None:
    tifffile.imwrite(path, deep_noise(3).transpose(2, 0, 1), photometric="rgb",
                     planarconfig="separate")  # fmt: skip


def five_channels(path: Path) -> None:
    tifffile.imwrite(path, noise(HEIGHT, WIDTH, 5), planarconfig="contig", metadata=None)


def postscript(path: Path) -> None:
    Image.fromarray(noise()).save(path, "EPS")


REFUSED: dict[Callable[[Path], None], str] = {
    signed: "signed",
    signed_16: "signed",
    integers_of_32_bits: "32 bits",
    floats: "32 bits",
    separate_planes: "interleaved",
    five_channels: "begins as TIFF and cannot be read",
    postscript: "no picture of a format",
}


@pytest.mark.parametrize("write", REFUSED, ids=lambda write: write.__name__)
@pytest.mark.parametrize("form", [FORM, DEEP], ids=["8 bits", "16 bits"])
def test_what_would_come_in_wrong_is_refused(
    write: Callable[[Path], None], form: PictureForm, tmp_path: Path
) -> None:
    write(tmp_path / "a.tif")
    with pytest.raises(PictureError, match=REFUSED[write]):
        read_picture(tmp_path / "a.tif", form)
