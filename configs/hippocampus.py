"""Hippocampi in MR (decathlon, Task04): a masked autoencoder of volumes, then contrast with the sizes of their parts.

    python -m medjax.bin.build_dataset --source=decathlon --input=Task04_Hippocampus --output=DATA
    python -m medjax.bin.train --config=configs/hippocampus.py --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.evaluate_retrieval --workdir=RUN

The first stage restores masked patches of 8x8x8 voxels (arXiv 2111.06377; its mask ratio of 0.75 is kept), the second
starts from its encoder and contrasts each volume with the mm^3 of anterior and posterior hippocampus in its mask. The
volumes are crops of about 36x50x35 voxels of 1 mm; nothing is scaled, so that size can be seen, and nothing is
mirrored. It shows the way from NIfTI to a 3D encoder on 260 small volumes, and is no claim about brains: sizes of two
parts identify a case poorly. Minutes on 2 CPU cores. The hyperparameters are those of
`configs/mae_then_contrastive.py`. Arguments: `:steps=N` of each stage, `:stages=both|autoencoder`, `:tiny`.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.errors import check_choice
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, steps=200, stages="both", tiny=False)
    check_choice("stages", args.stages, ("both", "autoencoder"))
    width, depth = (24, 1) if args.tiny else (96, 3)
    block = dict(width=width, depth=depth, heads=4)
    towers = dict(volume=dict(name="vit", patch=8, frames=8, positions="sincos", pool="mean", **block))
    volume = dict(size=(48, 56, 40), fit="crop", spacing=(1.0, 1.0, 1.0), shift=0.05, contrast=0.1, gamma=0.2)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(dir="", batch_size=8 if args.tiny else 32, cache=True, threads=0, modalities=dict(volume=volume))
    config.method = dict(
        name="masked_autoencoder",
        towers=towers,
        mask_ratio=0.75,
        decoder=dict(width=width, depth=1, heads=4),
    )
    config.optimizer = dict(lr=1e-3, weight_decay=0.05, warmup_percent=10)
    config.train = dict(total_steps=args.steps, log_every_steps=20, eval_every_percent=50, checkpoint_every_percent=50)
    if args.stages == "both":
        towers["labs"] = dict(name="mlp", hidden=(width, width))
        contrastive = dict(
            data=dict(modalities=dict(labs=dict())),
            method=dict(
                name="contrastive",
                embed_dim=32,
                head=dict(centre=True),
                towers=towers,
                objectives=dict(info_nce=dict(modalities=("volume", "labs"))),
            ),
        )
        config.method.towers = {"volume": towers["volume"]}
        config.stages = ("autoencoder", "contrastive")
        config.stage = dict(autoencoder=dict(), contrastive=contrastive)
    return with_defaults(config)
