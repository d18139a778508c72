"""What a transform is: one raw item of a modality into the arrays that its encoder takes."""

from typing import Any, Protocol

import numpy as np


class Transform(Protocol):
    """Made from a modality's schema and its config. `prepare` and `finish` are pure."""

    kind: str

    def prepare(self, raw: np.ndarray) -> Any:
        """The part that is the same every time, and worth keeping in memory where there is room.

        Raises:
          UserError: the item cannot be used.
        """

    def finish(self, prepared: Any, rng: np.random.Generator | None) -> Any:
        """An array or dict of arrays of fixed shape. With `rng` the item is augmented, without it is not."""

    def empty(self) -> Any:
        """Zeros of the same structure, for an item that is absent."""

    def raw(self, value: Any) -> np.ndarray:
        """A raw item from what a user has in hand (a path, an array, a string, a dict of values).

        Raises:
          UserError: it is none of these.
        """

    def spec(self) -> dict[str, Any]:
        """The preprocessing without augmentation as JSON, enough to repeat it elsewhere."""
