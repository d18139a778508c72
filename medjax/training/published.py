"""What the recipes of published image-report systems share: sections, defaults, and a tiny variant for trials."""

from typing import Any

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.training.experiment import with_defaults

VIT_B = dict(width=768, depth=12, heads=12)
BERT_BASE = dict(name="bert", width=768, depth=12, heads=12, positions=512)
_TINY = dict(width=16, depth=1, heads=4)


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
    variants: dict[str, dict[str, Any]] | None = None,
) -> ConfigDict:
    """A contrastive recipe from the hyperparameters of a paper.

    arg: of the command line: `epochs=N`, `batch=N`, and `tiny`, which keeps the objectives and shrinks all else to what
    runs in a minute on a CPU core. variants: further bare words of `arg` -> what they change in the config. The other
    arguments are sections or entries of the config.
    """
    variants = variants or {}
    args = parse_arg(arg, epochs=epochs, batch=batch_size, tiny=False, **dict.fromkeys(variants, False))
    if args.tiny:
        towers = {m: t | {k: v for k, v in _TINY.items() if k in t} for m, t in towers.items()}
        modalities = {m: _shrunk(d) for m, d in modalities.items()}
        objectives = {k: o | ({"prototypes": 8} if "prototypes" in o else {}) for k, o in objectives.items()}
        head, embed_dim = (head or {}) | {"hidden": 0}, 16
    config = ConfigDict()
    config.seed = 0
    config.data = dict(dir="", batch_size=min(args.batch, 16) if args.tiny else args.batch, modalities=modalities)
    config.method = dict(name="contrastive", embed_dim=embed_dim, head=head or {}, towers=towers, objectives=objectives)
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


def _shrunk(data: dict[str, Any]) -> dict[str, Any]:
    limits = {"size": 64, "length": 72}
    return {k: min(v, limits[k]) if k in limits else v for k, v in data.items()}
