"""Where DICOM slices lie in the patient (PS3.3 C.7.6.2.1.1), and whether they stack to a volume."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.readers.dicom_file import code, codes, element, items, macro, number, numbers
from medjax.data.readers.dicom_pixels import Layout
from medjax.data.readers.dicom_window import rescale
from medjax.errors import UserError

_MAX_SHEAR = math.tan(math.radians(0.5))
_MAX_STACKS = 256
_SAME_PLACE = 1e-3  # mm; positions are written with far more digits than slices are thin


@dataclass(frozen=True)
class Plane:
    """A slice: which frame of which file, its geometry in mm in patient coordinates (LPS), and its scale.

    position: centre of the first pixel. along_columns, along_rows: unit vectors in which the column index and the row
    index grow. spacing: mm between rows, between columns. depth: mm to the next slice as the file says, 0 unknown.
    group: what else the slices of one stack have in common.
    """

    path: Path
    frame: int
    position: tuple[float, ...]
    along_columns: tuple[float, ...]
    along_rows: tuple[float, ...]
    spacing: tuple[float, ...]
    depth: float
    scale: tuple[float, float]
    hounsfield: bool
    layout: Layout
    group: tuple[Any, ...]


def frames_with_geometry(dataset: Any, layout: Layout) -> int:
    """How many frames may have a position of their own: one, or as many as there are functional groups.

    Raises:
      UserError: an enhanced file has functional groups of another number of frames than it claims.
    """
    if layout.frames == 1:
        return 1
    groups = len(items(dataset, "PerFrameFunctionalGroupsSequence"))
    if groups not in (0, layout.frames):
        raise UserError(f"it claims {layout.frames} frames and describes {groups}; copy it again or remove it")
    return groups


def plane(dataset: Any, layout: Layout, path: Path, frame: int) -> Plane | None:
    """The slice of a frame; None where the file gives it no position (screen shots, dose reports, cine loops).

    Raises:
      UserError: the geometry is damaged.
    """
    position = numbers(macro(dataset, "PlanePositionSequence", frame), "ImagePositionPatient", 3)
    cosines = numbers(macro(dataset, "PlaneOrientationSequence", frame), "ImageOrientationPatient", 6)
    measures = macro(dataset, "PixelMeasuresSequence", frame)
    spacing = numbers(measures, "PixelSpacing", 2)
    if not (position and cosines and spacing):
        return None
    if min(spacing) <= 0:
        raise UserError("its PixelSpacing is not positive; correct it")
    columns, rows = np.array(cosines[:3]), np.array(cosines[3:])
    if not np.allclose([columns @ columns, rows @ rows, columns @ rows], [1, 1, 0], atol=1e-2):
        raise UserError("its ImageOrientationPatient is no pair of perpendicular unit vectors; correct it")
    transformation = macro(dataset, "PixelValueTransformationSequence", frame)
    has_scale = element(transformation, "RescaleSlope") is not None
    is_ct = code(dataset, "Modality") == "CT" and code(transformation, "RescaleType") in ("", "HU")
    return Plane(
        path=path,
        frame=frame,
        position=position,
        along_columns=tuple((columns / np.linalg.norm(columns)).tolist()),
        along_rows=tuple((rows / np.linalg.norm(rows)).tolist()),
        spacing=spacing,
        depth=abs(number(measures, "SpacingBetweenSlices") or number(measures, "SliceThickness") or 0.0),
        scale=rescale(dataset, frame),
        hounsfield=is_ct and has_scale,
        layout=layout,
        group=(
            str(element(dataset, "SeriesInstanceUID") or ""),
            codes(dataset, "ImageType")[2:],  # of a Dixon series: water, fat, in phase, out of phase
            numbers(dataset, "EchoNumbers"),
            numbers(dataset, "TemporalPositionIdentifier"),
            (layout.rows, layout.columns, layout.photometric),
        ),
    )


def stacks(planes: Sequence[Plane]) -> list[list[Plane]]:
    """The slices by the stack they belong to: one series and kind of picture, parallel, of one spacing.

    Raises:
      UserError: there are more than 256 stacks.
    """
    found: list[list[Plane]] = []
    for one in planes:
        home = next((s for s in found if _alike(s[0], one)), None)
        if home is None:
            found.append([one])
        else:
            home.append(one)
        if len(found) > _MAX_STACKS:
            raise UserError(f"it holds more than {_MAX_STACKS} series; put each into a folder of its own")
    return found


def _alike(one: Plane, other: Plane) -> bool:
    """Orientation and spacing are compared with a tolerance: scanners write them with rounding errors."""
    if one.group != other.group:
        return False
    axes = zip(one.along_columns + one.along_rows, other.along_columns + other.along_rows, strict=True)
    spacing = zip(one.spacing, other.spacing, strict=True)
    return all(abs(a - b) < 0.005 for a, b in axes) and all(abs(a - b) < 1e-3 * a for a, b in spacing)


def stack(planes: Sequence[Plane], tolerance: float) -> tuple[list[Plane], np.ndarray]:
    """The slices in order along their normal, and the steps in mm of the axes (slice, row, column) as columns [3, 3].

    tolerance: how far the distance between two slices may be from the median one, as a share of it.

    Raises:
      UserError: two slices at one place, a gap, slices that are sheared (gantry tilt) or shifted.
    """
    first = planes[0]
    across, down = np.array(first.along_columns), np.array(first.along_rows)
    normal = np.cross(across, down)
    positions = np.array([p.position for p in planes])
    order = np.argsort(positions @ normal, kind="stable")
    planes, positions = [planes[i] for i in order], positions[order]
    if len(planes) == 1:
        if not first.depth:
            raise UserError("it is one slice of unknown thickness; read it as an image with the reader dicom")
        step = first.depth
    else:
        step = _step(positions, normal, min(first.spacing), tolerance)
    return planes, np.stack([normal * step, down * first.spacing[0], across * first.spacing[1]], axis=1)


def _step(positions: np.ndarray, normal: np.ndarray, pixel: float, tolerance: float) -> float:
    """mm between slices in order."""
    heights = positions @ normal
    steps = np.diff(heights)
    if double := int((steps < _SAME_PLACE).sum()):
        raise UserError(
            f"{double} of its {len(positions)} slices lie where another does (phases, echoes or reconstructions of one "
            "place); put each into a folder of its own"
        )
    median = float(np.median(steps))
    worst = int(np.argmax(abs(steps - median)))
    if abs(steps[worst] - median) > tolerance * median:
        missing = round(steps[worst] / median) - 1
        guess = f", {missing} missing" if missing > 0 else ""
        raise UserError(
            f"its slices are {median:.4g} mm apart, but slices {worst} and {worst + 1} {steps[worst]:.4g} mm{guess}; "
            "complete it or leave it out"
        )
    drift = positions - positions[0] - np.outer(heights - heights[0], normal)
    shear = float(np.linalg.norm(drift[-1]) / (heights[-1] - heights[0]))
    if shear > _MAX_SHEAR:
        raise UserError(
            f"its slices are sheared by {math.degrees(math.atan(shear)):.1f} degrees (gantry tilt); straighten it with "
            "a DICOM tool or leave it out"
        )
    if np.linalg.norm(drift, axis=1).max() > max(pixel, shear * (heights[-1] - heights[0])):
        raise UserError("its slices are shifted against each other; leave it out")
    return float((heights[-1] - heights[0]) / (len(positions) - 1))
