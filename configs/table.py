"""Your own table: any of image, ECG, volume, lab values and text, each an encoder, pairs of them contrasted by InfoNCE.

    python -m medjax.bin.build_dataset --source=table --input=studies.csv --output=DATA \\
        --image_columns=frontal,lateral --ecg_columns=record --text_columns=report --numeric_columns=crp,creatinine \\
        --label_columns=pneumonia --patient_column=patient
    python -m medjax.bin.train --config=configs/table.py:modalities=image+text,views=2 --config.data.dir=DATA \\
        --workdir=RUN

With text every other modality is paired with it, without it all are paired with each other. Identical texts count as
the same answer, and studies of one patient are kept out of each other's negatives. The defaults fit a few thousand
studies and one GPU, or hours on a CPU. Arguments: `:modalities=A+B`, `:views=N` pictures of a study, `:width=D`,
`:depth=N`, `:size=PIXELS`, `:samples=N` of an ECG, `:epochs=N`, `:batch=N`, `:image=FOLDER` and `:text=FOLDER` for
encoders that start from published weights. The hyperparameters are common ones, chosen on no data; published weights
want a smaller learning rate, such as `--config.optimizer.lr=5e-5`.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.errors import check_choice
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(
        arg,
        **dict(modalities="image+text", views=1, width=384, depth=6, size=224, samples=1000, epochs=50, batch=128),
        **dict(image="", text=""),
    )
    block = dict(width=args.width, depth=args.depth, heads=max(args.width // 64, 1), dropout=0.1)
    vit = dict(pool="mean", **block)
    every = dict(
        image=(
            dict(size=args.size, shift=0.05, zoom=0.1, contrast=0.1),
            dict(name="vit", patch=16, **vit),
        ),
        ecg=(dict(samples=args.samples, gain=0.1, noise=0.01), dict(name="ecg_vit", patch=50, **vit)),
        volume=(
            dict(size=(64, 128, 128), shift=0.05, contrast=0.1),
            dict(name="vit", patch=16, frames=16, positions="sincos", **vit),
        ),
        labs=(dict(drop=0.1), dict(name="mlp", hidden=(args.width, args.width), dropout=0.1)),
        text=(dict(length=128), dict(name="bert", positions=512, **block)),
    )
    for m in ("image", "text"):
        if args[m]:
            every[m] = (every[m][0], dict(pretrained=args[m], dropout=0.1))
    chosen = args.modalities.split("+")
    for m in chosen:
        check_choice("modality", m, every)
    objective = dict(same_text="positive" if "text" in chosen else "ignore", same_patient="mask")
    if "text" in chosen:
        objective["pairs"] = tuple((m, "text") for m in chosen if m != "text")
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=args.batch,
        modalities={m: every[m][0] for m in chosen},
        max_items=dict(image=args.views) if "image" in chosen else {},
    )
    config.method = dict(
        name="contrastive",
        embed_dim=128,
        head=dict(centre=True),
        towers={m: every[m][1] for m in chosen},
        objectives=dict(info_nce=objective),
    )
    config.optimizer = dict(lr=5e-4, weight_decay=0.1, warmup_percent=5)
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=20,
        eval_every_percent=10,
        checkpoint_every_percent=10,
        best_metric="validation/loss",
    )
    return with_defaults(config)
