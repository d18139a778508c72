"""Writes a folder that open_clip loads, if it computes there what JAX computes."""

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax.bin import export_folder as folders
from medjax.bin.export_folder import Agreement
from medjax.bin.exporting_hub import Wanted, chosen_modalities, projection, rows_of, there_of
from medjax.convert import hub_files, open_clip_write
from medjax.data import Dataset
from medjax.errors import UserError
from medjax.methods import exported
from medjax.methods.encoder import Encoder

FORMAT = "medjax-export-open-clip-1"
_BATCH = 16


def export_open_clip(
    encoder: Encoder,
    dataset: Dataset,
    output: Path,
    name: str,
    tolerance: float,
    examples: int,
    overwrite: bool,
    extra: Mapping[str, Any] | None = None,
    wanted: Wanted | None = None,
) -> Agreement:
    """Writes `output`, after comparing on `examples` studies of the data set.

    name: of the checkpoint. tolerance: the largest absolute difference of any embedding entry that is let pass. extra:
    further entries of the description.

    Raises:
      UserError: open_clip is missing or lacks the architecture, `output` exists, or the embeddings differ; then nothing
        is left behind.
    """
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise UserError(f"the export needs open_clip ({error}); pip install open_clip_torch torchvision") from None
    modalities = chosen_modalities(encoder, wanted or Wanted())
    if len(modalities) != 2:
        raise UserError("open_clip's models are of an image and a text; name both with --modality=IMAGE,TEXT")
    encoder = exported.standalone(encoder)
    model = _model(encoder, modalities)
    text = encoder.transforms[modalities[1]]
    with folders.published(output, overwrite) as folder:
        folders.write_json(folder / "open_clip_config.json", model.json)
        folders.write_weights(folder / "open_clip_model.safetensors", model.state())
        if model.text_json:
            folders.write_json(folder / "config.json", model.text_json)
        folders.write_tokenizer(text.tokenizer, folder, text.spec()["length"])
        with contextlib.chdir(folder):  # in which the name "." of the BERT is found
            loaded = open_clip.create_model("local-dir:.").eval()
        with torch.no_grad(), jax.default_matmul_precision("highest"):
            found = _compare(encoder, loaded, modalities, dataset, examples)
        found.check(tolerance, "embeddings")
        loading = open_clip_write.loading(encoder.transforms[modalities[0]].spec())
        extra = {**(extra or {}), "format": FORMAT}
        folders.write_description(encoder, folder, modalities, name, (found, tolerance), extra, loading)
    return found


def _model(encoder: Encoder, modalities: tuple[str, ...]) -> open_clip_write.OpenClipModel:
    configs = exported.tower_configs(encoder.method)
    trees = exported.exported_tree(encoder.params, encoder.state)["towers"]
    towers = {encoder.transforms[m].kind: (configs[m], trees[m]) for m in modalities}
    specs = {encoder.transforms[m].kind: encoder.transforms[m].spec() for m in modalities}
    ids = hub_files.token_ids(encoder.transforms[modalities[1]].tokenizer)
    return open_clip_write.pair(towers, specs, ids, projection(encoder, modalities))


def _compare(encoder: Encoder, loaded, modalities: tuple[str, ...], dataset: Dataset, examples: int) -> Agreement:
    """The embeddings of preprocessed items of the validation split."""
    import torch

    image, text = modalities
    differences, count = [0.0], 0
    for batch in itertools.islice(dataset.evaluation(folders.split_of(dataset), _BATCH), max(1, examples // _BATCH)):
        batch = batch.only_valid().select(modalities)
        want = encoder.encode(batch).items
        pixels = torch.from_numpy(np.moveaxis(rows_of(batch, image), -1, 1)).expand(-1, 3, -1, -1)
        tokens = torch.from_numpy(rows_of(batch, text)["tokens"]).long()
        got = {image: loaded.encode_image(pixels, normalize=True), text: loaded.encode_text(tokens, normalize=True)}
        for m in modalities:
            there = there_of(batch, m)
            flat = np.asarray(want[m]).reshape(len(there), -1)
            differences.append(folders.difference(flat[there], got[m][there]))
        count += int(batch.valid.sum())
    return Agreement(max(differences), count, 0)
