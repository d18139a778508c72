"""GRAM: the volume that the report spans with all other modalities of a study (arXiv 2412.11959).

    python -m medjax.bin.train --config=configs/gram.py --config.data.dir=DATA --workdir=RUN

From ispamm/GRAM: anchor text, temperature 0.07 at the start, label smoothing 0.1, 512 dimensions, AdamW (0.9, 0.98) at
2e-5 with decay 0.01, clipping at 2, 10 % warm-up, five epochs of batch 512. Different here: medical modalities,
encoders from nothing, no matching term, and the gradient of the written loss on both sides
(`--config.method.objectives.gram.stop_gradient=True` is that of their code). Arguments: `:epochs=N`, `:batch=N`,
`:image=FOLDER` and `:text=FOLDER` of published weights, `:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=5,
        batch_size=512,
        modalities=dict(image=dict(size=224), ecg=dict(samples=1000), text=dict(length=128)),
        towers=dict(
            image=dict(name="vit", patch=16, **VIT_B),
            ecg=dict(name="ecg_vit", patch=50, **VIT_B),
            text=BERT_BASE,
        ),
        objectives=dict(gram=dict(modalities=("ecg", "image", "text"), anchor="text", stop_gradient=False)),
        embed_dim=512,
        optimizer=dict(lr=2e-5, weight_decay=0.01, clip_norm=2.0, warmup_percent=10),
    )
