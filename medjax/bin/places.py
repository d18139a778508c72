"""Another model to compare with, of whatever kind lies at a place."""

from pathlib import Path

from absl import flags

from medjax.bin.evaluation import EncoderSubject, StoredSubject, Subject
from medjax.errors import UserError
from medjax.evaluation import store
from medjax.methods.encoder import CONFIG, load_run
from medjax.methods.exported import MARKER, load_export
from medjax.storage import is_remote


def open_place(place: str, like: Subject) -> Subject:
    """What lies at `place` (a run, an export, a folder of embeddings or an NPZ file), on the data set of `like`, to be
    compared with it. --checkpoint and --weights hold for both.

    Raises:
      UserError: nothing that can be evaluated lies there.
    """
    folder = Path(place) if not is_remote(place) else None
    if folder and (store.is_plain(folder) or (folder / store.INDEX).is_file()):
        return StoredSubject(folder, like.output)
    if folder and not any((folder / name).is_file() for name in (MARKER, CONFIG)):
        raise UserError(f"nothing to evaluate at {place}: no {CONFIG} of a run, {MARKER}, {store.INDEX} or NPZ file")
    kind = "export" if folder and (folder / MARKER).is_file() else "run"
    encoder = load_export(place) if kind == "export" else load_run(place, flags.FLAGS.checkpoint, flags.FLAGS.weights)
    sets = like.dataset.sets if like.dataset else ()
    dataset = encoder.dataset(str(like.dataset.directory) if len(sets) == 1 else "")
    return EncoderSubject(kind, Path(place).name, encoder, dataset, like.output)
