"""Two small towers on the phantom: dropped lab values, drawn gains of the ECG, moments; a recipe that starts fast."""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """Saves every second step and evaluates every third."""
    args = parse_arg(arg, steps=8)
    config = ConfigDict()
    config.seed = 3
    config.data = dict(
        dir="",
        batch_size=16,
        cache=True,
        threads=0,
        modalities=dict(ecg=dict(samples=200, gain=0.1), labs=dict(drop=0.2)),
    )
    config.method = dict(
        name="contrastive",
        embed_dim=8,
        towers=dict(
            labs=dict(name="mlp", hidden=(8,)),
            ecg=dict(name="ecg_vit", patch=100, width=8, depth=1, heads=2, pool="mean"),
        ),
        objectives=dict(info_nce=dict(pairs=(("labs", "ecg"),))),
    )
    config.optimizer = dict(lr=1e-3, warmup_steps=2)
    config.train = dict(
        total_steps=args.steps,
        log_every_steps=1,
        eval_every_steps=3,
        checkpoint_every_steps=2,
        best_metric="validation/loss",
    )
    return with_defaults(config)
