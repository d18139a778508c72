"""MoRE: X-ray and ECG, each against the report (arXiv 2410.16239).

    python -m medjax.bin.train --config=configs/more.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image`, `ecg` and `text`. From svthapa/MoRE: ViT-B/16 for the picture, one of its own for the
ECG of 1,000 samples, which two convolutions make 196 tokens, a RoBERTa-sized text encoder with mean pooling, 128
dimensions, batch 100, AdamW at 3e-5 with decay 0.1, temperature 0.02 that never moves, DropKey at 0.3 in all blocks of
the ViTs. Different here: GELU heads and convolutions with layer norms in the place of batch norms, one cosine decay in
the place of warm restarts; the number of epochs is unknown and ours. `--config.method.objectives.more.others=True` adds
the X-ray-ECG pair.

MoRE trains no matrix of its text encoder, which is a clinical RoBERTa: only its biases, and LoRA of rank 16 and alpha 8
on queries and values. `:lora` does the same, and wants that encoder, since a frozen one of random weights is of little
use:

    python -m medjax.bin.train --config=configs/more.py:lora,text=ROBERTA --config.data.dir=DATA --workdir=RUN

Without `:lora` the whole text encoder is trained. Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER` and
`:text=FOLDER` of published weights, `:lora`, `:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe

# peft's targets for RoBERTa, and its bias="all": biases, those of norms too, are trained.
LORA = dict(
    method=dict(
        towers=dict(text=dict(lora=dict(rank=16, alpha=8.0, dropout=0.1, targets=r".*/attention/(query|value)")))
    ),
    optimizer=dict(freeze=(r"towers/text/(?!.*bias$).*",)),
)


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=100,
        batch_size=100,
        modalities=dict(image=dict(size=224), ecg=dict(samples=1000), text=dict(length=512)),
        towers=dict(
            image=dict(name="vit", patch=16, qkv_bias=False, drop_key=0.3, **VIT_B),
            ecg=dict(name="ecg_vit", tokens="conv", qkv_bias=False, drop_key=0.3, **VIT_B),
            text=BERT_BASE,
        ),
        objectives=dict(more=dict(modalities=("ecg", "image", "text"), others=False)),
        embed_dim=128,
        head=dict(hidden=768),
        optimizer=dict(lr=3e-5, weight_decay=0.1, final_lr_fraction=0.1),
        variants=dict(lora=LORA),
    )
