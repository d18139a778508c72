"""What the recipes of published image-report systems share: sections, defaults, and a tiny variant for trials."""

from typing import Any

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.training.experiment import with_defaults

VIT_B = dict(width=768, depth=12, heads=12)
BERT_BASE = dict(name="bert", width=768, depth=12, heads=12, positions=512)
# What a recipe says of a tower beside its architecture.
_TRAINING = ("dropout", "drop_path", "drop_key", "drop_key_schedule", "lora")
_TINY = dict(width=16, depth=1, heads=4, variant="18", stem=8)


def published_recipe(
    arg: str | None,
    *,
    epochs: int,
    batch_size: int,
    modalities: dict[str, dict[str, Any]],
    towers: dict[str, dict[str, Any]],
    objectives: dict[str, dict[str, Any]],
    embed_dim: int,
    optimizer: dict[str, Any],
    head: dict[str, Any] | None = None,
    pooling: dict[str, dict[str, Any]] | None = None,
    variants: dict[str, dict[str, Any]] | None = None,
) -> ConfigDict:
    """A contrastive recipe from the hyperparameters of a paper.

    arg: of the command line: `epochs=N`, `batch=N`, `image=FOLDER` and `text=FOLDER` for towers that start from
    published weights, and `tiny`, which keeps the objectives and shrinks all else to what runs in a minute on a CPU
    core. variants: further bare words of `arg` -> what they change in the config. The other arguments are sections or
    entries of the config.
    """
    variants, folders = variants or {}, dict.fromkeys((m for m in towers if m in ("image", "text")), "")
    args = parse_arg(arg, epochs=epochs, batch=batch_size, tiny=False, **folders, **dict.fromkeys(variants, False))
    if args.tiny:
        towers = {m: _smaller(t) for m, t in towers.items()}
        modalities = {m: _shrunk(d) for m, d in modalities.items()}
        objectives = {k: o | ({"prototypes": 8} if "prototypes" in o else {}) for k, o in objectives.items()}
        head, embed_dim = (head or {}) | {"hidden": 0}, 16
    towers = {m: _from_folder(t, args[m]) if args.get(m) else t for m, t in towers.items()}
    config = ConfigDict()
    config.seed = 0
    config.data = dict(dir="", batch_size=min(args.batch, 16) if args.tiny else args.batch, modalities=modalities)
    config.method = dict(name="contrastive", embed_dim=embed_dim, head=head or {}, towers=towers, objectives=objectives)
    config.method.pooling = pooling or {}
    config.optimizer = optimizer
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=20,
        eval_every_percent=5,
        checkpoint_every_percent=5,
        best_metric="validation/loss",
    )
    for name, changes in variants.items():
        if args[name]:
            config.update(changes)
    return with_defaults(config)


def _from_folder(tower: dict[str, Any], folder: str) -> dict[str, Any]:
    """The tower of a folder, trained as the recipe says."""
    return {"pretrained": folder} | {k: v for k, v in tower.items() if k in _TRAINING}


def _smaller(tower: dict[str, Any]) -> dict[str, Any]:
    more = {"patch": 16} if tower["name"] == "vit" else {"depths": (1, 1)} if "variant" in tower else {}
    return tower | {k: v for k, v in _TINY.items() if k in tower} | more


def _shrunk(data: dict[str, Any]) -> dict[str, Any]:
    limits = {"size": 64, "length": 72, "samples": 1000}
    return {k: min(v, limits[k]) if k in limits else v for k, v in data.items()}
