from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network import Network, why_impossible
from support.network_cluster import HOSTS, NetworkCluster, network_cluster
from support.small import Files, make_files

IMAGES = 100


@pytest.fixture(scope="package")
def network() -> Iterator[Network]:
    reason = why_impossible()
    if reason is not None:
        pytest.skip(reason)
    with Network(HOSTS) as made:
        yield made


@pytest.fixture(scope="package")
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A small model and as many images as the longest job needs; only to be read."""
    return make_files(tmp_path_factory.mktemp("many"), IMAGES)


@pytest.fixture
def cluster(network: Network, tmp_path: Path) -> Iterator[NetworkCluster]:
    """A scheduler and six workers; a worker that ends is started again."""
    with network_cluster(network, tmp_path) as started:
        yield started
