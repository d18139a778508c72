"""Two stages on the synthetic phantom: masked autoencoders of picture and ECG, then contrast with labs and reports.

    python -m medjax.bin.build_dataset --source=phantom --output=DATA
    python -m medjax.bin.train --config=configs/mae_then_contrastive.py --config.data.dir=DATA --workdir=RUN

The first stage trains in RUN/stages/autoencoder, the second starts from its encoders (arXiv 2111.06377 for the
autoencoder; its mask ratio of 0.75 is kept). `:stages=autoencoder` trains the first alone. About four minutes on 2 CPU
cores. Arguments: `:steps=N` of each stage, `:stages=both|autoencoder`, `:tiny`.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.errors import check_choice
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, steps=200, stages="both", tiny=False)
    check_choice("stages", args.stages, ("both", "autoencoder"))
    width, depth = (16, 1) if args.tiny else (64, 2)
    vit = dict(width=width, depth=depth, heads=4, pool="mean")
    patches = dict(image=dict(name="vit", patch=16, **vit), ecg=dict(name="ecg_vit", patch=50, **vit))
    image, ecg = dict(size=64), dict(samples=1000)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="", batch_size=16 if args.tiny else 128, cache=True, threads=0, modalities=dict(image=image, ecg=ecg)
    )
    config.method = dict(
        name="masked_autoencoder",
        towers=patches,
        mask_ratio=0.75,
        decoder=dict(width=width, depth=1, heads=4),
    )
    config.optimizer = dict(lr=1e-3, weight_decay=0.05, warmup_percent=10)
    config.train = dict(total_steps=args.steps, log_every_steps=20, eval_every_percent=50, checkpoint_every_percent=50)
    if args.stages == "both":
        config.stages = ("autoencoder", "contrastive")
        config.stage = dict(autoencoder=dict(), contrastive=_contrastive(patches, width, vit))
    return with_defaults(config)


def _contrastive(patches: dict, width: int, block: dict) -> dict:
    """What differs in the second stage."""
    towers = dict(
        **patches, labs=dict(name="mlp", hidden=(width, width)), text=dict(name="bert", positions=128, **block)
    )
    pairs = (("image", "text"), ("ecg", "text"), ("labs", "text"))
    return dict(
        data=dict(modalities=dict(labs=dict(), text=dict(length=72))),
        method=dict(
            name="contrastive",
            embed_dim=64,
            head=dict(centre=True),
            towers=towers,
            objectives=dict(info_nce=dict(pairs=pairs)),
        ),
    )
