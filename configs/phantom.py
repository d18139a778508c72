"""Image, ECG, lab values and reports of the synthetic phantom: pairwise InfoNCE to the report, plus Symile.

    python -m medjax.bin.build_dataset --source=phantom --output=DATA
    python -m medjax.bin.train --config=configs/phantom.py --config.data.dir=DATA --workdir=RUN

Two to three minutes on 2 CPU cores. Arguments: `:objective=info_nce|symile|gram|sum`, `:steps=N`, `:tiny`.
Hyperparameters were chosen on the phantom's validation split; there is no paper behind them. The pairs of InfoNCE are
anchored on the report, as in MoRE (arXiv 2410.16239), since image, ECG and lab values share nothing but it. Symile
works on the three modalities that tell the exclusive-or finding together.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.errors import check_choice
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, objective="sum", steps=320, tiny=False)
    width, depth = (16, 1) if args.tiny else (64, 2)
    vit = dict(width=width, depth=depth, heads=4, pool="mean")
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=16 if args.tiny else 128,
        cache=True,
        threads=0,  # on a few CPU cores, reading ahead takes more from the step than it gives
        modalities=dict(
            image=dict(size=64, shift=0.02, contrast=0.1),
            ecg=dict(samples=1000, gain=0.1),
            labs=dict(drop=0.1),
            text=dict(length=72),
        ),
    )
    config.method = dict(
        name="contrastive",
        embed_dim=64,
        head=dict(centre=True),
        towers=dict(
            image=dict(name="vit", patch=16, **vit),
            ecg=dict(name="ecg_vit", patch=50, **vit),
            labs=dict(name="mlp", hidden=(width, width)),
            text=dict(name="bert", positions=128, **vit),
        ),
        objectives=_objectives(args.objective),
    )
    config.optimizer = dict(lr=1e-3, weight_decay=0.05, warmup_percent=10)
    config.train = dict(
        total_steps=args.steps,
        log_every_steps=20,
        eval_every_percent=25,
        checkpoint_every_percent=50,
        best_metric="validation/loss",
    )
    return with_defaults(config)


def _objectives(name: str) -> dict:
    pairs = (("image", "text"), ("ecg", "text"), ("labs", "text"))
    together = ("image", "ecg", "text")
    every = dict(
        info_nce=dict(pairs=pairs),
        symile=dict(modalities=together, mip_scale="sqrt_d_power"),
        gram=dict(anchor="text"),
    )
    check_choice("objective", name, ("sum", *every))
    chosen = ("info_nce", "symile") if name == "sum" else (name,)
    return {k: every[k] for k in chosen}
