from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.storage import DamageError, Fingerprint
from fcdcc.storage.checksummed_json import canonical, seal, unseal
from fcdcc.storage.locations import normalise, scrubbed, shown

texts = st.text(max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(texts, scalars, max_size=3)
objects = st.dictionaries(
    texts.filter(lambda name: name != "check"), values, min_size=1, max_size=4
)


@given(objects)
def test_what_is_sealed_comes_back_and_is_plain_json(members: dict[str, object]) -> None:
    data = seal(members)  # type: ignore[arg-type] # Hypothesis types its JSON as object
    assert b"\n" not in data
    assert unseal(data) == members
    plain = json.loads(data)
    del plain["check"]
    assert plain == members


@given(objects, st.data())
def test_any_flipped_bit_and_any_truncation_is_noticed(
    members: dict[str, object], draws: st.DataObject
) -> None:
    data = bytearray(seal(members))  # type: ignore[arg-type] # Hypothesis types its JSON as object
    position = draws.draw(st.integers(0, len(data) - 1))
    with pytest.raises(DamageError):
        unseal(bytes(data[:position]))
    data[position] ^= 1 << draws.draw(st.integers(0, 7))
    with pytest.raises(DamageError):
        unseal(bytes(data))


@given(objects, objects)
def test_fingerprints_are_equal_exactly_where_nothing_differs(
    first: dict[str, object], second: dict[str, object]
) -> None:
    ours, theirs = Fingerprint.of(first), Fingerprint.of(second)  # type: ignore[arg-type] # as above
    assert (ours == theirs) == (ours.digest == theirs.digest) == (not ours.differences(theirs))
    assert Fingerprint.of(dict(reversed(first.items()))) == ours  # type: ignore[arg-type] # as above
    assert canonical(ours.fields) == ours.text


def test_long_values_are_cut_in_a_difference() -> None:
    (line,) = Fingerprint.of({"a": "x" * 99}).differences(Fingerprint.of({"b": 1, "a": 2}))[:1]
    assert len(line) < 120
    assert line.endswith("2 there")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("s3://key:secret@bucket/x", "s3://bucket/x"),
        ("https://h:8080/a/b?sig=secret#secret", "https://h:8080/a/b"),
        ("simplecache::s3://secret@bucket/x", "simplecache::s3://bucket/x"),
        ("zip://a.zarr::https://u:secret@h/x.zip?t=secret", "zip://a.zarr::https://h/x.zip"),
        ("memory://a/b", "memory://a/b"),
        ("/data/a@b?c", "/data/a@b?c"),
    ],
)
def test_no_credentials_are_shown(url: str, wanted: str) -> None:
    assert shown(url) == wanted
    if "secret" in url:
        assert "secret" not in scrubbed(f"failed at {url}/zarr.json: secret", url)


@pytest.mark.parametrize("url", ["s3://bucket/x/", "memory://a/b//", "/data/x/", "/data/./x"])
def test_locations_have_one_form(url: str) -> None:
    assert normalise(normalise(url)) == normalise(url)
    assert not normalise(url).endswith("/")
