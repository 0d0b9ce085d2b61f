"""Paths and URLs that no file can have are refused in words, without credentials."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fcdcc.coding.errors import FcdccError
from fcdcc.storage import open_images, verify
from fcdcc.storage.errors import LocationError
from fcdcc.storage.locations import normalise, shown

BAD = [
    "a\0b", "file:///a\0b", "http://u:secret@[::1/x", "https://u:secret@host/a\0b",
    "~nobody-of-this-name/x",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD)
def test_what_no_file_can_have_is_refused(url: str) -> None:
    with pytest.raises(LocationError, match="cannot be used") as caught:
        normalise(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    for use in (open_images, verify):
        with pytest.raises(FcdccError):
            use(url)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FcdccError):
        open_images(tmp_path / "a")


def test_an_ipv6_address_is_written_so_that_fsspec_does_not_take_it_for_a_chain() -> None:
    url = normalise("https://user:secret@[2001:db8::1]:8080/images.zarr")
    (link,) = url.split("::")
    assert urlsplit(link).hostname == "2001:0db8:0000:0000:0000:0000:0000:0001"
    assert shown(url).endswith("0001]:8080/images.zarr")
    assert "secret" not in shown(url)
    assert normalise("s3://bucket/[12].zarr") == "s3://bucket/[12].zarr"
