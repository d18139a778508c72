"""MoRE: X-ray and ECG, each against the report (arXiv 2410.16239).

    python -m medjax.bin.train --config=configs/more.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image`, `ecg` and `text`. From svthapa/MoRE: ViT-B/16 for the picture, one of its own for the
ECG of 1,000 samples, a RoBERTa-sized text encoder with mean pooling, 128 dimensions, batch 100, AdamW at 3e-5 with
decay 0.1, temperature 0.02 that never moves. Different here: no LoRA, no attention dropping, GELU heads without batch
norm, ECG patches of 50 samples, one cosine decay in the place of warm restarts; the number of epochs is unknown and
ours. `--config.method.objectives.more.others=True` adds the X-ray-ECG pair. Arguments: `:epochs=N`, `:batch=N`,
`:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=100,
        batch_size=100,
        modalities=dict(image=dict(size=224), ecg=dict(samples=1000), text=dict(length=512)),
        towers=dict(
            image=dict(name="vit", patch=16, **VIT_B),
            ecg=dict(name="ecg_vit", patch=50, **VIT_B),
            text=BERT_BASE,
        ),
        objectives=dict(more=dict(modalities=("ecg", "image", "text"), others=False)),
        embed_dim=128,
        head=dict(hidden=768),
        optimizer=dict(lr=3e-5, weight_decay=0.1, final_lr_fraction=0.1),
    )
