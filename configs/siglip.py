"""SigLIP on image and report: a yes-or-no question for every pair of the batch (arXiv 2303.15343).

    python -m medjax.bin.train --config=configs/siglip.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image` and `text`. From the paper: the loss, scale 10 and bias -10 at the start. Unconfirmed:
ViT-B/16 with learning rate 1e-3 and decay 1e-4. Batch and epochs are ours, since medical sets are small. Arguments:
`:epochs=N`, `:batch=N`, `:image=FOLDER` and `:text=FOLDER` of published weights, `:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=30,
        batch_size=1024,
        modalities=dict(image=dict(size=224), text=dict(length=128)),
        towers=dict(image=dict(name="vit", patch=16, **VIT_B), text=BERT_BASE),
        objectives=dict(sigmoid=dict(modalities=("image", "text"), same_text="positive")),
        embed_dim=768,
        optimizer=dict(lr=1e-3, weight_decay=1e-4, warmup_percent=10),
    )
