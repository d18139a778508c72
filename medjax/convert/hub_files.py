"""What lies beside the weights for Hugging Face: processors, pooling of sentence-transformers, how to load it all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from medjax.convert.hub import POOLS, HubModel
from medjax.data.tokenizer import pad_id

_BILINEAR = 2  # of Pillow


def token_ids(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """Of the tokens "pad", and "bos" and "eos", the first and the last of every text, where there are such."""
    found = tokenizer.encode("a")
    ends = {"bos": 0, "eos": -1}
    ids = {name: found.ids[at] for name, at in ends.items() if found.ids and found.special_tokens_mask[at]}
    return {"pad": pad_id(tokenizer), **ids}


def image_processor(spec: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """preprocessor_config.json. channels: of the encoder's pictures."""
    side = {"height": spec["size"], "width": spec["size"]}
    crop = spec["fit"] == "crop"
    return {
        "image_processor_type": "CLIPImageProcessor" if crop else "ViTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": spec["size"]} if crop else side,
        **({"do_center_crop": True, "crop_size": side} if crop else {}),
        "resample": _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [spec["mean"]] * channels,
        "image_std": [spec["std"]] * channels,
        "do_convert_rgb": channels == 3,
    }


def sentence_transformer(model: HubModel, length: int) -> dict[str, Any]:
    """`{path: JSON}` of what `SentenceTransformer(folder)` reads, where features are pooled from the tokens."""
    if model.pooled not in POOLS:
        return {}
    modes = {f"pooling_mode_{name}": pool == model.pooled for pool, name in POOLS.items()}
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"))
    return {
        "1_Pooling/config.json": {"word_embedding_dimension": model.layout.config.width, **modes},
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": length, "do_lower_case": False},
    }


def inputs(model: HubModel, value: Any) -> dict[str, Any]:
    """The model's arguments of preprocessed rows."""
    import torch

    if not isinstance(value, Mapping):
        pixels = torch.from_numpy(np.moveaxis(value, -1, 1))
        return {"pixel_values": pixels.expand(-1, model.layout.config.channels, -1, -1)}
    mask = np.arange(value["tokens"].shape[1]) < value["lengths"][:, None]
    return {
        "input_ids": torch.from_numpy(value["tokens"]).long(),
        "attention_mask": torch.from_numpy(mask).long(),
    }


def outputs(model: HubModel, found: Any, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [b, L, D] and our pooled features [b, D] of what the model returns; mask: bool[b, L], real tokens."""
    tokens = found.last_hidden_state
    tokens = (tokens.flatten(2).movedim(1, 2) if tokens.ndim == 4 else tokens).numpy()
    if model.pooled == "pooler_output":
        return tokens, found.pooler_output.flatten(1).numpy()
    if model.pooled == "cls":
        return tokens, tokens[:, 0]
    if model.pooled == "max":
        return tokens, np.where(mask[..., None], tokens, -np.inf).max(axis=1)
    weight = mask[..., None].astype(np.float32)
    return tokens, (tokens * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)


def preprocessed(folder: Path, kind: str, prepared: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    """What the folder's own tokenizer makes of texts, `values`, or its image processor of uint8 pictures that have
    their size, `prepared`."""
    from transformers import AutoImageProcessor, AutoTokenizer

    if kind == "text":
        tokenizer = AutoTokenizer.from_pretrained(folder)
        found = tokenizer(list(values), truncation=True, padding="max_length", return_tensors="np")
        return {key: found[key] for key in ("input_ids", "attention_mask")}
    from PIL import Image

    processor = AutoImageProcessor.from_pretrained(folder)
    return {"pixel_values": processor([Image.fromarray(x) for x in prepared], return_tensors="np")["pixel_values"]}


_FITS = {
    "pad": "Training kept the aspect of pictures and made them square with black borders: do so first, since the "
    "processor stretches them.",
    "crop": "Training cut out the middle square, as the processor does but for roundings of a pixel.",
    "stretch": "Training stretched pictures to a square, as the processor does.",
}


def loading(model: HubModel, towers: Mapping[str, HubModel], specs: Mapping[str, Any], adapter: bool) -> str:
    """The section of the model card that says how to load the folder and what it gives."""
    kinds = [spec["kind"] for spec in specs.values()]
    lines = ["from transformers import AutoImageProcessor, AutoModel, AutoTokenizer", ""]
    lines += ['model = AutoModel.from_pretrained(".")  # ' + model.kind]
    given = []
    if "image" in kinds:
        lines += ['processor = AutoImageProcessor.from_pretrained(".")']
        given += ['**processor([picture], return_tensors="pt")']
    if "text" in kinds:
        lines += ['tokenizer = AutoTokenizer.from_pretrained(".")']
        lines += ['texts = tokenizer(["No effusion."], truncation=True, padding=True, return_tensors="pt")']
        given += ["**texts"]
    lines += [f"out = model({', '.join(given)})"]
    if adapter:
        lines[3:3] = ["from peft import PeftModel", 'model = PeftModel.from_pretrained(model, "adapter")']
    notes = [_FITS[spec["fit"]] + _grey(spec, towers[m]) for m, spec in specs.items() if spec["kind"] == "image"]
    notes += [_pooled(model)] if len(towers) == 1 else ["`image_embeds` and `text_embeds` are of unit length."]
    if model.pooled in POOLS and "text" in kinds:
        lines += ["", "from sentence_transformers import SentenceTransformer  # pools as the encoder does", ""]
        lines += ['SentenceTransformer(".").encode(["No effusion."])']
    code = "\n".join(lines)
    return f"In this folder, with `pip install torch transformers`:\n\n```python\n{code}\n```\n\n" + "\n".join(notes)


def _grey(spec: Mapping[str, Any], model: HubModel) -> str:
    if spec["channels"] == 3:
        return ""
    return (
        ' It saw grey pictures, `picture.convert("L")`'
        + (', repeated to RGB, `.convert("RGB")`' if model.layout.config.channels == 3 else "")
        + "."
    )


def _pooled(model: HubModel) -> str:
    if model.pooled == "pooler_output":
        return "The encoder's features are `out.pooler_output`. The projection to the shared space is not part of it."
    how = {"mean": "the mean", "cls": "the first", "max": "the maximum"}[model.pooled]
    text = f"The encoder's features are {how} of `out.last_hidden_state` (over what is no padding)."
    if model.kind in ("BertModel", "RobertaModel") and not np.any(model.variables["params"]["pooler"]["kernel"]):
        text += " It has no pooler: `out.pooler_output` is zero, and not to be used."
    return text + " The projection to the shared space is not part of it."
