from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fcdcc.pipeline import Model, open_model
from fcdcc.pipeline.model.interpreter import run_network
from support.anyk_cluster import Errors
from support.small import SHAPE, make_files


@pytest.fixture
def errors() -> Iterator[Errors]:
    handler = Errors()
    loggers = [logging.getLogger("distributed"), logging.getLogger("fcdcc")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Any, Any]:
    """A model, what it makes of some images, and the images."""
    model = open_model(make_files(tmp_path_factory.mktemp("small")).model)
    pixels = np.random.default_rng(2).random((40, *SHAPE), dtype=np.float32)
    return model, run_network(model.network, torch.from_numpy(pixels)).numpy(), pixels
