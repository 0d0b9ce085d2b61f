"""Small files that would unpack to a lot, or never end, are left out and named."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from fcdcc.storage.ingestion import ingest

MEMORY_BYTES = 3 * 2**30
"""Address space of the process that ingests; what it imports takes some."""


def png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with this header, these compressed pixels and further chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def zeros(count: int) -> bytes:
    """Return so many zeros, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(2**20)) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & (2**20 - 1))), packer.flush()])


def tiff(width: int, height: int, *tags: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """Return a TIFF with one directory of tags (number, type, count, value)."""
    basic = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, len(data)),
    }  # fmt: skip
    entries = basic | {number: (kind, count, value) for number, kind, count, value in tags}
    body = struct.pack("<H", len(entries))
    for number in sorted(entries):
        body += struct.pack("<HHII", number, *entries[number])
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + body + struct.pack("<I", 0)


def circle() -> bytes:
    """Return a TIFF whose directory is followed by itself."""
    made = tiff(4, 4, data=bytes(16))
    return made[:-4] + struct.pack("<I", 24)


def pages(count: int) -> bytes:
    """Return a TIFF of so many pages."""
    file = io.BytesIO()
    first, *others = [Image.new("L", (4, 4)) for _ in range(count)]
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def jpeg_of_size(width: int, height: int) -> bytes:
    """Return a JPEG whose header has another size than its data."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


TEXT = b"zTXt", b"note\0\0" + zeros(2**28)
PROFILE = b"iCCP", b"x\0\0" + zeros(2**28)

BOMBS: dict[str, Callable[[], bytes]] = {
    "wide.png": lambda: png(2**31 - 1, 2**31 - 1, zeros(2**20)),
    "large.png": lambda: png(30_000, 30_000, zeros(2**24)),
    "more-than-it-says.png": lambda: png(2**20, 2**10, zeros(2**28)),
    "flat.png": lambda: png(2**27, 1, zeros(3 * 2**27)),
    "text.png": lambda: png(10**9, 8, zeros(24), TEXT),
    "profile.png": lambda: png(10**9, 8, zeros(24), PROFILE),
    "none.png": lambda: png(0, 0, b""),
    "huge.tif": lambda: tiff(2**31 - 1, 2**31 - 1, data=bytes(16)),
    "strips.tif": lambda: tiff(2**14, 2**14, (273, 4, 2**31, 8), data=bytes(16)),
    "samples.tif": lambda: tiff(8, 8, (277, 3, 1, 65535), data=bytes(64)),
    "circle.tif": circle,
    "pages.tif": lambda: pages(200),
    "large.jpg": lambda: jpeg_of_size(65535, 65535),
    "empty.png": lambda: b"",
    "text-only.jpg": lambda: b"<svg onload=alert(1)>",
}


READ = {"flat.png", "more-than-it-says.png", "circle.tif"}
"""Those that may be read as what they say they are."""


def good(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


INGEST = """
import json, resource, sys
import fcdcc.pipeline.cli
from fcdcc.storage.ingestion import ingest
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
made = ingest(sys.argv[1], sys.argv[2], size=(32, 32), resize=int(sys.argv[4]) or None, threads=2)
# The most memory of getrusage would be at least that of the process that started this one.
status = open("/proc/self/status").read()
used = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps([made.images, [[bad.name, bad.reason] for bad in made.bad], used]))
"""


def ingested(folder: Path, output: Path, resize: int = 0) -> tuple[int, dict[str, str], int]:
    """Ingest in a process with little memory; return images, bad files and bytes used."""
    command = [sys.executable, "-c", INGEST, folder, output, MEMORY_BYTES, resize]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    images, bad, used = json.loads(done.stdout)
    return images, dict(bad), used


@pytest.mark.parametrize("resize", [0, 256])
def test_bombs_are_left_out_and_the_others_are_read(tmp_path: Path, resize: int) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    good(folder / "good.png")
    images, bad, used = ingested(folder, tmp_path / "out.zarr", resize)
    assert images == 1 + len(BOMBS) - len(bad)
    assert bad.keys() >= BOMBS.keys() - READ
    assert all("\n" not in reason and len(reason) < 500 for reason in bad.values())
    assert used < 2 * 2**30
    stored = zarr.open_group(tmp_path / "out.zarr", mode="r")["image"]
    assert isinstance(stored, zarr.Array)
    assert stored.shape == (images, 32, 32, 3)


def test_a_long_picture_is_not_scaled_to_a_huge_one(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (10**6, 1)).save(folder / "long.png")
    good(folder / "good.png")
    images, bad, used = ingested(folder, tmp_path / "out.zarr", resize=256)
    assert images == 1
    assert "pixels" in bad["long.png"]
    assert used < 2**30


def test_pipes_and_devices_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    good(folder / "good.png")
    made = ingest(folder, tmp_path / "out.zarr", size=(32, 32))
    assert made.images == 1
    assert {bad.name for bad in made.bad} == {"pipe.png", "zero.png"}


def test_the_first_picture_decides_no_size_that_is_too_large(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(BOMBS["wide.png"]())
    os.mkfifo(folder / "b.png")
    good(folder / "c.png")
    made = ingest(folder, tmp_path / "out.zarr")
    assert made.shape == (40, 50, 3)
    assert made.images == 1
