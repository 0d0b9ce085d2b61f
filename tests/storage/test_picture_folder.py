"""Every entry of a folder is a file to read or has its reason; nothing ends the search."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fcdcc.storage import InputError
from fcdcc.storage.picture_folder import Found, find_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files that may be pictures, one of them in a subfolder."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.png").write_bytes(b"a")
    (tmp_path / "in" / "sub" / "b").write_bytes(b"bb")
    return tmp_path / "in"


def look(folder: Path, follow_links: bool = False) -> dict[str, Found]:
    found = list(find_pictures(folder, follow_links=follow_links))
    by_name = {entry.name: entry for entry in found}
    assert len(by_name) == len(found)
    return by_name


def left_out(folder: Path, follow_links: bool = False) -> dict[str, str]:
    """Return the reasons of the entries that are left out; all others are the usual two."""
    found = look(folder, follow_links)
    assert [name for name, entry in found.items() if entry.problem is None] == ["a.png", "sub/b"]
    return {name: entry.problem for name, entry in found.items() if entry.problem is not None}


def test_files_come_sorted_with_their_state(folder: Path) -> None:
    found = look(folder)
    assert list(found) == ["a.png", "sub/b"]
    for name, entry in found.items():
        status = (folder / name).stat()
        assert entry.state == (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@pytest.mark.parametrize("name", ["@eaDir", "lost+found", "__MACOSX", "$RECYCLE.BIN", ".git"])
def test_folders_of_the_system_are_one_entry(name: str, folder: Path) -> None:
    (folder / "sub" / name / "deeper").mkdir(parents=True)
    (folder / "sub" / name / "deeper" / "thumbnail.jpg").write_bytes(b"j")
    [(where, reason)] = left_out(folder).items()
    assert where == f"sub/{name}"
    assert "operating system" in reason or "begins with a dot" in reason
    assert not look(folder)[where].bad


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", ".nfs0001"])
def test_files_of_the_system_are_listed(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"x")
    assert list(left_out(folder)) == [name]
    assert not look(folder)[name].bad


def test_names_that_are_not_utf8_are_shown_escaped(folder: Path) -> None:
    for name in (b"caf\xe9.png", b"\xff/a.png"):
        path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118 - bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
        with open(path, "wb"):  # noqa: PTH123 - bytes
            pass
    reasons = left_out(folder)
    assert sorted(reasons) == ["\\xff", "caf\\xe9.png"]
    assert all("not UTF-8" in reason for reason in reasons.values())


def test_what_is_no_regular_file_is_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    reasons = left_out(folder)
    assert reasons == dict.fromkeys(["pipe.png", "socket"], "it is not a regular file")
    assert look(folder)["pipe.png"].bad
    assert not look(folder)["socket"].bad


def test_links_that_lead_out_are_followed_only_on_request(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    for name in ("x.png", "deep/y.png"):
        (tmp_path / "out" / name).write_bytes(b"x")
    (folder / "file.png").symlink_to(tmp_path / "out" / "x.png")
    (folder / "folder").symlink_to(tmp_path / "out")
    reasons = left_out(folder)
    assert sorted(reasons) == ["file.png", "folder"]
    assert all("--follow-links" in reason for reason in reasons.values())
    assert sorted(look(folder, follow_links=True)) == [
        "a.png", "file.png", "folder/deep/y.png", "folder/x.png", "sub/b",
    ]  # fmt: skip


def test_links_inside_the_folder(folder: Path) -> None:
    (folder / "again.png").symlink_to("a.png")
    (folder / "again").symlink_to("sub")
    found = look(folder)
    assert found["again.png"].problem is None
    assert "--follow-links" in str(found["again"].problem)
    assert "under its own name" in str(look(folder, follow_links=True)["again"].problem)


def test_circles_of_links_end(folder: Path, tmp_path: Path) -> None:
    (folder / "up").symlink_to(tmp_path)
    (folder / "itself").symlink_to("itself")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "c.png").write_bytes(b"c")
    (tmp_path / "one" / "two").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "one").symlink_to(tmp_path / "one")
    (folder / "one").symlink_to(tmp_path / "one")
    found = look(folder, follow_links=True)
    good = sorted(name for name, entry in found.items() if entry.problem is None)
    assert good == ["a.png", "one/c.png", "sub/b"]
    assert "already" in str(found["up"].problem)
    assert "already" in str(found["one/two/one"].problem)
    assert "cannot be read" in str(found["itself"].problem)


def test_a_link_to_nothing_is_listed(folder: Path) -> None:
    (folder / "gone.png").symlink_to("nothing")
    assert "does not exist" in left_out(folder)["gone.png"]


def test_stores_and_the_output_are_not_searched(folder: Path) -> None:
    for name, inside in {"a.zarr": "zarr.json", "b": ".zgroup", "out": "c.png"}.items():
        (folder / name).mkdir()
        (folder / name / inside).write_bytes(b"{}")
    found = {entry.name: entry for entry in find_pictures(folder, output=folder / "out")}
    assert found["a.zarr"].problem == found["b"].problem == "it is a Zarr store"
    assert "written to it" in str(found["out"].problem)
    assert len(found) == 5


def test_folders_as_deep_as_the_system_allows(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(2200):  # more than Python nests calls, and longer than a path may be
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    [reason] = left_out(folder).values()
    assert "cannot be read" in reason
    subprocess.run(["rm", "-rf", str(folder / "d")], check=True)


SEARCH_AS_ANYBODY = """
import ctypes, sys
from pathlib import Path
from fcdcc.storage.picture_folder import find_pictures
for found in find_pictures(Path(sys.argv[1])):
    print(found.name, "|", found.problem, "|", found.bad, "|", found.folder)
"""


def drop_rights() -> None:
    """Take the right to read everything from a child process that will run as root."""
    if os.getuid() == 0:
        import ctypes

        libc = ctypes.CDLL(None)
        drop_from_bounding_set, override, read_search = 24, 1, 2
        for capability in (override, read_search):
            libc.prctl(drop_from_bounding_set, capability, 0, 0, 0)


def test_a_folder_that_may_not_be_read_is_one_entry(folder: Path) -> None:
    for name in ("lost+found", "closed"):
        (folder / name).mkdir()
        (folder / name).chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", SEARCH_AS_ANYBODY, str(folder)],
            capture_output=True, text=True, check=True, preexec_fn=drop_rights,
        )  # fmt: skip
    finally:
        for name in ("lost+found", "closed"):
            (folder / name).chmod(0o755)
    reason = "the folder cannot be read: Permission denied | True | True"
    assert done.stdout.splitlines() == [
        "a.png | None | False | False",
        f"closed | {reason}",
        f"lost+found | {reason}",
        "sub/b | None | False | False",
    ]


def test_what_is_no_folder(folder: Path) -> None:
    for path in (folder / "a.png", folder / "nothing"):
        with pytest.raises(InputError, match="not a folder"):
            list(find_pictures(path))
