"""The build binary: flags to data set, and one line for everything that is wrong with them."""

import csv
import re
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from medjax.bin import build_dataset as binary
from medjax.data import manifest as manifests
from medjax.errors import UserError


def main(**values) -> None:
    with flagsaver.flagsaver(**values):
        binary.main()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "studies.csv"
    with path.open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["patient", "report", "crp"])
        writer.writerows([f"p{i}", f"report {i} of an effusion", i] for i in range(30))
    return str(path)


def test_flags_reach_the_data_set(table, tmp_path, capsys):
    main(
        source="table",
        input=table,
        output=str(tmp_path / "d"),
        text_columns=["report"],
        numeric_columns=["crp"],
        patient_column="patient",
        name="mine",
        licence="CC0-1.0",
        split="random",
        split_fractions=["0.4", "0.3", "0.3"],
        workers=1,
    )
    manifest = manifests.load(tmp_path / "d")
    assert (manifest.name, manifest.licence, manifest.patients_known) == ("mine", "CC0-1.0", True)
    assert set(manifest.modalities) == {"text", "labs"}
    assert sum(s.examples for s in manifest.splits.values()) == 30
    out = capsys.readouterr().out
    for name, split in manifest.splits.items():
        assert f"{name}: {split.examples} studies of {split.patients} patients" in out


def test_a_secret_key_changes_the_ids(table, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    digests = set()
    for name, file in (("a", ""), ("b", str(key)), ("c", str(key))):
        main(
            source="table", input=table, output=str(tmp_path / name), text_columns=["report"], patient_column="patient",
            id_key_file=file, workers=1, split="random", split_fractions=["0.4", "0.3", "0.3"],
        )  # fmt: skip
        digests.add(manifests.load(tmp_path / name).digest())
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(), "pass --source="),
        (dict(source="phantom"), "--output=DIR"),
        (dict(source="ptbxl", output="OUT"), "--source=ptbxl needs --input"),
        (dict(source="ptbxl", output="OUT", input="/nowhere"), r"/nowhere/ptbxl_database\.csv does not exist"),
        (dict(source="medmnist", output="OUT", input="/nowhere.npz"), r"/nowhere\.npz does not exist"),
        (dict(source="table", output="OUT", input="TABLE", text_columns=["repot"]), "did you mean 'report'"),
        (dict(source="table", output="OUT", input="TABLE"), "at least one of --image_columns"),
        (dict(source="phantom", output="OUT", fold="one"), "--fold is such as 0/5"),
        (dict(source="phantom", output="OUT", split="fold", fold="5/5"), "0..4"),
        (dict(source="phantom", output="OUT", split_fractions=["0.9", "0.2", "0.1"]), "sum to 1"),
        (dict(source="phantom", output="OUT", id_key_file="/nowhere"), "16 to 64 secret bytes"),
        (dict(source="phantom", output="OUT", tokenizer="/nowhere"), "no tokenizer at /nowhere"),
        (dict(source="phantom", output="OUT", patients=1), "split is empty"),
        (dict(source="phantom", output="OUT", index_only=True), "--index_only needs a source that reads files"),
        (dict(source="phantom", output="OUT", beam_options="--runner=X"), "--beam_options are for --engine=beam"),
    ],
)
def test_bad_flags_are_named(table, tmp_path, values, message):
    places = {"OUT": str(tmp_path / "d"), "TABLE": table}
    with pytest.raises(UserError, match=message):
        main(**{k: places.get(v, v) if isinstance(v, str) else v for k, v in values.items()})
    assert not (tmp_path / "d" / manifests.FILE).exists()


def test_the_size_is_told_before_the_build_and_what_is_done_during_it(tmp_path, capsys):
    main(source="phantom", output=str(tmp_path), patients=40, image_size=16, workers=1)
    told, *progress = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d+ studies, about [\d.]+ [KM]iB, in \d+ shards", told)
    studies = told.split()[0]
    assert progress[-1].startswith(f"{studies}/{studies} studies")
    written = sum(path.stat().st_size for path in tmp_path.glob("*.array_record"))
    number, unit = re.search(r"about ([\d.]+) (\w+)", told).groups()
    # An ArrayRecord file is filled up to 64 KiB.
    assert abs(float(number) * {"KiB": 2**10, "MiB": 2**20}[unit] - written) < 0.5 * written + 5 * 2**16


def test_an_index_keeps_no_file(tmp_path, test_data):
    main(source="ptbxl", input=str(test_data / "ecg_ptbxl100"), output=str(tmp_path), index_only=True, workers=1)
    manifest = manifests.load(tmp_path)
    assert manifest.index_only and sum(s.examples for s in manifest.splits.values()) > 300
    assert sum(path.stat().st_size for path in tmp_path.glob("*.array_record")) < 2**20


def test_a_data_set_is_not_overwritten(phantom_dir):
    with pytest.raises(UserError, match=r"there is a data set at .* already"):
        main(source="phantom", output=str(phantom_dir))


def test_the_process_ends_with_one_line_and_status_two(phantom_dir):
    command = [sys.executable, "-m", "medjax.bin.build_dataset", "--source=phantom", f"--output={phantom_dir}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: there is a data set at")


def test_flags_do_not_stick_between_tests():
    assert flags.FLAGS.source is None
