"""embed as a user runs it: the same tables whatever the format, the parts, the devices, the processes and the kills."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import medjax
from medjax.evaluation import store, token_store
from medjax.evaluation.embeddings import embed_batches

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def _start(*arguments: str, devices: int = 1) -> subprocess.Popen:
    environment = {**os.environ, "NPROC": "16", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-m", "medjax.bin.embed", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _embed(*arguments: str, devices: int = 1, status: int = 0) -> tuple[str, str]:
    process = _start(*arguments, devices=devices)
    out, error = process.communicate(timeout=500)
    assert process.returncode == status, error[-3000:]
    return out, error


@pytest.fixture(scope="module")
def tables(phantom_run, tmp_path_factory) -> Path:
    """Test and validation splits, in parts of five rows, with tokens."""
    folder = tmp_path_factory.mktemp("embedded") / "tables"
    _embed(f"--workdir={phantom_run}", f"--output={folder}", "--splits=test,validation", "--part_size=5", *TOKENS)
    return folder


TOKENS = ("--features=tokens", "--token_dtype=float32")


def _same(a, b, exact: bool) -> None:
    for k, x in store.columns(a).items():
        y = store.columns(b)[k]
        if exact or not k.startswith("embedding/"):
            np.testing.assert_array_equal(x, y, err_msg=k)
        else:
            np.testing.assert_allclose(x, y, atol=1e-5, err_msg=k)


def test_tables_are_those_of_the_library_and_the_index_says_what_they_are(tables, phantom_run):
    encoder = medjax.load(phantom_run)
    dataset = encoder.dataset()
    want = embed_batches(
        encoder.encode, dataset.evaluation("test", 16), dataset.manifest.labels, dataset.attributes("test")
    )
    found = store.read(tables, "test")
    _same(found, want, exact=False)
    index = store.read_index(tables)
    assert index.about["data"]["name"] == dataset.manifest.name and index.left_out == {"test": 0, "validation": 0}
    assert index.labels == dataset.manifest.labels and not (tables / ".unfinished").exists()
    parts = list(token_store.read(tables, "test"))
    rows = np.concatenate([p["row/image"] for p in parts])
    np.testing.assert_array_equal(rows, np.flatnonzero(found.present["image"]))
    batch = next(dataset.evaluation("test", 4))
    features, _ = encoder.method.towers.apply(encoder.params, encoder.state, "image", batch, None, False)
    there = np.flatnonzero(batch.items["image"].mask[:, 0])
    np.testing.assert_allclose(parts[0]["tokens/image"][: len(there)], features.patches[there], atol=1e-5)
    for m, axes in index.tokens["axes"].items():
        assert parts[0][f"coordinates/{m}"].shape[2:] == (len(axes), 2)


@pytest.mark.parametrize("kind", ["parquet", "array_record"])
def test_every_format_and_several_devices_give_the_same(tables, phantom_run, tmp_path, kind):
    given = f"--workdir={phantom_run}", f"--output={tmp_path}", "--splits=test", f"--format={kind}"
    _embed(*given, devices=3 if kind == "parquet" else 1)
    _same(store.read(tmp_path, "test"), store.read(tables, "test"), exact=False)


def test_a_killed_run_goes_on_to_the_same_bytes_and_refuses_another_encoder(tables, phantom_run, tmp_path):
    given = f"--workdir={phantom_run}", f"--output={tmp_path}", "--splits=test,validation", "--part_size=5", *TOKENS
    process = _start(*given)
    process.stdout.readline()  # the first part is there
    process.kill()
    process.communicate()
    assert not (tmp_path / store.INDEX).exists() and (tmp_path / ".unfinished" / "test-000000000.npz").exists()
    _, error = _embed(*given, "--checkpoint=untrained", status=2)
    assert "unfinished parts of another encoder" in error and len(error.splitlines()) == 1
    out, _ = _embed(*given)
    assert "test: rows 0 to 4" not in out
    one, two = (json.loads((folder / store.INDEX).read_text()) for folder in (tables, tmp_path))
    assert one == two  # checksums of all files among it


def test_finished_tables_are_replaced_only_when_told(tables, phantom_run, tmp_path):
    given = f"--workdir={phantom_run}", f"--output={tmp_path}"
    _embed(*given, "--splits=validation", "--part_size=2")
    _, error = _embed(*given, "--splits=test", status=2)
    assert "pass --overwrite" in error and len(error.splitlines()) == 1
    _embed(*given, "--splits=test", "--overwrite")
    assert sorted(p.name for p in tmp_path.glob("*-*.npz")) == ["test-00000.npz"]


def test_two_processes_share_the_parts_and_give_the_same(tables, phantom_run, tmp_path):
    with socket.socket() as s:
        s.bind(("", 0))
        more = f"--coordinator=localhost:{s.getsockname()[1]}", "--process_count=2"
    given = f"--workdir={phantom_run}", f"--output={tmp_path}", "--splits=test,validation", "--part_size=5", *TOKENS
    running = [_start(*given, *more, f"--process_index={i}", devices=2) for i in range(2)]
    outs = [p.communicate(timeout=500) for p in running]
    assert [p.returncode for p in running] == [0, 0], outs
    assert all("rows" in out for out, _ in outs)
    for split in ("test", "validation"):
        _same(store.read(tmp_path, split), store.read(tables, split), exact=False)
