from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from support.anyk_cluster import Errors


@pytest.fixture
def errors() -> Iterator[Errors]:
    handler = Errors()
    loggers = [logging.getLogger("distributed"), logging.getLogger("fcdcc")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
