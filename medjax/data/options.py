"""What a recipe says of its data: `config.data`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from medjax.data.device_augment import DeviceConfig
from medjax.errors import UserError


@dataclass(frozen=True)
class SetConfig:
    """One data set of a mixture. dir: its folder. weight: its share of the training examples is its part of the sum of
    the weights; equal weights, the default, balance by source, the numbers of examples leave it in proportion.
    source_dir: the folder of the source's files, for an index-only data set.
    """

    dir: str
    weight: float = 1.0
    source_dir: str = ""


@dataclass(frozen=True)
class BucketConfig:
    """Batches of one shape. sets: of the mixture, that it takes records from, by default all. max_items: as in
    DataConfig; a record goes to the first bucket that holds all its items, or to the last that takes its set.
    modalities: options laid over those of DataConfig. Modalities that none of its sets has take no room in its batches.
    """

    sets: tuple[str, ...] = ()
    max_items: dict[str, int] = field(default_factory=dict)
    modalities: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """dir: the data set; or mixture: several, by name. modalities: `{name: transform options}`, what is read of them;
    a set may lack some. batch_size: global. source_dir: the folder of the source's files, for an index-only data set.
    max_items: items a study may bring per modality (views, sections); the rest are left out, at random in training.

    balance: "label" or "modality" gives groups of the training records of a set equal shares, or those of
    balance_weights, by group: the rarest label that a record is positive for ("none" without any), or the modalities
    that it has ("image+text"). buckets: `{name: BucketConfig}`, batches of several shapes; each run of bucket_examples
    examples (0: a batch) is of one bucket.

    device: augmentation of pictures on the accelerator, by modality (see `medjax.data.device_augment`).

    max_invalid_fraction: share of unreadable examples in a batch beyond which training stops; max_invalid: number of
    them in the whole run, across restarts, 0 for any. threads: reading ahead, in each process; 0 reads between steps.
    workers: processes that read ahead; 0 reads in this one. verify: compare every shard with its checksum at the
    start. cache: keep decoded records in memory, for data sets that fit; with workers, in each.

    cache_dir: where copies of data sets at gs:// are kept (see `medjax.data.remote`). check_files: of an index-only
    data set, compare a file with its checksum when a process first reads it ("first") or every time ("always").
    """

    modalities: dict[str, dict[str, Any]]
    dir: str | None = ""
    batch_size: int = 128
    mixture: dict[str, SetConfig] = field(default_factory=dict)
    source_dir: str = ""
    max_items: dict[str, int] = field(default_factory=dict)
    balance: Literal["", "label", "modality"] = ""
    balance_weights: dict[str, float] = field(default_factory=dict)
    buckets: dict[str, BucketConfig] = field(default_factory=dict)
    bucket_examples: int = 0
    device: dict[str, DeviceConfig] = field(default_factory=dict)
    max_invalid_fraction: float = 0.05
    max_invalid: int = 0
    threads: int = 4
    workers: int = 0
    verify: bool = False
    cache: bool = False
    cache_dir: str = ""
    check_files: Literal["first", "always"] = "first"

    def sets(self) -> dict[str, SetConfig]:
        """The data sets by name; a single one is named "".

        Raises:
          UserError: neither or both of `dir` and `mixture` are set.
        """
        if self.dir and self.mixture:
            raise UserError("config.data.dir and config.data.mixture are both set; keep one")
        if self.mixture:
            return dict(self.mixture)
        if not self.dir:
            raise UserError("config.data.dir is not set; pass --config.data.dir=DIR, made by medjax.bin.build_dataset")
        return {"": SetConfig(self.dir, 1.0, self.source_dir)}

    def __post_init__(self):
        for name in ("max_invalid", "threads", "workers", "bucket_examples"):
            if getattr(self, name) < 0:
                raise UserError(f"config.data.{name} must not be negative, got {getattr(self, name)}")
        if self.batch_size < 1:
            raise UserError(f"config.data.batch_size must be positive, got {self.batch_size}")
