"""ConVIRT: image and report by InfoNCE that favours image to text (arXiv 2010.00747).

    python -m medjax.bin.train --config=configs/convirt.py --config.data.dir=DATA --workdir=RUN

DATA has the modalities `image` and `text`. From the paper: loss, lambda 0.75, temperature 0.1, 512 dimensions, a
two-layer head, a ResNet-50 of ImageNet and a clinical BERT, which `:image=FOLDER,text=FOLDER` bring; without folders
both start from nothing. Unconfirmed: AdamW at 1e-4 with decay 1e-6, batch 32, crops and contrast; 200 epochs and the
mean over tokens are ours. Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER`, `:text=FOLDER`, `:tiny`.
"""

from medjax.training.published import BERT_BASE, published_recipe


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=200,
        batch_size=32,
        modalities=dict(
            image=dict(size=224, shift=0.1, zoom=0.05, contrast=0.4), text=dict(length=256, sentence_drop=0.5)
        ),
        towers=dict(image=dict(name="resnet", variant="50", stem=64), text=BERT_BASE),
        objectives=dict(convirt=dict(modalities=("image", "text"), same_text="positive")),
        embed_dim=512,
        head=dict(hidden=512),
        optimizer=dict(lr=1e-4, weight_decay=1e-6),
    )
