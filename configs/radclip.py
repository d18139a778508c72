"""RadCLIP: CLIP on radiology, and slices of a volume pooled by attention (https://github.com/luzhixiu/RadCLIP).

    python -m medjax.bin.train --config=configs/radclip.py:image=CLIP,text=CLIP --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.train --config=configs/radclip.py:slices,image=CLIP,text=CLIP --config.data.dir=DATA \\
        --config.warm_start.dir=RUN --workdir=RUN_SLICES

DATA has the modalities `image` and `text`; CLIP is a folder of ViT-L/14 weights. The first command adapts the image
tower to pictures, the text tower staying as it is; with `:slices` both towers stay, and only the pooling of up to 16
pictures of a study and the projections are trained. From the repository: ViT-L/14, frozen text, temperature 0.07, AdamW
at 1e-5, batch 54, 10 epochs. Unconfirmed: how slices are pooled beyond self-attention; heads, residual and mean are
ours. Captions are templates, so equal ones count as one answer. Without folders the towers start from nothing, and
frozen ones stay there. Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER`, `:text=FOLDER`, `:slices`, `:tiny`.
"""

from medjax.training.published import published_recipe

SLICES = dict(
    data=dict(max_items=dict(image=16)),
    method=dict(pooling=dict(image=dict(name="attention", heads=4))),
    optimizer=dict(freeze=(r"towers/.*",)),
)


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=10,
        batch_size=54,
        modalities=dict(image=dict(size=224), text=dict(length=77)),
        towers=dict(
            image=dict(name="vit", patch=14, width=1024, depth=24, heads=16),
            text=dict(name="clip_text", width=768, depth=12, heads=12),
        ),
        objectives=dict(info_nce=dict(modalities=("image", "text"), scale=1 / 0.07, same_text="positive")),
        embed_dim=768,
        optimizer=dict(lr=1e-5, freeze=(r"towers/text/.*",)),
        variants=dict(slices=SLICES),
    )
