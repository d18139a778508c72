"""The data pipeline beside a torch DataLoader that reads the same pictures with the same augmentation.

Three contests, each side in a process of its own with the same number of readers: from files of encoded pictures
(medjax: a data set that refers to them, torch: the files), from encoded records, and from decoded pictures that are
kept in memory (torch keeps none: it decodes again). And the share of training time spent waiting for data.
"""

import json
import multiprocessing
import multiprocessing.process
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medjax.benchmarks.process import Result, measure
from medjax.errors import UserError, suggest

SIZE, STORED, ROWS = 224, 512, 64
_AUGMENTATION = dict(shift=0.05, zoom=0.1, contrast=0.2)
_READERS = 2
STEPS = 40


@dataclass(frozen=True)
class Contest:
    """What medjax reads, and how. target: how many times as fast it should be."""

    name: str
    index_only: bool
    cache: bool
    workers: int
    target: float


SUITE = (
    Contest("files", True, False, 0, 0.9),
    Contest("files_workers", True, False, _READERS, 0.9),
    Contest("records", False, False, 0, 0.9),
    Contest("decoded", False, True, 0, 2.0),
)
RECIPES = ("phantom", "ptbxl")


def chosen(only: list[str]) -> tuple[list[Contest], list[str]]:
    """The contests and recipes named in `only`, all if it is empty.

    Raises:
      UserError: an unknown name.
    """
    known = [*(c.name for c in SUITE), *RECIPES]
    for name in only:
        if name not in known:
            raise UserError(f"--only names the unknown comparison {name!r}; {suggest(name, known)}")
    picked = only or known
    return [c for c in SUITE if c.name in picked], [r for r in RECIPES if r in picked]


def compare(
    contests: list[Contest], batches: int, report: Callable[[str], None] = lambda line: None
) -> Iterator[dict[str, Any]]:
    """Times both sides of each contest over `batches` batches of 64 pictures in each of three calls, after one.

    Yields a row a contest: `images_per_second`, `peak_bytes` of the main process and `worker_bytes` of the largest
    worker for "ours" and "theirs", or under `missing` why there is nothing, `times_faster` and the target.
    """
    with tempfile.TemporaryDirectory() as folder:
        report("writing pictures ...")
        write_pictures(Path(folder), 2 * ROWS + 2)
        theirs = None
        for c in contests:
            report(f"{c.name}: medjax ...")
            ours = measure(partial(_ours, folder, c, batches), 3)
            if theirs is None:
                report("torch DataLoader ...")
                theirs = measure(partial(_theirs, folder, batches), 3)
            row: dict[str, Any] = {"name": c.name, "target": c.target}
            for side, result in (("ours", ours), ("theirs", theirs)):
                row[side] = {"missing": result} if isinstance(result, str) else _figures(result, batches)
            if isinstance(ours, Result) and isinstance(theirs, Result):
                row["times_faster"] = theirs.seconds / ours.seconds
            yield row


def _figures(result: Result, batches: int) -> dict[str, float]:
    rate = batches * ROWS / result.seconds
    return {"images_per_second": rate, "peak_bytes": result.peak_bytes, "worker_bytes": result.loss}


def write_pictures(folder: Path, n: int) -> None:
    """`n` grey PNG files of 512 pixels, and two data sets of them: with records of the files, and with their bytes."""
    from medjax.data.building.build import Options, build_dataset
    from medjax.data.items import FileItem
    from medjax.data.manifest import Modality
    from medjax.data.records import Example
    from medjax.data.sources import Schema, Study

    rng = np.random.default_rng(0)
    pictures = folder / "pictures"
    pictures.mkdir()
    y, x = np.mgrid[:STORED, :STORED] / STORED
    noise = rng.normal(0, 6, x.shape)
    for i in range(n):
        a, b = rng.uniform(2, 9, 2)
        smooth = 120 + 60 * np.sin(a * x + i) * np.cos(b * y) + noise
        Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(pictures / f"{i:04d}.png", compress_level=1)

    class Pictures:
        schema = Schema("pictures", "made up", "CC0-1.0", {"image": Modality("image")}, sensitive=False)
        root = pictures

        def studies(self):
            paths = sorted(pictures.glob("*.png"))
            splits = ["validation", "test", *["train"] * (len(paths) - 2)]
            return [Study(p.stem, p.stem, s, partial(self._read, p)) for p, s in zip(paths, splits, strict=True)]

        def _read(self, path):
            return Example(path.stem, path.stem, {"image": [FileItem("image", path)]})

    for name, index_only in (("records", False), ("files", True)):
        build_dataset(Pictures(), folder / name, Options(index_only=index_only), lambda done, total: None)


def _ours(folder: str, c: Contest, batches: int) -> Callable[[], float]:
    from medjax.data import DataConfig, Dataset

    options = dict(size=SIZE, fit="stretch", **_AUGMENTATION)
    config = DataConfig(
        dir=f"{folder}/{'files' if c.index_only else 'records'}",
        source_dir=f"{folder}/pictures" if c.index_only else "",
        modalities={"image": options},
        batch_size=ROWS,
        threads=1 if c.workers else _READERS,
        workers=c.workers,
        cache=c.cache,
    )
    stream = Dataset.open(config).train(0, 0, ROWS)
    if c.cache:  # every picture decoded once
        for _ in range(4):
            next(stream)
    return partial(_read, stream, batches)


def _theirs(folder: str, batches: int) -> Callable[[], float]:
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    loader = DataLoader(
        Files(folder), ROWS, shuffle=True, num_workers=_READERS, persistent_workers=True, drop_last=True
    )

    def endless():
        while True:
            yield from loader

    return partial(_read, endless(), batches)


def _read(stream: Iterator[Any], batches: int) -> float:
    """Takes batches; returns the memory of the largest worker process in bytes, 0 without any."""
    for _ in range(batches):
        next(stream)
    return float(max((_resident(child) for child in multiprocessing.active_children()), default=0))


def _resident(child: multiprocessing.process.BaseProcess) -> int:
    status = Path(f"/proc/{child.pid}/statm")
    return int(status.read_text().split()[1]) * resource.getpagesize() if status.is_file() else 0


class Files:
    """The dataset that a torch user would write: the same decoder, resampling and augmentation."""

    def __init__(self, folder: str):
        self._paths = sorted(Path(folder, "pictures").glob("*.png"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int):
        import torch

        rng = np.random.default_rng()
        picture = Image.open(self._paths[index]).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        zoom = 1 + rng.uniform(-_AUGMENTATION["zoom"], _AUGMENTATION["zoom"])
        dx, dy = rng.uniform(-_AUGMENTATION["shift"], _AUGMENTATION["shift"], 2) * SIZE
        c = SIZE / 2
        affine = (1 / zoom, 0.0, c - (c + dx) / zoom, 0.0, 1 / zoom, c - (c + dy) / zoom)
        picture = picture.transform(picture.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        contrast = _AUGMENTATION["contrast"]
        pixels = (np.asarray(picture, np.float32) / 255 - 0.5) / 0.25
        pixels = pixels * np.float32(1 + rng.uniform(-contrast, contrast)) + np.float32(
            rng.uniform(-contrast, contrast)
        )
        return torch.from_numpy(pixels[None])


def waiting(recipe: str, steps: int, data: str = "") -> dict[str, Any]:
    """The share of the steps of a recipe in which devices waited for data, from the metrics of a short run.

    data: a built data set; the phantom is made where it is empty.
    """
    from medjax.bin.cli import load_config
    from medjax.data.building.build import Options, build_dataset
    from medjax.data.sources import Phantom
    from medjax.training import loop

    with tempfile.TemporaryDirectory() as folder:
        config = load_config(f"configs/{recipe}.py")
        if recipe == "phantom" and not data:
            data = f"{folder}/data"
            build_dataset(Phantom(patients=200), Path(data), Options(), lambda done, total: None)
        if not data:
            return {"name": recipe, "missing": "needs --data, a data set built from PTB-XL"}
        config.data.dir = data
        for key in [k for k in config.train if k.startswith(("total_", "log_every_", "eval_every_", "checkpoint_"))]:
            del config.train[key]
        config.train.total_steps, config.train.log_every_steps = steps, 5
        then = time.monotonic()
        loop.run(config, Path(folder) / "run")
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
        waits = [r["train/data_wait"] for r in rows if "train/data_wait" in r]
        rates = [r["train/examples_per_second"] for r in rows if r.get("train/examples_per_second")]
        return {
            "name": recipe,
            "data_wait": waits[-1],
            "examples_per_second": statistics.median(rates),
            "seconds": time.monotonic() - then,
        }
