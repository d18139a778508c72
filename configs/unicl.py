"""UniCL, the objective of MedImageInsight: all rows of one label are right answers (arXiv 2204.03610, 2410.06542).

    python -m medjax.bin.train --config=configs/unicl.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image` and `text`, and labels. From MedImageInsight's released configuration, which may not be
that of its pre-training: 480 pixels, 1,024 dimensions, batch 1,024, AdamW at 1e-5 with decay 0.2, five steps of
warm-up, clipping at 1. Different here: a ViT-B/16 in the place of DaViT, encoders from nothing; the epochs are ours.
Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER` and `:text=FOLDER` of published weights, `:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=20,
        batch_size=1024,
        modalities=dict(image=dict(size=480), text=dict(length=77)),
        towers=dict(image=dict(name="vit", patch=16, **VIT_B), text=BERT_BASE),
        objectives=dict(multi_positive=dict(modalities=("image", "text"), form="out")),
        embed_dim=1024,
        optimizer=dict(lr=1e-5, weight_decay=0.2, warmup_steps=5, clip_norm=1.0),
    )
