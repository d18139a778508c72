"""Flags that say whom or what a program is about, as the hashes that records hold, and which checkpoints saw them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from medjax.data.ids import hash_id
from medjax.data.manifest import Manifest
from medjax.data.privacy.keys import default_key_file, fingerprint, read_key
from medjax.errors import UserError
from medjax.training.lineage import exposures

_PATIENTS = flags.DEFINE_list("patient", [], "Patients, as the source names them, or id-... as medjax does.")
_EXAMPLES = flags.DEFINE_list("example", [], "Studies, as the source names them, or id-... as medjax does.")
_FILE = flags.DEFINE_string("patients_file", "", "File with a patient a line.")
_KEY_FILE = flags.DEFINE_string("id_key_file", "", "The key that the data set was built with; default: the usual one.")


def asked() -> tuple[str, list[str]]:
    """("patient" or "example", their names).

    Raises:
      UserError: nobody is named, or both are.
    """
    patients = list(_PATIENTS.value)
    if _FILE.value:
        if not Path(_FILE.value).is_file():
            raise UserError(f"--patients_file={_FILE.value} does not exist")
        patients += [x.strip() for x in Path(_FILE.value).read_text().splitlines() if x.strip()]
    if bool(patients) == bool(_EXAMPLES.value):
        raise UserError("pass either --patient=ID[,ID] (or --patients_file) or --example=ID[,ID]")
    return ("patient", patients) if patients else ("example", list(_EXAMPLES.value))


def hashes(names: list[str], manifest: Manifest) -> list[np.ndarray]:
    """uint32[2] of each name, with the key of the data set.

    Raises:
      UserError: the key is missing or another.
    """
    key = read_key(_KEY_FILE.value or default_key_file()) if manifest.id_key else b""
    if fingerprint(key) != manifest.id_key:
        raise UserError(
            f"the ids of data set {manifest.name!r} were hashed with another key; pass the one it was built with as "
            "--id_key_file"
        )
    return [hash_id(name, key) for name in names]


def seen_by(run: Path, kind: str, ids: Sequence[np.ndarray]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """A table for the console: its header, and a row for each checkpoint of a run."""
    header = ("checkpoint", "step", "examples trained on", "seen", "first as number")
    found = exposures(run, kind, ids)
    return header, [
        (x.folder, x.step, x.examples, f"{x.seen} times" if x.seen else "never", x.first or "") for x in found
    ]
