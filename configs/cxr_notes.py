"""Chest X-rays and case notes: ConVIRT's pairing of image and text by InfoNCE, on any table of pictures and reports.

    python -m medjax.bin.build_dataset --source=table --name=cxr_notes --licence="per image" --input=metadata.csv \\
        --image_columns=image --text_columns=notes --label_columns=covid --patient_column=patient_id --id_column=id \\
        --split_column=split --output=DATA
    python -m medjax.bin.train --config=configs/cxr_notes.py --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.evaluate_retrieval --workdir=RUN

ConVIRT is arXiv 2010.00747; this has its loss, not its pre-trained encoders. Sized for a few hundred pairs: minutes on
2 CPU cores. Identical notes count as the same answer. Notes may name the diagnosis, so zero-shot scores on them are no
measure of the picture. Arguments: `:epochs=N`, `:text=FOLDER` for a text encoder that starts from published weights,
`,locked` if it is not to be trained (see `configs/ptbxl.py`, which measures both), `:tiny`.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, epochs=60, text="", locked=False, tiny=False)
    width, depth = (16, 1) if args.tiny else (96, 3)
    block = dict(width=width, depth=depth, heads=4, pool="mean", dropout=0.1)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=16 if args.tiny else 32,
        cache=True,
        threads=0,
        modalities=dict(
            image=dict(size=96, mean=0.5, std=0.25, shift=0.05, zoom=0.1, contrast=0.2),
            text=dict(length=96, sentence_drop=0.2, shuffle=True),
        ),
    )
    config.method = dict(
        name="contrastive",
        embed_dim=64,
        head=dict(centre=True),
        towers=dict(
            image=dict(name="vit", patch=16, **block),
            text=dict(pretrained=args.text, dropout=0.1) if args.text else dict(name="bert", positions=128, **block),
        ),
        objectives=dict(info_nce=dict(scale=10.0, same_text="positive")),  # a temperature of 0.1, as in the paper
    )
    config.optimizer = dict(lr=5e-4, weight_decay=0.1, warmup_percent=10)
    if args.locked:
        config.optimizer.freeze = ("towers/text/.*",)
    elif args.text:
        config.optimizer.lr_multipliers = (("towers/text/.*", 0.05),)
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=10,
        eval_every_percent=10,
        checkpoint_every_percent=50,
        best_metric="validation/loss",
    )
    return with_defaults(config)
