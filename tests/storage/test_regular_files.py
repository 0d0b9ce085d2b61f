"""Only regular files of bounded size are read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fcdcc.storage.regular_files import NotRegularError, open_regular, read_regular, read_text


def test_files_and_links_to_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some bytes")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 10) == b"some bytes"
    assert read_text(tmp_path / "link", 10) == "some bytes"
    with open_regular(str(tmp_path / "file")) as file:
        assert file.read(4) == b"some"
    assert b"cpu" in read_regular("/proc/stat", 1 << 20)  # its size is 0


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty", "/"])
def test_devices_and_folders_are_refused(path: str) -> None:
    with pytest.raises(OSError, match=r"not a regular file|a folder|No such device"):
        read_regular(path, 1 << 20)


def test_pipes_and_sockets_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotRegularError, match="not a regular file"):
        read_regular(tmp_path / "pipe", 1 << 20)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match=r"No such device|not a regular file"):
            read_regular(tmp_path / "socket", 1 << 20)


def test_large_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    for limit in (0, 1 << 20):
        with pytest.raises(NotRegularError, match=f"more than {limit} bytes"):
            read_regular(tmp_path / "sparse", limit)
    (tmp_path / "exact").write_bytes(bytes(8))
    assert read_regular(tmp_path / "exact", 1 << 62) == bytes(8)
    assert read_regular(tmp_path / "exact", 8) == bytes(8)
    with pytest.raises(NotRegularError, match="more than 7 bytes"):
        read_regular(tmp_path / "exact", 7)


def test_names_that_no_file_has(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 5000, "missing"):
        with pytest.raises(OSError, match=r"\w"):
            read_regular(str(tmp_path / name), 10)
