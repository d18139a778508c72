"""The model card of an export: what it is, what it was trained on, how to load it, and what it is not for."""

from collections.abc import Mapping, Sequence
from typing import Any

from medjax.data.privacy.licence import Licence

# Objectives whose loss sees no label of the data set.
_WITHOUT_LABELS = {"info_nce", "symile", "gram", "masked_autoencoder"}
_INPUTS = {
    "image": 'encoder.embed({{"{name}": ["picture.png"]}})',
    "ecg": 'encoder.embed({{"{name}": [signal]}})  # numpy [leads, samples] in mV',
    "labs": 'encoder.embed({{"{name}": [{{"{first}": 4.2}}]}})  # what is left out counts as missing',
    "text": 'encoder.embed({{"{name}": ["No pleural effusion."]}})',
    "volume": 'encoder.embed({{"{name}": [{{"values": voxels, "spacing": (3.0, 0.7, 0.7)}}]}})  # numpy [D, H, W], mm',
}


def model_card(
    about: Mapping[str, Any], config: Mapping[str, Any], preprocessing: Mapping[str, Any], loading: str = ""
) -> str:
    """Markdown.

    about: medjax_export.json. config, preprocessing: the files of these names, of an export for `medjax.torch`.
    loading: the section that says how to load the folder; default for `medjax.torch`.
    """
    data, check = about["data"], about["verification"]
    objectives = _objectives(about["method"])
    names = ", ".join(config["modalities"])
    synthetic = " (**synthetic data: scores say nothing about medicine**)" if data["synthetic"] else ""
    labels = (
        "No label of the data set entered the loss or the preprocessing."
        if set(objectives.values()) <= _WITHOUT_LABELS and not data["texts_from_labels"]
        else "Labels may have entered the loss, through the objectives or through texts that were made from them."
    )
    sensitive = "The data are marked sensitive: ask who is responsible for them before passing this on. "
    sensitive = sensitive if data["sensitive"] else ""
    library = "transformers" if loading else "medjax"
    licence = f"license: {about['license']}\n" if about.get("license") else ""
    return f"""---
library_name: {library}
{licence}tags: [medical, multimodal, embeddings]
---

# medjax encoder of {names}

| | |
|---|---|
| data | {data["name"]}{synthetic} |
| licence of the data | {data["licence"]} |
| it asks for | {_duties(about.get("terms", {}))} |
| licence of the weights | {about.get("license") or "not declared"} |
| method | {about["method"]["name"]}; objectives: {", ".join(objectives)} |
| started from | {_started(about.get("pretrained"))} |
| trained | {about["checkpoint"]["step"]} steps, {about["examples_seen"]} examples seen, \
of {data["training_examples"]} studies{_choice(about["checkpoint"])} |
| embedding | {config["embed_dim"] or "see config.json"} numbers, {_length(config)} |
| made by | medjax {about["medjax"]}{f", commit {about['commit']}" if about.get("commit") else ""} |

{_table(config, preprocessing)}

## Loading

{loading or _loading(preprocessing)}

## Measured

{_metrics(about.get("metrics"))}

## Agreement

The largest absolute difference from the {"features" if loading else "embeddings"} that JAX computes in float32 was
**{check["max_abs_difference"]:.1e}** (limit {check["tolerance"]:.0e}), over {check["examples"]} studies from
preprocessed arrays{"" if loading else ", absent modalities among them,"} and {check["raw_inputs"]} raw inputs through
the preprocessing.
Weights are float32. An encoder trained with bfloat16 computes in float32 here, and may differ from the training run by
bfloat16's rounding.

## Use and limits

For research on representations: retrieval, zero-shot comparison, probing, fine-tuning. **Not a medical device: not for
diagnosis, triage, or any decision about a patient.** It knows the population, devices and wording of its training data
only; evaluate it, with intervals and by patient, on data like yours before trusting it.

{labels} {sensitive}The licence of the data may bind what may be done with the weights.
"""


def _loading(preprocessing: Mapping[str, Any]) -> str:
    return f"""In this folder, with `pip install torch safetensors numpy{_packages(preprocessing)}` and nothing else:

```python
from modeling import Encoder
encoder = Encoder.from_pretrained(".")
{_examples(preprocessing)}
```

`encoder.encode(modality, value, mask)` takes preprocessed arrays, also several items of a study, and has gradients;
`encoder.features(modality, value)` gives tokens and pooled features; `encoder.logit_scales` are the learnt multipliers.
With medjax installed, `medjax.torch.load(folder)` is the same, and `medjax.load(folder)` gives it back in JAX."""


def _duties(terms: Mapping[str, Any]) -> str:
    return ", ".join(Licence(**terms).duties) or "nothing"


def _metrics(metrics: Sequence[Mapping[str, Any]] | None) -> str:
    if not metrics:
        return "Nothing: the run held no evaluation of this checkpoint when it was exported."
    rows = [f"| {x['name']} | {x['value']} | {x['on']} |" for x in metrics]
    return "\n".join(["| what | value, 95 % interval | on |", "|---|---|---|", *rows])


def _started(pretrained: Mapping[str, str] | None) -> str:
    return ", ".join(f"{m}: {name}" for m, name in (pretrained or {}).items()) or "random weights, or another run"


def _choice(checkpoint: Mapping[str, Any]) -> str:
    return f", chosen by {checkpoint['chosen_by']}" if checkpoint["chosen_by"] else ""


def _objectives(method: Mapping[str, Any]) -> dict[str, str]:
    """`{term: objective}`."""
    terms = method.get("objectives") or {method["name"]: {}}
    return {key: options.get("name", key) for key, options in terms.items()}


def _length(config: Mapping[str, Any]) -> str:
    unit = all(c["head"] and c["head"]["normalise"] for c in config["modalities"].values())
    return "of unit length" if unit else "not of unit length in every modality"


def _table(config: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> str:
    rows = ["| modality | input | encoder |", "|---|---|---|"]
    for m, c in config["modalities"].items():
        spec, tower = preprocessing[m], c["tower"]
        given = {
            "image": lambda s: f"{s['size']}x{s['size']} pixels, {s['channels']} channel(s)",
            "ecg": lambda s: f"{len(s['leads'])} leads ({', '.join(s['leads'])}) at {s['rate']:g} Hz, mV",
            "labs": lambda s: ", ".join(s["names"]),
            "text": lambda s: f"up to {s['length']} tokens",
            "volume": lambda s: f"{'x'.join(map(str, s['size']))} voxels: D upwards, H to the back, W to the left",
        }[spec["kind"]](spec)
        depth = f", depth {tower['depth']}" if "depth" in tower else ""
        rows.append(f"| {m} | {given} | {tower['name']}, width {c['width']}{depth} |")
    return "\n".join(rows)


def _packages(preprocessing: Mapping[str, Any]) -> str:
    kinds = {spec["kind"] for spec in preprocessing.values()}
    return (" pillow" if "image" in kinds else "") + (" tokenizers" if "text" in kinds else "")


def _examples(preprocessing: Mapping[str, Any]) -> str:
    lines = []
    for m, spec in preprocessing.items():
        first = spec["names"][0] if spec["kind"] == "labs" else ""
        lines.append(_INPUTS[spec["kind"]].format(name=m, first=first))
    return "\n".join(lines)
