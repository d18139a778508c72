"""A host for the launchers to run on."""

from collections.abc import Iterator

import pytest
from launch_host import Host


@pytest.fixture
def host(tmp_path) -> Iterator[Host]:
    """A fresh one."""
    host = Host(tmp_path)
    yield host
    host.stop()
