"""PneumoniaMNIST with captions made from its labels: image-text InfoNCE, and zero-shot with the same words.

    python -m medjax.bin.build_dataset --source=medmnist --input=pneumoniamnist.npz --output=DATA
    python -m medjax.bin.train --config=configs/pneumonia_mnist.py --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.evaluate_zero_shot --workdir=RUN

Captions carry the label, so this is supervised learning in the clothes of contrastive learning: it checks the path
from pictures and text to zero-shot, and says nothing about learning from reports. Images of one class all have right
captions of the same few texts, which count as the same answer. Minutes on 2 CPU cores. Arguments: `:epochs=N`, `:tiny`.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, epochs=8, tiny=False)
    width, depth = (16, 1) if args.tiny else (64, 3)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=16 if args.tiny else 128,
        cache=True,
        threads=0,
        modalities=dict(
            image=dict(size=28, mean=0.57, std=0.17, shift=0.05, zoom=0.05, contrast=0.1),
            text=dict(length=16),
        ),
    )
    config.method = dict(
        name="contrastive",
        embed_dim=64,
        head=dict(centre=True),
        towers=dict(
            image=dict(name="vit", patch=4, width=width, depth=depth, heads=4, pool="mean"),
            text=dict(name="bert", positions=32, width=width, depth=1, heads=4),
        ),
        objectives=dict(info_nce=dict(same_text="positive")),
    )
    config.optimizer = dict(lr=1e-3, weight_decay=0.05, warmup_percent=10)
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=20,
        eval_every_percent=25,
        checkpoint_every_percent=50,
        best_metric="validation/macro_auroc",
    )
    return with_defaults(config)
