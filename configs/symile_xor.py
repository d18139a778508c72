"""Symile's synthetic experiment: an exclusive-or that no pair of modalities can see.

    python -m medjax.bin.symile_xor --config=configs/symile_xor.py [--p=0.5] [--json] [--output=plot.png]

Half a minute of processor time for a point, and eight minutes for the curve. Arguments: `:epochs=N` and
`:variant=mixture|eight|missing`.

mixture: a and b are five random bits; c = a xor b in a share p of the samples and c = a in the rest; b is sought among
all 32 vectors, given a and c. The best accuracy there is, is p + (1 - p) / 32. Data, encoders and hyperparameters are
those of arXiv 2411.01053, and rajesh-lab/symile (`experiments/`, `binary_xor`).
eight: seven random bits and their exclusive-or, each a modality; the first is sought, given the other seven.
missing: a, b and c = a xor b of one bit, each missing in a fifth of the samples of training and validation, where it is
0.5 beside an indicator; a is sought on complete samples. Both are the examples of that repository's README, 50 epochs;
as written there they test the last parameters, `keep="last"`, since the best `state_dict` is kept by reference.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, variant="mixture", epochs=0)
    mixture = args.variant == "mixture"
    return ConfigDict(
        dict(
            seed=0,
            variant=args.variant,
            bits=5 if mixture else 1,
            embed_dim=16,
            train_rows=10_000,
            validation_rows=1_000,
            test_rows=5_000,
            test_sets=10,
            batch_size=1_000,
            epochs=args.epochs or (100 if mixture else 50),
            lr=0.1,
            weight_decay=0.01,
            log_scale=-0.3,
            negatives="n",
            missingness=0.2,
            keep="best",
        )
    )
