"""ECG, report and demographics of PTB-XL: InfoNCE over all pairs, identical reports counting as the same answer.

    python -m medjax.bin.build_dataset --source=ptbxl --input=PTBXL_FOLDER --output=DATA
    python -m medjax.bin.train --config=configs/ptbxl.py --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.evaluate_zero_shot --workdir=RUN

Sized for an excerpt of a few hundred records at 100 Hz: minutes on 2 CPU cores. For the whole database pass
`:width=256,depth=6`. Arguments: `:objective=info_nce|symile|gram`, `:epochs=N`, `:width=D`, `:depth=N`,
`:tiny`. Hyperparameters were chosen on validation folds; there is no paper behind them.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.errors import check_choice
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, objective="info_nce", epochs=20, width=96, depth=3, text="", locked=False, tiny=False)
    width, depth = (16, 1) if args.tiny else (args.width, args.depth)
    block = dict(width=width, depth=depth, heads=4, pool="mean", dropout=0.1)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=16 if args.tiny else 64,
        cache=True,
        threads=0,
        modalities=dict(
            ecg=dict(samples=900, gain=0.2, noise=0.02, lead_drop=0.1),
            demographics=dict(drop=0.1),
            text=dict(length=64, sentence_drop=0.2),
        ),
    )
    config.method = dict(
        name="contrastive",
        embed_dim=64,
        head=dict(centre=True),
        towers=dict(
            ecg=dict(name="ecg_vit", patch=25, **block),
            demographics=dict(name="mlp", hidden=(width, width)),
            text=dict(pretrained=args.text, dropout=0.1) if args.text else dict(name="bert", positions=128, **block),
        ),
        objectives=_objectives(args.objective),
    )
    config.optimizer = dict(lr=1e-3, weight_decay=0.05, warmup_percent=10)
    if args.locked:
        config.optimizer.freeze = ("towers/text/.*",)
    elif args.text:
        config.optimizer.lr_multipliers = (("towers/text/.*", 0.05),)
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=10,
        eval_every_percent=10,
        checkpoint_every_percent=50,
        best_metric="validation/macro_auroc",
    )
    return with_defaults(config)


def _objectives(name: str) -> dict:
    every = dict(
        info_nce=dict(same_text="positive"),
        symile=dict(mip_scale="sqrt_d_power", same_text="mask"),
        gram=dict(anchor="text", same_text="positive"),
    )
    check_choice("objective", name, every)
    return {name: every[name]}
