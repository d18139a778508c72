"""Drops near-duplicate pictures from a data set's training split: python -m medjax.bin.dedup --data=DATA --output=NEW.

Difference hashes within a study, as "Less is More" thins out CT slices, by default; `--scope=dataset` compares all
pictures and also drops training pictures with a near twin in validation or test. `NEW` is a data set of its own, with
`dropped.jsonl`, which says of every dropped picture which one stands for it. Of a folder of volumes (NIfTI, NRRD) it
writes a list of the slices to keep:

    python -m medjax.bin.dedup --volumes=FOLDER --output=kept.jsonl
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from absl import flags

from medjax.bin import cli
from medjax.data import manifest as manifests
from medjax.data.building.rewrite import rewrite
from medjax.data.curation.dropping import Rule, dropped, without
from medjax.data.curation.duplicates import dhash, distinct_hashes, informative, to_gray8
from medjax.data.readers import reader
from medjax.errors import UserError
from medjax.methods.encoder import load_run
from medjax.storage import local_path

_DATA = flags.DEFINE_string("data", "", "The data set; it is not changed.")
_VOLUMES = flags.DEFINE_string("volumes", "", "A folder of volumes, in place of a data set.")
_OUTPUT = flags.DEFINE_string("output", "", "The new data set, or the list of slices to keep.")
_MODALITY = flags.DEFINE_string("modality", "", "Which pictures; default: the only modality of pictures.")
_METHOD = flags.DEFINE_enum("method", "dhash", ["dhash", "embedding", "entropy"], "What makes pictures alike.")
_SCOPE = flags.DEFINE_enum("scope", "study", ["study", "patient", "dataset"], "Which pictures are compared.")
_HAMMING = flags.DEFINE_integer("max_hamming", Rule.max_hamming, "dhash: bits of 64 that may differ.")
_COSINE = flags.DEFINE_float("max_cosine", Rule.max_cosine, "embedding: more is a duplicate.")
_FRACTION = flags.DEFINE_float("keep_fraction", Rule.keep_fraction, "entropy: share to keep, of the highest entropy.")
_RUN = flags.DEFINE_string("workdir", "", "embedding: the run whose encoder embeds.")
_READERS: Mapping[str, str] = {".nii": "nifti", ".nii.gz": "nifti", ".nrrd": "nrrd"}


def main() -> None:
    """Writes the thinned data set, or the list."""
    if bool(_DATA.value) == bool(_VOLUMES.value) or not _OUTPUT.value:
        raise UserError("pass --data=DIR or --volumes=FOLDER, and --output")
    output = Path(_OUTPUT.value)
    if output.exists():
        raise UserError(f"{output} is there already; remove it or choose another --output")
    if (_METHOD.value == "embedding") != bool(_RUN.value):
        raise UserError("--method=embedding needs --workdir=RUN, and no other method does")
    rule = Rule(_METHOD.value, _SCOPE.value, _HAMMING.value, _COSINE.value, _FRACTION.value)
    if _VOLUMES.value:
        _thin_volumes(Path(_VOLUMES.value), output, rule)
    else:
        _thin_data(local_path(_DATA.value, "dedup"), output, rule)


def _thin_data(directory: Path, output: Path, rule: Rule) -> None:
    manifest = manifests.load(directory)
    modality = _modality(manifest)
    drops = dropped(directory, manifest, modality, rule, _embedder(modality))
    shutil.copytree(directory, output)
    before = manifest.splits["train"]
    if drops:
        note = f"Near-duplicate {modality} of the train split were left out ({rule.method}, within a {rule.scope})."
        manifest = rewrite(output, manifest, without(drops, manifest, modality), note)
    (output / "dropped.jsonl").write_text("".join(json.dumps(d.as_dict()) + "\n" for d in drops))
    after = manifest.splits["train"]
    print(f"{len(drops)} pictures dropped, {before.examples - after.examples} of {before.examples} studies with them")
    print(output)


def _modality(manifest: manifests.Manifest) -> str:
    pictures = [m for m, x in manifest.modalities.items() if x.kind == "image"]
    if _MODALITY.value or len(pictures) == 1:
        return _MODALITY.value or pictures[0]
    if not pictures:
        raise UserError(
            f"data set {manifest.name!r} has no pictures to compare; it has {', '.join(manifest.modalities)}"
        )
    raise UserError(f"data set {manifest.name!r} has several kinds of pictures; pass --modality={'|'.join(pictures)}")


def _embedder(modality: str):
    if not _RUN.value:
        return None
    encoder = load_run(_RUN.value)
    return lambda pictures: encoder.embed({modality: list(pictures)})[modality]


def _thin_volumes(folder: Path, output: Path, rule: Rule) -> None:
    """Slices along D are compared within their volume."""
    if rule.method == "embedding":
        raise UserError("--method=embedding compares the pictures of a data set; for volumes use dhash or entropy")
    kept_slices = all_slices = 0
    with output.open("x") as f:
        for name, values in _volumes(folder):
            pictures = list(to_gray8(values))
            if rule.method == "dhash":
                like = distinct_hashes([dhash(p) for p in pictures], rule.max_hamming)
                kept = np.flatnonzero(like == np.arange(len(like)))
            else:
                kept = np.flatnonzero(informative(pictures, rule.keep_fraction))
            f.write(json.dumps({"file": name, "slices": len(pictures), "kept": kept.tolist()}) + "\n")
            kept_slices, all_slices = kept_slices + len(kept), all_slices + len(pictures)
    print(f"{kept_slices} of {all_slices} slices are kept\n{output}")


def _volumes(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(path in the folder, [D, H, W]) of each volume, in the order of their names."""
    found = 0
    for path in sorted(folder.rglob("*")):
        ending = next((e for e in _READERS if path.name.endswith(e)), None)
        if ending and path.is_file():
            found += 1
            values = reader(_READERS[ending])(path, {}).values
            yield path.relative_to(folder).as_posix(), values if values.ndim == 3 else values.mean(-1)
    if not found:
        raise UserError(f"no volumes in {folder}; they end in {', '.join(_READERS)}")


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
