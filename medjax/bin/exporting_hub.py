"""Writes a folder that Hugging Face's `AutoModel` loads, if it computes there what JAX computes."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax.bin import export_folder as folders
from medjax.bin.export_folder import Agreement
from medjax.convert import hub, hub_files
from medjax.data import Dataset
from medjax.data.batch import Batch
from medjax.errors import UserError, suggest
from medjax.methods import exported
from medjax.methods.encoder import Encoder
from medjax.models import Features

FORMAT = "medjax-export-hugging-face-1"
_BATCH = 16


@dataclass(frozen=True)
class Wanted:
    """modalities: one, or an image and a text; default all that the encoder has. separate: LoRA beside its base."""

    modalities: Sequence[str] = ()
    separate: bool = False


def export_hub(
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

    name: of the checkpoint. tolerance: the largest absolute difference of any token and any pooled feature that is let
    pass, of a pair that of any embedding entry. extra: further entries of the description.

    Raises:
      UserError: transformers or PyTorch is missing, Hugging Face lacks the architecture, `output` exists, or the
        features differ; then nothing is left behind.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            f"the export needs PyTorch and transformers ({error}); pip install torch transformers"
        ) from None
    wanted = wanted or Wanted()
    modalities = chosen_modalities(encoder, wanted)
    encoder = exported.standalone(encoder, merge=not wanted.separate)
    towers = {m: _tower(encoder, m) for m in modalities}
    model = towers[modalities[0]] if len(modalities) == 1 else _pair(encoder, towers)
    with folders.published(output, overwrite) as folder:
        _write(encoder, folder, model, towers)
        if wanted.separate:
            _write_adapter(encoder, folder / "adapter", model, modalities[0])
        loaded, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
        if wrong := {k: v for k, v in report.items() if v}:
            raise UserError(
                f"transformers {transformers.__version__} finds {wrong} in the export; nothing was exported"
            )
        with torch.no_grad(), jax.default_matmul_precision("highest"):
            found = _compare(encoder, loaded.eval(), model, towers, dataset, examples)
            raw = _compare_preprocessing(encoder, folder, towers, dataset)
        found = Agreement(max(found.max_abs_difference, raw.max_abs_difference), found.examples, raw.raw_inputs)
        found.check(tolerance, "features")
        specs = {m: encoder.transforms[m].spec() for m in modalities}
        loading = hub_files.loading(model, towers, specs, wanted.separate)
        extra = {**(extra or {}), "format": FORMAT}
        folders.write_description(encoder, folder, modalities, name, (found, tolerance), extra, loading)
    return found


def chosen_modalities(encoder: Encoder, wanted: Wanted) -> tuple[str, ...]:
    """One, or an image and a text in this order.

    Raises:
      UserError: others, or no LoRA where it is to be separate.
    """
    for m in wanted.modalities:
        if m not in encoder.modalities:
            raise UserError(f"--modality={m}: the encoder has none of this name; {suggest(m, encoder.modalities)}")
    chosen = tuple(wanted.modalities) or encoder.modalities
    chosen = tuple(sorted(chosen, key=lambda m: encoder.transforms[m].kind))
    kinds = [encoder.transforms[m].kind for m in chosen]
    if len(kinds) > 1 and kinds != ["image", "text"]:
        raise UserError(
            f"Hugging Face's models are of one modality, or of an image and a text, and not of {', '.join(chosen)}; "
            "name them with --modality, or use --format=torch"
        )
    adapted = [m for m in chosen if m in encoder.method.towers.lora]
    if wanted.separate and (len(chosen) > 1 or not adapted):
        raise UserError("--lora=separate needs one modality, with --modality, whose tower is adapted by LoRA")
    return chosen


def _tower(encoder: Encoder, modality: str) -> hub.HubModel:
    transform = encoder.transforms[modality]
    ids = hub_files.token_ids(transform.tokenizer) if transform.kind == "text" else {}
    variables = exported.exported_tree(encoder.params, encoder.state)["towers"][modality]
    config = exported.tower_configs(encoder.method)[modality]
    return hub.tower(config, variables, transform.spec(), ids, f"config.method.towers.{modality}")


def _pair(encoder: Encoder, towers: Mapping[str, hub.HubModel]) -> hub.HubModel:
    return hub.pair(*towers.values(), projection(encoder, tuple(towers)))


def projection(encoder: Encoder, modalities: Sequence[str]) -> hub.Projection:
    """Of an image and a text.

    Raises:
      UserError: other projections than linear ones to unit length, or no objective that compares the two.
    """
    config, kernels = encoder.method.config, {}
    for m in modalities:
        head = config.heads.get(m, config.head) if "heads" in encoder.params else None
        pool = m in encoder.params.get("pooling", {})
        if head is None or head.hidden or head.centre or not head.normalise or pool:
            raise UserError(
                f"pairs of other libraries have linear projections without bias, normalised, and {m} has "
                f"{head or 'none'}{' and a pooling of its items' if pool else ''}; use --format=torch, or one tower "
                "with --modality"
            )
        kernels[encoder.transforms[m].kind] = np.asarray(encoder.params["heads"][m]["out"]["kernel"])
    learnt = {
        name: encoder.params["objectives"][name]
        for name, term in encoder.method.terms.terms.items()
        if set(modalities) <= set(term.objective.modalities)
    }
    if not learnt:
        raise UserError(
            f"no objective compares {' and '.join(modalities)}, so there is no logit scale; use --format=torch"
        )
    scale = float(next(iter(learnt.values()))["log_scale"])
    return hub.Projection(kernels["image"], kernels["text"], scale)


def _write(encoder: Encoder, folder: Path, model: hub.HubModel, towers: Mapping[str, hub.HubModel]) -> None:
    folders.write_json(folder / "config.json", model.json)
    folders.write_weights(folder / exported.WEIGHTS, model.state())
    for m, tower in towers.items():
        spec = encoder.transforms[m].spec()
        if spec["kind"] == "image":
            processor = hub_files.image_processor(spec, tower.layout.config.channels)
            folders.write_json(folder / "preprocessor_config.json", processor)
            continue
        folders.write_tokenizer(encoder.transforms[m].tokenizer, folder, spec["length"])
        if model is tower:
            for path, content in hub_files.sentence_transformer(tower, spec["length"]).items():
                (folder / path).parent.mkdir(exist_ok=True)
                folders.write_json(folder / path, content)


def _write_adapter(encoder: Encoder, folder: Path, model: hub.HubModel, modality: str) -> None:
    lora, where = encoder.params["lora"][modality], f"config.method.towers.{modality}"
    config, state = hub.adapter(lora, encoder.method.towers.lora[modality], model.layout.rules, where)
    folder.mkdir()
    folders.write_json(folder / "adapter_config.json", config)
    folders.write_weights(folder / "adapter_model.safetensors", state)


def _compare(encoder, loaded, model: hub.HubModel, towers, dataset: Dataset, examples: int) -> Agreement:
    """The features of preprocessed items of the validation split, or a pair's embeddings."""
    params = {k: v for k, v in encoder.params.items() if k != "lora"}  # of the base, where LoRA lies beside it
    differences, count = [0.0], 0
    features_of = _features(encoder, next(iter(towers)))
    for batch in itertools.islice(dataset.evaluation(folders.split_of(dataset), _BATCH), max(1, examples // _BATCH)):
        batch = batch.only_valid().select(tuple(towers))
        inputs = {m: hub_files.inputs(tower, rows_of(batch, m)) for m, tower in towers.items()}
        if len(towers) > 1:
            embeds = loaded(**{k: v for given in inputs.values() for k, v in given.items()})
            want = encoder.encode(batch).items
            for m in towers:
                got = getattr(embeds, f"{encoder.transforms[m].kind}_embeds")
                differences.append(
                    folders.difference(np.asarray(want[m])[batch.items[m].mask], got[there_of(batch, m)])
                )
        else:
            ((m, tower),) = towers.items()
            features = features_of(params, encoder.state, batch)
            differences += _of_features(features, tower, loaded(**inputs[m]), there_of(batch, m))
        count += int(batch.valid.sum())
    return Agreement(max(differences), count, 0)


def _features(encoder: Encoder, modality: str) -> Callable[..., Features]:
    def features(params, state, batch: Batch) -> Features:
        stats = state.get("batch_stats", {})
        return encoder.method.towers.apply(params, stats, modality, batch, None, False)[0]

    return jax.jit(features)


def _of_features(want: Features, tower: hub.HubModel, outputs: Any, there: np.ndarray) -> list[float]:
    tokens, pooled = hub_files.outputs(tower, outputs, np.asarray(want.token_mask))
    mask = np.asarray(want.token_mask)[..., None] & there[:, None, None]
    pairs = ((np.asarray(want.tokens) * mask, tokens * mask), (np.asarray(want.pooled)[there], pooled[there]))
    return [folders.difference(*pair) for pair in pairs]


def rows_of(batch: Batch, modality: str) -> Any:
    """All items of a modality, as its tower takes them."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), batch.items[modality].value)


def there_of(batch: Batch, modality: str) -> np.ndarray:
    """bool[b * N]: which of these exist."""
    return np.asarray(batch.items[modality].mask).reshape(-1)


def _compare_preprocessing(encoder: Encoder, folder: Path, towers, dataset: Dataset) -> Agreement:
    """The tokenizer on texts, and the image processor on pictures that have their size already: another resizing than
    ours is not the export's fault."""
    raw, differences = folders.raw_inputs(encoder, dataset, tuple(towers), _BATCH), [0.0]
    for m, values in raw.items():
        transform, tower = encoder.transforms[m], towers[m]
        prepared = [transform.prepare(transform.raw(v)) for v in values]
        rows = [transform.finish(p, None) for p in prepared]
        want = hub_files.inputs(tower, jax.tree.map(lambda *x: np.stack(x), *rows))
        for key, got in hub_files.preprocessed(folder, transform.kind, prepared, values).items():
            differences.append(folders.difference(want[key], got))
    return Agreement(max(differences), 0, sum(map(len, raw.values())))
