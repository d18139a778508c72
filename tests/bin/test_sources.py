"""The flags of the sources of one's own files reach them."""

from pathlib import Path

import pytest
from absl.testing import flagsaver

from medjax.data.sources import Columns, Folders, MedMNIST, Table, WebDataset
from medjax.errors import UserError


def made(source: str, /, **values):
    from medjax.bin import build_dataset  # noqa: F401 - it defines the flags
    from medjax.bin.sources import SOURCES

    with flagsaver.flagsaver(**values):
        return SOURCES[source]()


def test_folders():
    got = made("folders", input="d", licence="MIT", captions="c.json", patient_pattern="p.", sensitive=False)
    assert got == Folders(Path("d"), "folders", "MIT", "c.json", "p.", False)


def test_webdataset():
    columns = dict(text_columns=["caption"], label_columns=["sick"], patient_column="p", identifier_columns=["born"])
    got = made("webdataset", input="{0..9}.tar", name="mine", classes=["a", "b"], uncertain_labels="zeros", **columns)
    keys = Columns(text=("caption",), label=("sick",), patient="p", identifier=("born",))
    assert got == WebDataset("{0..9}.tar", "mine", "unknown", keys, ("a", "b"), "zeros", True)


def test_table():
    options = '{"nifti": {"unit": "HU"}}'
    columns = dict(image_columns=["a"], report_columns=["r"], volume_columns=["v"], text_sections=["findings"])
    got = made("table", input="t.parquet", uncertain_labels="ones", reader_options=options, **columns)
    assert got == Table(
        Path("t.parquet"),
        Columns(image=("a",), report=("r",), volume=("v",)),
        "table",
        "unknown",
        sections=("findings",),
        uncertain="ones",
        options={"nifti": {"unit": "HU"}},
    )


def test_medmnist():
    assert made("medmnist", input="x.npz", dataset="organmnist3d") == MedMNIST(Path("x.npz"), "organmnist3d")


@pytest.mark.parametrize("options", ["{", "[]", '{"nifti": 1}'])
def test_reader_options_that_are_no_options_are_refused(options):
    with pytest.raises(UserError, match="--reader_options"):
        made("table", input="t.csv", reader_options=options)


def test_a_source_of_files_needs_an_input():
    with pytest.raises(UserError, match="--source=folders needs --input"):
        made("folders")
