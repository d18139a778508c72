"""Licences go from data sets to runs, to runs that start from them, and stop an export that nobody has agreed to."""

import dataclasses
import json
import subprocess
import sys

from medjax.data import manifest as manifests
from medjax.data.privacy import licence
from medjax.methods.encoder import CONFIG
from medjax.training.experiment import WarmStart
from medjax.training.rundir import describe_run, run_terms

# Enough for the export to get to the method, which is missing.
RESOLVED = {"data": {"modalities": {}}, "method": {"name": "contrastive"}}


class FakeDataset:
    """What describe_run looks at."""

    def __init__(self, manifest, directory):
        self.manifest, self.directory = dataclasses.replace(manifest, tokenizer=None), directory


class FakeExperiment:
    """What describe_run looks at."""

    def __init__(self, start):
        self.resolved, self.warm_start = RESOLVED, WarmStart(dir=str(start) if start else "")


def describe(phantom_dir, workdir, name, start=None):
    manifest = manifests.read(phantom_dir)
    manifest = dataclasses.replace(manifest, licence=name, terms=licence.parse(name))
    describe_run(FakeExperiment(start), workdir, FakeDataset(manifest, phantom_dir))
    assert (workdir / CONFIG).is_file()
    return workdir


def test_a_run_has_the_terms_of_its_data_and_of_what_it_starts_from(phantom_dir, tmp_path):
    first = describe(phantom_dir, tmp_path / "a", "CC-BY-NC-4.0")
    second = describe(phantom_dir, tmp_path / "b", "CC0-1.0", first)
    third = describe(phantom_dir, tmp_path / "c", "CC0-1.0", second)
    assert run_terms(third).non_commercial and str(run_terms(third)).startswith("CC0-1.0 + CC-BY-NC-4.0")
    assert not run_terms(describe(phantom_dir, tmp_path / "d", "CC0-1.0")).restricted


def test_a_run_from_before_terms_were_kept_has_those_of_its_manifest(phantom_dir, tmp_path):
    run = describe(phantom_dir, tmp_path / "a", "CC-BY-NC-4.0")
    about = json.loads((run / "versions.json").read_text())
    del about["terms"]
    (run / "versions.json").write_text(json.dumps(about))
    assert run_terms(run) == licence.parse("CC-BY-NC-4.0")


def test_the_export_of_a_restricted_run_asks(phantom_dir, tmp_path):
    run = describe(phantom_dir, tmp_path / "a", "CC-BY-NC-SA-4.0")
    command = [sys.executable, "-m", "medjax.bin.export", f"--workdir={run}"]
    for more, expected in (
        ([], "--acknowledge_licence"),
        (["--acknowledge_licence"], "config.method.towers is required"),
    ):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and expected in done.stderr
        assert ("non-commercial, share-alike" in done.stderr) == (not more)
