"""Chest X-rays and lab values of the COVID-19 image repository of Hannover Medical School: InfoNCE, small data.

    python -m medjax.bin.build_dataset --source=table --name=hannover --licence=CC-BY-3.0 --input=metadata.csv \\
        --image_columns=image --label_columns=ever_icu,died --patient_column=patient_id --id_column=image_id \\
        --numeric_columns=crp_val,d-dimer_val,factor_xii_val,ldh_val,lymphocytes_val,neutrophils_val,pco2_val,po2_val \\
        --split_column=split --output=DATA
    python -m medjax.bin.train --config=configs/hannover.py --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.evaluate_probe --workdir=RUN

Doi 10.6084/m9.figshare.12275009. Under two hundred exams: minutes on 2 CPU cores. Exams of one patient are kept out of
each other's negatives. There is no text, so it is evaluated by probes and retrieval. Arguments: `:epochs=N`, `:tiny`.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, epochs=60, tiny=False)
    width, depth = (16, 1) if args.tiny else (96, 3)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=16 if args.tiny else 64,
        cache=True,
        threads=0,
        modalities=dict(
            image=dict(size=96, mean=0.5, std=0.25, shift=0.05, zoom=0.1, contrast=0.2),
            labs=dict(drop=0.2),
        ),
    )
    config.method = dict(
        name="contrastive",
        embed_dim=64,
        head=dict(centre=True),
        towers=dict(
            image=dict(name="vit", patch=16, width=width, depth=depth, heads=4, pool="mean", dropout=0.1),
            labs=dict(name="mlp", hidden=(width, width), dropout=0.1),
        ),
        objectives=dict(info_nce=dict(same_patient="mask")),
    )
    config.optimizer = dict(lr=5e-4, weight_decay=0.1, warmup_percent=10)
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=10,
        eval_every_percent=10,
        checkpoint_every_percent=50,
        best_metric="validation/loss",
    )
    return with_defaults(config)
