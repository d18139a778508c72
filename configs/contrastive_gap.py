"""CLIP with alignment and uniformity terms, which close the gap between modalities (arXiv 2405.18570).

    python -m medjax.bin.train --config=configs/contrastive_gap.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image` and `text`. From abrar-fahim/contrastive-gap: ViT-B/32, 128 dimensions, batch 64, nine
epochs at 1e-6 with decay 0.1, temperature 0.01 held fixed, all weights 1 (CUAXU; without `cross_uniformity` it is CUA).
They fine-tune a trained CLIP: from nothing, raise `--config.optimizer.lr`. Arguments: `:epochs=N`, `:batch=N`,
`:image=FOLDER` and `:text=FOLDER` of published weights, `:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    pair = dict(modalities=("image", "text"))
    return published_recipe(
        arg,
        epochs=9,
        batch_size=64,
        modalities=dict(image=dict(size=224), text=dict(length=77)),
        towers=dict(image=dict(name="vit", patch=32, **VIT_B), text=BERT_BASE),
        objectives=dict(
            info_nce=dict(scale=100.0, learn_scale=False, **pair),
            alignment=pair,
            uniformity=pair,
            cross_uniformity=pair,
        ),
        embed_dim=128,
        optimizer=dict(lr=1e-6, weight_decay=0.1),
    )
