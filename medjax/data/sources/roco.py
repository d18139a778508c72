"""ROCO's layout (doi 10.1007/978-3-030-01364-6_20) and that of ROCOv2: figures of articles with their captions."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medjax.data.items import FileItem
from medjax.data.manifest import Modality
from medjax.data.privacy.licence import combine, parse
from medjax.data.readers.table import iterate_table
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.layout import inside, stream_rows
from medjax.errors import UserError

_SPLITS = {"train": "train", "validation": "validation", "test": "test"}
_V2 = {"train": "train", "valid": "validation", "test": "test"}
_ARTICLE = re.compile(r"PMC[0-9]+")
_MAX_LINE = 2**16  # of a file of captions


@dataclass(frozen=True)
class Roco:
    """A folder of ROCO, `{train,validation,test}/radiology` with `captions.txt` (name, tab, caption), `licences.txt`
    (ROCO_ID,PMC_ID,CC; in the test split it may be called `cc_*.csv`) and `images/ROCO_00001.jpg`, or the folder `data`
    that holds it in the repository; or of ROCOv2, `{train,valid,test}_captions.csv` (ID,Caption), `{train,valid,test}/`
    and `license_information.csv`.

    Each figure has a licence of its own. licences: those that are taken, as the table writes them, such as ("CC BY",
    "CC0"); empty takes all, also those without one. figures: "radiology" or "non-radiology". The figures of one article
    share `group_id`; whose they are is not said, so that every figure counts as a patient of its own.

    Tested on generated files; the columns of ROCOv2's table of licences are unconfirmed, and are searched by name.
    """

    path: Path
    licences: tuple[str, ...] = ()
    figures: str = "radiology"

    @property
    def root(self) -> Path:
        """The folder that holds all files."""
        return self.path / "data" if (self.path / "data").is_dir() else self.path

    @property
    def schema(self) -> Schema:
        """Figures and captions."""
        v2 = self._is_v2()
        terms = combine(parse(x) for x in self.licences) if self.licences else parse("one a figure, some without")
        return Schema(
            name="rocov2" if v2 else "roco",
            source="ROCOv2, doi 10.5281/zenodo.8333645" if v2 else "ROCO, doi 10.1007/978-3-030-01364-6_20",
            licence=terms.identifier,
            terms=terms,
            modalities={"image": Modality("image"), "text": Modality("text")},
            sensitive=False,
            patients_known=False,
            notes=("No patient ids: every figure counts as a patient of its own.",),
        )

    def studies(self) -> Sequence[Study]:
        """One study a figure, in the order of the captions."""
        rows = self._second() if self._is_v2() else self._first()
        out = [
            Study(name, name, split, partial(_read, name, image, caption, article))
            for name, split, image, caption, (article, licence) in rows
            if not self.licences or licence in self.licences
        ]
        if not out:
            raise UserError(f"{self.root} has no figures of the licences {', '.join(self.licences) or '(any)'}")
        return out

    def _is_v2(self) -> bool:
        return (self.root / "train_captions.csv").is_file()

    def _first(self) -> Iterator[tuple]:
        for folder, split in _SPLITS.items():
            where = self.root / folder / self.figures
            tables = [where / "licences.txt", *sorted(where.glob("cc_*.csv"))]
            known: dict[str, tuple[str, str]] = {}
            for table in tables:
                if table.is_file():
                    known |= {name: (_article(pmc), cc.strip()) for name, pmc, cc in _licences(table)}
            if self.licences and not known:
                raise UserError(f"{where} has no table of licences to choose by; get the whole repository")
            for name, caption in _captions(where / "captions.txt"):
                yield name, split, inside(where, f"images/{name}.jpg"), caption, known.get(name, ("", ""))

    def _second(self) -> Iterator[tuple]:
        known = {}
        for row in iterate_table(self.root / "license_information.csv") if self.licences else ():
            name, *rest = row.values()
            licence = next((v for k, v in row.items() if "licen" in k.lower() or k.upper() == "CC"), "")
            known[name] = _article(" ".join(rest)), licence.strip()
        for folder, split in _V2.items():
            for name, caption in stream_rows(self.root / f"{folder}_captions.csv", ("ID", "Caption")):
                image = inside(self.root / folder, f"{name}.jpg")
                yield name, split, image, caption, known.get(name, ("", ""))


def _article(text: str) -> str:
    """The article that a name such as PMC3970251_CRIONM2014-931546.003.jpg comes from."""
    found = _ARTICLE.search(text)
    return found.group() if found else ""


def _licences(path: Path) -> Iterator[list[str]]:
    """Name, file in PubMed Central and licence."""
    for line in _lines(path):
        cells = line.split(",")
        if len(cells) == 3 and cells[0] != "ROCO_ID":
            yield cells


def _captions(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), start=1):
        name, tab, caption = line.partition("\t")
        if not tab:
            raise UserError(f"{path} line {number} is not a name, a tab and a caption")
        yield name.strip(), caption.strip()


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; get the whole repository")
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as f:
            while line := f.readline(_MAX_LINE):
                if line.strip():
                    yield line.rstrip("\r\n")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from None


def _read(name: str, image: Path, caption: str, article: str) -> Example:
    if not caption:
        raise UserError(f"the caption of {name} is empty")
    items = {"image": [FileItem("image", image)], "text": [encode_text(caption)]}
    return Example(example_id=name, patient_id=name, group_id=article or name, items=items)
