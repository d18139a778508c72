"""Symile-MIMIC: radiograph, ECG and lab tests of an admission, contrasted as whole tuples (arXiv 2411.01053).

    python -m medjax.bin.build_dataset --source=symile_mimic --uncertain_labels=mixed --input=SYMILE_MIMIC --output=DATA
    python -m medjax.bin.train --config=configs/symile_mimic.py --config.data.dir=DATA --workdir=RUN

Or from the archives themselves, with other splits: `--source=mimic --mimic_rule=admission --ecg_rate=500`, which brings
radiographs of any size and ECGs in mV, and for which `--config.data.modalities.ecg.scale=0.5` is right.

From rajesh-lab/symile: ResNet-50 on 320 x 320 pixels, ResNet-18 with one channel on the ECG as a picture of 5,000 x 12,
an MLP of 256 and 1,024 on percentiles and indicators of the fifty lab tests, none of them pre-trained, 8,192
dimensions, Symile with all B^2 negatives, batch 280, 80 epochs, logit scale from exp(-7). AdamW at 5e-4 with decay 0.2
is of one script of a search over them; which pair was chosen at the end is unconfirmed.

Different here: embeddings have length 1 in the place of a layer norm of 8,192 dimensions, which gives them the length
sqrt(8192) and takes their mean off: with `mip_scale` and the scale below the first logits have the same size. Pictures
are gray and not three equal channels, lab tests that are missing are 0 beside their indicator, percentiles are less
their mean; warm-up, cosine decay and the memory of AdamW (0.98 for 0.999) are ours. Published accuracy (retrieval of
the radiograph among ten candidates) is not compared: the lists of candidates are not read. The authors asked for up to
4 hours of one A100.
Arguments: `:epochs=N`, `:batch=N`, `:image=FOLDER` of published weights, `:tiny`.
"""

import math

from medjax.training.published import published_recipe

WIDTH = 8192


def get_config(arg=None):
    """The recipe."""
    return published_recipe(
        arg,
        epochs=80,
        batch_size=280,
        modalities=dict(
            image=dict(size=320, fit="crop", mean=0.449, std=0.226),
            ecg=dict(samples=5000, scale=1.0),
            labs=dict(scaling="percentile"),
        ),
        towers=dict(
            image=dict(name="resnet", variant="50", stem=64),
            ecg=dict(name="resnet_ecg_image", variant="18", stem=64),
            labs=dict(name="mlp", hidden=(256, 1024)),
        ),
        objectives=dict(
            symile=dict(negatives="n_squared", mip_scale="sqrt_d_power", scale=math.exp(-7) * math.sqrt(WIDTH))
        ),
        embed_dim=WIDTH,
        optimizer=dict(lr=5e-4, weight_decay=0.2),
    )
