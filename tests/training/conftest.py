"""Real processes of medjax.bin.train, started by one server for all tests."""

import pytest
from runs import Server


@pytest.fixture(scope="session")
def server(phantom_dir, tmp_path_factory):
    """Starts runs of the small recipe."""
    server = Server(phantom_dir, tmp_path_factory.mktemp("server") / "compiled")
    yield server
    server.close()


@pytest.fixture(scope="session")
def whole_run(server, tmp_path_factory):
    """The workdir of an uninterrupted run of `STEPS` steps by one process. Read it, never write to it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    server.train(workdir)
    return workdir
