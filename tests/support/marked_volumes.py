"""Volumes with marked voxels whose place in the patient is known, in every order and direction of axes."""

import itertools

import numpy as np

SPACING = (0.5, 1.25, 3.0)
SHAPE = (5, 6, 7)
MARKS = {100: (1, 2, 3), 50: (3, 2, 3), 60: (1, 4, 3), 70: (1, 2, 5)}
# 6 orders times 8 directions: row k says along which world axis voxel axis k runs, and which way.
ORIENTATIONS = [
    np.eye(3)[:, list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def marked_voxels() -> np.ndarray:
    """int16[5, 6, 7] of zeros with four marks."""
    values = np.zeros(SHAPE, np.int16)
    for mark, at in MARKS.items():
        values[at] = mark
    return values


def check_marks(volume, directions_lps: np.ndarray) -> None:
    """Asserts that the marks of a canonical volume are as many mm apart, upwards, backwards and to the left, as the
    directions (mm in LPS, one column a voxel axis) say of the file.
    """
    found = {m: np.argwhere(volume.values == m) for m in MARKS}
    assert all(len(x) == 1 for x in found.values())
    for mark, at in MARKS.items():
        x, y, z = directions_lps @ (np.array(at) - MARKS[100])
        got = (found[mark][0] - found[100][0]) * np.array(volume.spacing)
        np.testing.assert_allclose(got, (z, y, x), atol=1e-5)
