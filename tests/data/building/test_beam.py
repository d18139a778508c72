"""A build by Apache Beam gives the bytes of a local one; its direct runner stands for the others."""

import hashlib
from pathlib import Path

import pytest
from tiny_source import TinySource, study, unreadable

from medjax.data.building import beam
from medjax.data.building.build import REJECTED, Options, build_dataset
from medjax.data.building.shards import RECEIPT
from medjax.data.manifest import SPLITS
from medjax.data.records import Example
from medjax.data.sources import Phantom, Study
from medjax.errors import UserError

OPTIONS = ("--runner=DirectRunner", "--direct_num_workers=1", "--direct_running_mode=in_memory")


def content(directory: Path) -> dict[str, str]:
    files = (p for p in sorted(directory.rglob("*")) if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def build(source, directory, engine=None, report=lambda done, total: None, **options):
    engines = {"engine": engine} if engine else {}
    return build_dataset(source, directory, Options(records_per_shard=8, **options), report, **engines)


@pytest.fixture
def engine():
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed; it lives in an environment of its own")
    return beam.beam_engine(OPTIONS)


class Given:
    """A way to read a study that can be sent to other processes."""

    def __init__(self, name: str, damaged: bool):
        self.name, self.damaged = name, damaged

    def __call__(self) -> Example:
        return (unreadable if self.damaged else study)(self.name, None).read()


def mixed() -> TinySource:
    """Every fifth study is damaged."""
    names = [(f"{s}-{i}", s, i % 5 == 0) for s in SPLITS for i in range(20)]
    return TinySource([Study(n, f"patient of {n}", s, Given(n, damaged)) for n, s, damaged in names])


def test_the_bytes_are_those_of_a_local_build(engine, tmp_path):
    source, seen = Phantom(patients=30, size=16), []
    build(source, tmp_path / "local")
    build(source, tmp_path / "beam", engine, lambda done, total: seen.append((done, total)))
    assert content(tmp_path / "beam") == content(tmp_path / "local")
    assert seen[-1] == (len(source.studies()),) * 2


def test_rejected_studies_are_listed_as_in_a_local_build(engine, tmp_path):
    build(mixed(), tmp_path / "local", max_rejected_fraction=0.3)
    build(mixed(), tmp_path / "beam", engine, max_rejected_fraction=0.3)
    assert content(tmp_path / "beam") == content(tmp_path / "local")


def test_the_limit_holds_and_either_engine_goes_on_where_the_other_stopped(engine, tmp_path):
    build(mixed(), tmp_path / "local", max_rejected_fraction=0.3)
    with pytest.raises(UserError, match="of 60 studies are unreadable"):
        build(mixed(), tmp_path / "beam", engine, max_rejected_fraction=0.05)
    assert len((tmp_path / "beam" / REJECTED).read_text().splitlines()) == 12
    next((tmp_path / "beam").glob(f"*{RECEIPT}")).unlink()
    build(mixed(), tmp_path / "beam", max_rejected_fraction=0.3)
    assert content(tmp_path / "beam") == content(tmp_path / "local")


def test_without_beam_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'medjax\[beam\]'"):
        beam.beam_engine()
