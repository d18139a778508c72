"""What could not be used: examples counted by data set and cause, for the checkpoint and for a limit."""

from collections.abc import Mapping, Sequence

import numpy as np

# Why a row is invalid, as rows carry it: 0 it is not, 1 the shard is damaged, 2 the record is; from 3 on the modality
# at fault, by its place in `config.data.modalities`. 255 is padding.
CAUSES = ("shard", "record")
PADDING = 255


class Ledger:
    """Counts of invalid training examples that were handed out.

    sets, modalities: names, in the order of the numbers in rows.
    """

    def __init__(self, sets: Sequence[str], modalities: Sequence[str]):
        self._sets, self._causes = list(sets), [*CAUSES, *modalities]
        self._restored = np.zeros((len(self._sets), len(self._causes)), np.int64)
        self.counted = np.zeros_like(self._restored)

    def count(self, origin: Mapping[str, np.ndarray]) -> None:
        """Adds the rows of a batch. origin: `set` and `cause`, uint8[b], of `Examples.row`."""
        cause = np.asarray(origin["cause"]).astype(int)
        bad = (cause > 0) & (cause != PADDING)
        np.add.at(self.counted, (np.asarray(origin["set"])[bad], cause[bad] - 1), 1)

    def restore(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Goes on from what `as_dict` gave; names that are no longer known are left out."""
        for i, name in enumerate(self._sets):
            for j, cause in enumerate(self._causes):
                self._restored[i, j] = counts.get(name or "data", {}).get(cause, 0)

    def as_dict(self, counted: np.ndarray | None = None) -> dict[str, dict[str, int]]:
        """`{data set: {cause: examples}}` without zeros; a single set is named "data".

        counted: of all processes together, where there are several.
        """
        total = self._restored + (self.counted if counted is None else counted)
        return {
            name or "data": {c: int(n) for c, n in zip(self._causes, row, strict=True) if n}
            for name, row in zip(self._sets, total, strict=True)
            if row.any()
        }

    def total(self, counted: np.ndarray | None = None) -> int:
        """All of them."""
        return int((self._restored + (self.counted if counted is None else counted)).sum())

    def __str__(self) -> str:
        parts = [f"{n} {cause} of {name}" for name, row in self.as_dict().items() for cause, n in row.items()]
        return ", ".join(parts) or "none in this process"
