"""UniMed-CLIP: plain CLIP on a ViT-B/16 with a BERT text encoder (arXiv 2412.10372).

    python -m medjax.bin.train --config=configs/unimed_clip.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image` and `text`. From mbzuai-oryx/UniMed-CLIP: objective, context of 256 tokens, global batch
2,048, 10 epochs, 2,000 steps of warm-up, decay 0.2. Unconfirmed: the learning rate, 4e-4 in the base configuration of
the large model. They start from MetaCLIP and BiomedBERT, this from nothing. Captions made from one label are alike, and
here count as the same answer. Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER` and `:text=FOLDER` of published
weights, `:tiny`.
"""

from medjax.training.published import BERT_BASE, VIT_B, published_recipe


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=10,
        batch_size=2048,
        modalities=dict(image=dict(size=224), text=dict(length=256)),
        towers=dict(image=dict(name="vit", patch=16, **VIT_B), text=BERT_BASE),
        objectives=dict(info_nce=dict(modalities=("image", "text"), same_text="positive")),
        embed_dim=512,
        optimizer=dict(lr=4e-4, weight_decay=0.2, warmup_steps=2000),
    )
