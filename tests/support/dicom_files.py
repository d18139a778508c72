"""DICOM files as scanners write them, from arrays and element values."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

SERIES = "1.2.826.0.1.3680043.8.498.1"


def dataset(pixels: np.ndarray, frames: int = 0, syntax: str = "1.2.840.10008.1.2.1", **elements):
    """A pydicom data set of gray [H, W] or colour [H, W, 3] pixels, with a leading axis where there are `frames`;
    `elements` are set last. None removes one."""
    import pydicom
    from pydicom.uid import UID, CTImageStorage, generate_uid

    out = pydicom.Dataset()
    out.file_meta = pydicom.dataset.FileMetaDataset()
    out.file_meta.TransferSyntaxUID = UID(syntax)
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID = CTImageStorage
    out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID = generate_uid()
    shape = pixels.shape[1:] if frames else pixels.shape
    out.SeriesInstanceUID, out.Modality = SERIES, "CT"
    out.SamplesPerPixel, (out.Rows, out.Columns) = (3 if len(shape) == 3 else 1), shape[:2]
    out.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        out.PlanarConfiguration = 0
    if frames:
        out.NumberOfFrames = frames
    bits = pixels.dtype.itemsize * 8
    out.BitsAllocated, out.BitsStored, out.HighBit = bits, bits, bits - 1
    out.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    out.PixelData = data + b"\0" * (len(data) % 2)
    if "BitsStored" in elements:
        elements = {"HighBit": elements["BitsStored"] - 1, **elements}
    for name, value in elements.items():
        if value is None:
            delattr(out, name)
        else:
            setattr(out, name, value)
    out["PixelData"].VR = "OB" if bits == 8 else "OW"
    return out


def write(path: Path, *arguments, compress: str = "", **options) -> Path:
    """Writes `dataset(...)`, compressed by pydicom to another transfer syntax if asked to."""
    out = dataset(*arguments, **options)
    if compress:
        out.compress(compress)
    out.save_as(path, enforce_file_format=True)
    return path


def picture(raw: np.ndarray) -> np.ndarray:
    """The pixels of PNG bytes, by Pillow."""
    return np.asarray(Image.open(io.BytesIO(raw.tobytes())))


def item(**elements):
    """An item of a sequence."""
    import pydicom

    out = pydicom.Dataset()
    for name, value in elements.items():
        setattr(out, name, value)
    return out


def slice_elements(height: float, normal: int = 2, **elements) -> dict:
    """Elements of an axial (normal=2), coronal (1) or sagittal (0) slice at `height` mm along the axis."""
    position = ["-10", "-20", "-30"]
    position[normal] = str(height)
    axes = {2: "100010", 1: "10000-", 0: "01000-"}[normal]
    return {
        "ImagePositionPatient": position,
        "ImageOrientationPatient": ["-1" if c == "-" else c for c in axes],
        "PixelSpacing": ["0.5", "0.75"],
        "SliceThickness": "3",
        **elements,
    }
