"""The chest X-rays of Indiana University (Open-i, NLM): reports and views, in the tables of Kaggle or the NLM's XML."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from medjax.data.items import FileItem
from medjax.data.manifest import Finding, Modality
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.layout import inside, stream_rows
from medjax.errors import UserError

# Headings of the curators' indexing, of which a study has the label if one of its terms begins with it.
LABELS = (
    "normal",
    "Cardiomegaly",
    "Pulmonary Atelectasis",
    "Pleural Effusion",
    "Pulmonary Edema",
    "Pneumonia",
    "Pneumothorax",
    "Opacity",
    "Nodule",
    "Emphysema",
    "Fractures, Bone",
)
_SECTIONS = ("findings", "impression")
_MAX_BYTES = 2**22  # of one report in XML
_PICTURES = ("images/images_normalized", "images", "NLMCXR_png", "")


@dataclass(frozen=True)
class OpenI:
    """A folder in one of two layouts. Kaggle's (raddar/chest-xrays-indiana-university): `indiana_reports.csv`,
    `indiana_projections.csv` and the PNGs in `images/images_normalized`. The NLM's: `ecgen-radiology/*.xml` (NLMCXR
    reports) and the PNGs in `NLMCXR_png` or beside it; entities in the XML are refused.

    An example is a report with its views as items, frontal ones first where the tables say which they are. The text is
    findings and impression; words that were taken out read XXXX. Labels are terms of the curators' indexing.

    Who the patients are is not said, and there are no official splits. Tested on generated files in both layouts. The
    licence is that which the XML files name.
    """

    path: Path

    @property
    def root(self) -> Path:
        """The folder that holds all files."""
        return self.path

    @property
    def schema(self) -> Schema:
        """Pictures, reports and indexed terms."""
        prompts = {
            name: Finding((name.lower(),), (f"no {name.lower()}",), seen_in=("image",)) for name in LABELS[1:]
        } | {"normal": Finding(("normal chest x-ray",), ("abnormal chest x-ray",), seen_in=("image",))}
        return Schema(
            name="openi",
            source="Indiana University chest X-rays, Open-i, National Library of Medicine",
            licence="CC-BY-NC-ND-4.0",
            modalities={"image": Modality("image"), "text": Modality("text")},
            labels=LABELS,
            findings=prompts,
            sensitive=False,
            patients_known=False,
            notes=("No patient ids: every report counts as a patient of its own.",),
        )

    def studies(self) -> Sequence[Study]:
        """One study a report."""
        if (self.path / "indiana_reports.csv").is_file():
            return self._from_tables()
        files = sorted(self.path.glob("ecgen-radiology/*.xml"), key=lambda p: (len(p.stem), p.stem))
        if not files:
            raise UserError(
                f"{self.path} has neither indiana_reports.csv nor ecgen-radiology/*.xml; unpack the archive"
            )
        pictures = self._pictures()
        return [Study(f"report {p.stem}", p.stem, None, partial(_read_xml, p, pictures)) for p in files]

    def _from_tables(self) -> list[Study]:
        views: dict[str, list[tuple[bool, str]]] = {}
        for uid, name, projection in stream_rows(
            self.path / "indiana_projections.csv", ("uid", "filename", "projection")
        ):
            views.setdefault(uid, []).append((projection != "Frontal", name))
        pictures, out = self._pictures(), []
        for uid, problems, *texts in stream_rows(self.path / "indiana_reports.csv", ("uid", "Problems", *_SECTIONS)):
            files = [name for _, name in sorted(views.get(uid, ()))]
            out.append(
                Study(f"report {uid}", uid, None, partial(_example, uid, pictures, files, texts, problems.split(";")))
            )
        return out

    def _pictures(self) -> Path:
        return next(
            folder
            for name in _PICTURES
            if (folder := self.path / name).is_dir() and (not name or any(folder.glob("*.png")))
        )


def _example(uid: str, folder: Path, files: Sequence[str], texts: Sequence[str], terms: Sequence[str]) -> Example:
    items: dict[str, list] = {"image": [FileItem("image", inside(folder, name)) for name in files]}
    text = " ".join(x.strip() for x in texts if x and x.strip())
    if text:
        items["text"] = [encode_text(text)]
    items = {m: x for m, x in items.items() if x}
    if not items:
        raise UserError(f"report {uid} has neither text nor picture")
    heads = {term.split("/")[0].strip().lower() for term in terms}
    labels = {name: float(name.lower() in heads) if heads - {""} else float("nan") for name in LABELS}
    return Example(example_id=uid, patient_id=uid, group_id=uid, items=items, labels=labels)


def _read_xml(path: Path, pictures: Path) -> Example:
    root = parse_xml(path)
    texts = {x.get("Label", "").lower(): "".join(x.itertext()) for x in root.iter("AbstractText")}
    files = [f"{x.get('id', '')}.png" for x in root.iter("parentImage")]
    terms = ["".join(x.itertext()) for mesh in root.iter("MeSH") for x in mesh.iter("major")]
    return _example(path.stem, pictures, files, [texts.get(name, "") for name in _SECTIONS], terms)


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of a small XML file.

    Raises:
      UserError: the file is missing, larger than 4 MiB, not XML, or declares entities, which could grow without bound
        or name other files.
    """
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path} is missing or has more than {_MAX_BYTES >> 20} MiB; it is no report")
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except _EntityError:
        raise UserError(f"{path} declares entities, which no report needs; remove the file") from None
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not XML: {error}") from None


class _EntityError(Exception):
    pass


def _refuse(*_) -> None:
    raise _EntityError
