"""Every way to store images gives the numbers that xarray reads, prepared as PyTorch would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fcdcc.storage import Preparation, open_images
from support.stored_inputs import (
    CONTENTS,
    HEIGHT,
    KINDS,
    LAYOUTS,
    STORES,
    WIDTH,
    StoredInput,
    read_by_xarray,
)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", KINDS)
def test_images_are_what_xarray_and_pytorch_make_of_them(
    tmp_path: Path, kind: str, store: str
) -> None:
    for layout in LAYOUTS:
        for content in CONTENTS:
            found = StoredInput(kind, layout, store, content)
            (folder := tmp_path / f"{layout} {content}").mkdir()
            place = found.write(folder)
            source = open_images(place, expect=(None, found.channels, HEIGHT, WIDTH))
            wanted = read_by_xarray(place).values
            assert source.dtype == wanted.dtype, str(found)
            read = source.read(0, source.images)
            np.testing.assert_array_equal(read, wanted, err_msg=str(found))
            rows = source.read_rows(2, 9, 1, 5)
            np.testing.assert_array_equal(rows, wanted[2:9, :, 1:5], err_msg=str(found))
            scaled = torch.from_numpy(wanted.astype(np.float32))
            if wanted.dtype == np.uint8:
                scaled = scaled / 255
            prepared = Preparation().apply(read)
            np.testing.assert_array_equal(prepared, scaled.numpy(), err_msg=str(found))
