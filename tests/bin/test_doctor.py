"""The doctor finds nothing on sound machines, and names what is broken."""

import importlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from medjax import losses
from medjax.data import Dataset
from medjax.errors import UserError
from medjax.sharding import MeshConfig, make_mesh
from medjax.training.doctor import Check, Finding, Status, arithmetic, examine, findings, machine, network, storage

ROOT = Path(__file__).parents[2]


class LeftError(Exception):
    """Instead of leaving the process."""


NAMES = ("config", "workdir", "json", "seconds", "coordinator", "process_count", "process_index")


@pytest.fixture
def doctor():
    """The program, while the flags of others that have the same names are put aside."""
    aside = {name: flags.FLAGS[name] for name in NAMES if name in flags.FLAGS}
    for name in aside:
        delattr(flags.FLAGS, name)
    yield importlib.import_module("medjax.bin.doctor")
    del sys.modules["medjax.bin.doctor"]
    for name in NAMES:
        delattr(flags.FLAGS, name)
    for name, flag in aside.items():
        flags.FLAGS[name] = flag


@pytest.fixture
def leave(monkeypatch):
    """Raises `LeftError(status)` where the doctor would leave."""

    def raise_instead(status):
        raise LeftError(status)

    monkeypatch.setattr(os, "_exit", raise_instead)


def _statuses(found) -> dict[str, Status]:
    return {f.name: f.status for f in found}


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(replica=2, fsdp=4))


@pytest.fixture
def quick(monkeypatch):
    """Two formulas, a small file and small matrices."""
    monkeypatch.setattr(arithmetic, "FORMULAS", (arithmetic.FORMULAS[1], arithmetic.FORMULAS[3]))
    monkeypatch.setattr(storage, "_BYTES", 2**20)


def test_a_sound_machine_passes_and_the_workdir_stays_as_it_was(doctor, quick, leave, tmp_path, capsys):
    handler = signal.getsignal(signal.SIGTERM)
    workdir = tmp_path / "run"
    given = (doctor._WORKDIR, str(workdir)), (doctor._JSON, str(tmp_path / "page.json"))
    with flagsaver.flagsaver(*given, (doctor._SECONDS, 500.0)):
        doctor.main()
    lines = json.loads((tmp_path / "page.json").read_text())
    assert {x["status"] for x in lines} <= {"OK", "WARN"}
    names = [x["name"] for x in lines]
    assert {"devices", "packages", "SIGTERM", "workdir", "all-reduce", "loss symile", "matrix product"} <= set(names)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names) and " 0 FAIL" in printed
    assert not workdir.exists()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_workdir_that_cannot_be_written_fails_and_the_status_is_one(doctor, monkeypatch, leave, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "run")
    checks = [
        Check("workdir", lambda: storage.workdir(folder)),
        Check("next", lambda: [Finding("next", Status.OK, "")]),
    ]
    monkeypatch.setattr(doctor, "checks", lambda experiment, workdir: checks)
    with pytest.raises(LeftError, match="1"):
        doctor.main()
    first, *_, last, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("FAIL  workdir") and "NotADirectoryError" in first
    assert last.startswith("OK    next")


def test_a_workdir_that_gives_back_other_bytes_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "_BYTES", 2**20)
    monkeypatch.setattr(storage.os, "fsync", lambda file: os.ftruncate(file, 1000))
    (found, *_) = storage.workdir(str(tmp_path))
    assert found.status == Status.FAIL and "other bytes" in found.found
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_wrong_on_the_mesh_fails(quick, monkeypatch, mesh):
    get = losses.get

    def broken(name, impl, **options):
        right = get(name, impl=impl, **options)

        def objective(z, logit_scale, **more):
            if impl == "ring":
                return right(z, logit_scale=1.001 * logit_scale, **more)
            return right({**z, "a": jax.lax.stop_gradient(z["a"])}, logit_scale=logit_scale, **more)

        return objective

    monkeypatch.setattr(arithmetic.losses, "get", broken)
    monkeypatch.setattr(arithmetic, "FORMULAS", arithmetic.FORMULAS[:1])
    (found,) = arithmetic.objectives(mesh)
    assert found.status == Status.FAIL and "do not train" in found.advice
    ring, gather = found.found.split("; ")
    off = [[float(x) for x in re.findall(r"[\d.]+e[-+]\d+", part)] for part in (ring, gather)]
    assert off[0][0] > 1e-5  # the value
    assert off[1][0] < 1e-5 and off[1][1] > 0.1  # the gradient alone


def test_the_formulas_are_those_of_the_losses_elsewhere():
    from losses_reference import gram, info_nce

    for formula in arithmetic.FORMULAS:
        z, _ = arithmetic._inputs(formula, 12)
        objective = losses.get(formula.name, modalities=tuple(z), impl="dense", **formula.options)
        more = {} if formula.bias is None else {"logit_bias": formula.bias}
        value = float(jax.jit(lambda z, f=objective, more=more: f(z, logit_scale=5.0, **more).mean())(z))
        assert formula.reference(z, 5.0) == pytest.approx(value, rel=1e-5)
        z = {m: x.astype(np.float64) for m, x in z.items()}
        independent = {"info_nce": lambda z=z: info_nce(z, 5.0), "gram": lambda z=z: gram(z, 5.0, "a")}
        if formula.name in independent:
            assert formula.reference(z, 5.0) == pytest.approx(independent[formula.name](), rel=1e-9)


def test_collectives_that_bring_the_wrong_numbers_fail(monkeypatch, mesh):
    assert set(_statuses(network.collectives(mesh)).values()) == {Status.OK}
    right = jax.lax.ppermute
    monkeypatch.setattr(network.jax.lax, "ppermute", lambda x, axis, perm: right(x, axis, [(i, i) for i, _ in perm]))
    assert _statuses(network.collectives(mesh))["pass round a ring"] == Status.FAIL


def test_too_few_threads_for_the_devices_end_the_examination(monkeypatch):
    monkeypatch.setenv("NPROC", "4")
    found = examine([Check("threads", machine.threads), Check("hangs", lambda: 1 / 0)], 100)
    assert [f.name for f in found] == ["threads of XLA"]
    assert found[0].status == Status.FAIL and "NPROC=16" in found[0].advice


def test_old_packages_fail(monkeypatch):
    versions = {"jax": "0.4.0"}
    right = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: versions.get(name) or right(name))
    (found,) = machine.packages()
    assert found.status == Status.FAIL and "(here 0.4.0)" in found.advice


def test_a_sigterm_that_does_not_arrive_fails(monkeypatch):
    monkeypatch.setattr(machine.os, "kill", lambda pid, number: None)
    monkeypatch.setattr(machine, "_PATIENCE", 0.01)
    (found,) = machine.sigterm()
    assert found.status == Status.FAIL


def test_the_worst_of_all_processes_counts_and_differences_of_what_must_agree(monkeypatch):
    def text(*lines: Finding) -> str:
        return json.dumps([vars(f) for f in lines])

    ours = Finding("memory", Status.OK, "8 GiB"), Finding("packages", Status.OK, "jax 1", same=True)
    theirs = Finding("memory", Status.WARN, "1 GiB", "buy"), Finding("packages", Status.OK, "jax 2", same=True)
    monkeypatch.setattr(findings.jax, "process_count", lambda: 2)
    monkeypatch.setattr(findings, "_gather", lambda own: [own, text(*theirs)])
    memory, packages = findings.merge(list(ours))
    assert memory == Finding("memory", Status.WARN, "process 1: 1 GiB", "buy")
    assert packages.status == Status.FAIL and "process 0: jax 1; process 1: jax 2" in packages.found


def test_a_check_that_hangs_is_named_and_ends_the_process(monkeypatch, capsys):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)

    def hangs():
        while not left:
            signal.sigtimedwait([], 0.01)
        return []

    examine([Check("first", lambda: [Finding("first", Status.OK, "")]), Check("collectives", hangs)], 0.1)
    assert left == [1]
    assert "FAIL  collectives          no answer after" in capsys.readouterr().out


def test_a_recipe_that_does_not_fit_and_data_that_cannot_be_read_fail(doctor, monkeypatch, mesh, phantom_dir):
    from medjax.bin.cli import load_config
    from medjax.training.experiment import stages

    config = load_config(f"{ROOT / 'configs' / 'phantom.py'}:tiny")
    config.data.dir, config.data.modalities.image.size = str(phantom_dir), 32
    monkeypatch.setattr(storage, "_READ_SECONDS", 0.0)
    experiment = stages(config)[0][1]
    assert set(_statuses([*doctor.recipe(experiment, mesh), *storage.reading(experiment)]).values()) == {Status.OK}
    config.data.batch_size = 12
    with pytest.raises(UserError, match="does not divide by the 8 devices"):
        doctor.recipe(stages(config)[0][1], mesh)
    monkeypatch.setattr(Dataset, "open", lambda config: 1 / 0)
    (found,) = examine([Check("reading data", lambda: storage.reading(experiment))], 100)
    assert found.status == Status.FAIL and "ZeroDivisionError" in found.found
