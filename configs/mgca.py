"""MGCA: X-ray and report aligned as wholes, patch by word, and through shared prototypes (arXiv 2210.06044).

    python -m medjax.bin.train --config=configs/mgca.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image` and `text`. From HKU-MedAI/MGCA: ViT-B/16, BERT-base, 128 dimensions, reports of 112
tokens, batch 144, AdamW at 2e-5 with decay 0.05, 40 % warm-up, 50 epochs, weights 1, 500 prototypes. Different here:
negatives and the Sinkhorn balance are those of the whole batch, the heads have no batch norm, tokens count alike (no
weights from the attention of the class token), the prototypes learn from the first epoch, one cosine decay, no
pre-trained weights. Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER` and `:text=FOLDER` of published weights,
`:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    pair = dict(modalities=("image", "text"))
    return published_recipe(
        arg,
        epochs=50,
        batch_size=144,
        modalities=dict(image=dict(size=224, mean=0.5, std=0.5), text=dict(length=112)),
        towers=dict(image=dict(name="vit", patch=16, **VIT_B), text=BERT_BASE),
        objectives=dict(mgca_instance=pair, mgca_token=pair, mgca_prototype=dict(prototypes=500, **pair)),
        embed_dim=128,
        head=dict(hidden=2048),
        optimizer=dict(lr=2e-5, weight_decay=0.05, warmup_percent=40),
    )
