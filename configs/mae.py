"""A masked autoencoder of pictures, ECGs or volumes, without a text or a label (MAE, arXiv 2111.06377).

    python -m medjax.bin.build_dataset --source=medmnist --input=pneumoniamnist.npz --output=DATA
    python -m medjax.bin.train --config=configs/mae.py:size=28,patch=4 --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.evaluate_probe --workdir=RUN

Three quarters of the patches are hidden, the encoder sees the rest alone, and a small decoder restores the hidden ones.
Mask ratio, targets of zero mean and unit spread in each patch, betas and weight decay are the paper's; sizes and
learning rate are for thousands of examples and minutes on 2 CPU cores. `:variant=B` takes a published size. The paper's
decoder: `--config.method.decoder.width=512 --config.method.decoder.depth=8 --config.method.decoder.heads=16`. Each
evaluation reports the reconstruction error and the effective rank of the features, and warns of a collapse.

Measured on PneumoniaMNIST (4229 pictures for training, 524 in the test split; `:size=28,patch=4,epochs=30`, one seed, 7
minutes on 2 busy CPU cores), as AUROC of a probe, differences being paired:

    probe                 trained               untrained  gain                  pixels
    logistic regression   0.988 [0.981, 0.994]  0.971      0.017 [0.006, 0.028]  0.988
    k nearest neighbours  0.966 [0.945, 0.982]  0.921      0.045 [0.017, 0.074]  0.975

So it learns, and is not told apart from the pixels themselves, which are nearly enough here.

`:modality=image+ecg` encodes the patches of both with one encoder, the visible ones shared out between them by chance
(BM-MAE; MultiMAE, arXiv 2204.01678), so that each is restored from the other too. Of volumes under names of their own,
such as the sequences of an MR study, copy what stands here for `volume`.

Arguments: `:modality=image|ecg|volume` or several with +, `:size=N` pixels a side, samples of an ECG or `AxBxC` voxels
and `:patch=N` of them (of several modalities with +), `:variant=Ti|S|B|L|H`, or `:width=D` and `:depth=N`, `:mask=R`,
`:raw_targets` (not normalised), `:epochs=N`, `:batch=N`, `:tiny`.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.errors import UserError, check_choice
from medjax.training.experiment import with_defaults

_SIZES = dict(image="224", ecg="1000", volume="64x64x64")
_PATCHES = dict(image="16", ecg="25", volume="16")


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(
        arg,
        **dict(modality="image", size="", patch="", variant="", width=128, depth=4, mask=0.75, raw_targets=False),
        **dict(epochs=50, batch=128, tiny=False),
    )
    chosen = args.modality.split("+")
    for m in chosen:
        check_choice("modality", m, _SIZES)
    width, depth = (16, 1) if args.tiny else (args.width, args.depth)
    block = dict(variant=args.variant) if args.variant else dict(width=width, depth=depth, heads=4)
    sizes, patches = _each("size", args.size, _SIZES, chosen), _each("patch", args.patch, _PATCHES, chosen)
    parts = {m: _part(m, sizes[m], patches[m][0]) for m in chosen}
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=16 if args.tiny else args.batch,
        cache=True,
        threads=0,
        modalities={m: data for m, (data, _) in parts.items()},
    )
    config.method = dict(
        name="masked_autoencoder",
        towers={m: dict(**tower, **block, pool="mean") for m, (_, tower) in parts.items()},
        mask_ratio=args.mask,
        normalise_targets=not args.raw_targets,
        joint=len(chosen) > 1,
        decoder=dict(width=16 if args.tiny else 64, depth=1 if args.tiny else 2, heads=4),
    )
    config.optimizer = dict(lr=1e-3, b2=0.95, weight_decay=0.05, warmup_percent=5)
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=20,
        eval_every_percent=10,
        checkpoint_every_percent=50,
        best_metric="validation/loss",
    )
    return with_defaults(config)


def _part(modality: str, size: tuple[int, ...], patch: int) -> tuple[dict, dict]:
    """Data and tower of a modality."""
    if modality == "ecg":
        return dict(samples=size[0], gain=0.1), dict(name="ecg_vit", patch=patch)
    vit = dict(name="vit", patch=patch, positions="sincos")
    if modality == "image":
        return dict(size=size[0], shift=0.05, zoom=0.1), vit
    cube = size * 3 if len(size) == 1 else size
    return dict(size=cube, fit="pad", spacing=(), shift=0.05), dict(**vit, frames=patch)


def _each(name: str, given: str, usual: dict[str, str], chosen: list[str]) -> dict[str, tuple[int, ...]]:
    """The numbers of each modality: of "28", "48x56x40" or "28+1000"."""
    found = given.split("+") if given else [usual[m] for m in chosen]
    parts = [part.split("x") for part in found]
    if len(found) != len(chosen) or not all(len(p) in (1, 3) and all(x.isdigit() for x in p) for p in parts):
        raise UserError(
            f"{name}={given!r} must be a number for each of {'+'.join(chosen)}, joined by +; a volume may have three, "
            "as in 48x56x40"
        )
    return {m: tuple(int(x) for x in part) for m, part in zip(chosen, parts, strict=True)}
