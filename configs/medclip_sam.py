"""DHN-NCE, the fine-tuning loss of MedCLIP-SAM: hard negatives weighted up, the answer out of the denominator.

    python -m medjax.bin.train --config=configs/medclip_sam.py --config.data.dir=DATA --workdir=RUN

arXiv 2403.20253. DATA has the modalities `image` and `text`. From the authors' scripts: temperature 0.6, beta 0.15 both
ways, batch 16, learning rate 1e-3, decay 0.1, 1,000 steps of warm-up, 32 epochs. They start from BiomedCLIP, this from
nothing. `--config.method.objectives.dhn_nce.variant=released` is the loss of their code, which differs from the
published one. Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER` and `:text=FOLDER` of published weights, `:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=32,
        batch_size=16,
        modalities=dict(image=dict(size=224), text=dict(length=256)),
        towers=dict(image=dict(name="vit", patch=16, **VIT_B), text=BERT_BASE),
        objectives=dict(dhn_nce=dict(modalities=("image", "text"), variant="paper")),
        embed_dim=512,
        optimizer=dict(lr=1e-3, weight_decay=0.1, warmup_steps=1000),
    )
