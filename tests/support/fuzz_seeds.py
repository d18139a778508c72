"""Small sound files of every format that medjax reads, for damage to start from."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def _pictures(folder: Path, rng) -> list[str]:
    gray = rng.integers(0, 256, (9, 11), dtype=np.uint8)
    Image.fromarray(gray).save(folder / "a.png", pnginfo=None)
    Image.fromarray(gray.astype(np.uint16) * 200).save(folder / "b.png")
    Image.fromarray(np.stack([gray] * 3, -1)).save(folder / "c.jpg")
    Image.fromarray(gray.astype(np.uint16) * 200).save(folder / "d.tif")
    return ["a.png", "b.png", "c.jpg", "d.tif"]


def _wfdb(folder: Path, rng) -> list[str]:
    import wfdb

    signal = rng.normal(size=(60, 12)).cumsum(0) * 0.05
    for name, fmt in (("r16", "16"), ("r212", "212"), ("r80", "80")):
        wfdb.wrsamp(name, 100, ["mV"] * 12, _LEADS, signal, fmt=[fmt] * 12, write_dir=str(folder))
    return ["r16", "r212", "r80"]


_LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def _edf(folder: Path, rng) -> list[str]:
    import edfio

    signals = [
        edfio.EdfSignal(rng.normal(size=200), 100, label=lead, physical_dimension="mV", physical_range=(-10, 10))
        for lead in _LEADS
    ]
    edfio.Edf(signals).write(folder / "a.edf")
    return ["a.edf"]


def _csv_ecg(folder: Path, rng) -> list[str]:
    rows = [",".join(_LEADS), *(",".join(f"{x:.3f}" for x in row) for row in rng.normal(size=(40, 12)))]
    (folder / "a.csv").write_text("\n".join(rows) + "\n")
    return ["a.csv"]


def _nifti(folder: Path, rng) -> list[str]:
    import nibabel

    values = rng.integers(-1000, 1000, (6, 7, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2, 3, 1])), folder / "a.nii")
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2, 3, 1])), folder / "b.nii.gz")
    return ["a.nii", "b.nii.gz"]


def _nrrd(folder: Path, rng) -> list[str]:
    import nrrd

    values = rng.integers(-1000, 1000, (6, 7, 5)).astype(np.int16)
    header = {"space": "left-posterior-superior", "space directions": np.diag([1.0, 2, 3]), "space origin": [0, 0, 0]}
    nrrd.write(str(folder / "a.nrrd"), values, {**header, "encoding": "raw"})
    nrrd.write(str(folder / "b.nrrd"), values, {**header, "encoding": "gzip"})
    return ["a.nrrd", "b.nrrd"]


def dicom(pixels: np.ndarray, **attributes):
    """A sound DICOM file of one gray picture uint16[H, W], as a pydicom data set."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["a"])
    data.SeriesInstanceUID = data.StudyInstanceUID = generate_uid(entropy_srcs=["b"])
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CT", "MONOCHROME2", 1
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    data.WindowCenter, data.WindowWidth = "40", "400"
    data.PixelSpacing, data.SliceThickness = ["0.7", "0.7"], "2"
    data.ImageOrientationPatient, data.ImagePositionPatient = ["1", "0", "0", "0", "1", "0"], ["0", "0", "0"]
    data.PixelData = pixels.astype(np.uint16).tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


def _dicom(folder: Path, rng) -> list[str]:
    from pydicom.uid import RLELossless

    data = dicom(rng.integers(0, 4096, (9, 11)))
    data.save_as(folder / "a.dcm", enforce_file_format=True)
    data.compress(RLELossless)
    data.save_as(folder / "b.dcm", enforce_file_format=True)
    return ["a.dcm", "b.dcm"]


def _dicom_series(folder: Path, rng) -> list[str]:
    (folder / "series").mkdir()
    for i in range(3):
        data = dicom(rng.integers(0, 4096, (6, 5)), ImagePositionPatient=["0", "0", str(2 * i)], InstanceNumber=str(i))
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{i + 1}"
        data.save_as(folder / "series" / f"{i}.dcm", enforce_file_format=True)
    return ["series"]


def _table(folder: Path, rng) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    rows = [{"id": f"p{i}", "text": "no finding, clear lungs", "value": i * 1.5} for i in range(8)]
    lines = ["id,text,value", *(f'{r["id"]},"{r["text"]}",{r["value"]}' for r in rows)]
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    (folder / "b.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "c.parquet")
    return ["a.csv", "b.jsonl", "c.parquet"]


def _npz(folder: Path, rng) -> list[str]:
    images, labels = rng.integers(0, 256, (8, 6, 6), dtype=np.uint8), rng.integers(0, 2, (8, 1), dtype=np.uint8)
    arrays = {f"{s}_{k}": v for s in ("train", "val", "test") for k, v in (("images", images), ("labels", labels))}
    np.savez_compressed(folder / "a.npz", **arrays)
    np.savez(folder / "b.npz", **arrays)
    return ["a.npz", "b.npz"]


def _webdataset(folder: Path, rng) -> list[str]:
    with tarfile.open(folder / "a.tar", "w") as tar:
        for i in range(4):
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).save(picture, "PNG")
            for ending, data in (("png", picture.getvalue()), ("txt", b"a caption"), ("json", b'{"patient": "p"}')):
                info = tarfile.TarInfo(f"{i:04d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return ["a.tar"]


# Format -> what writes its files into a folder, by a generator of random numbers, and returns what to read.
SEEDS = {
    "csv_ecg": _csv_ecg,
    "dicom": _dicom,
    "dicom_series": _dicom_series,
    "edf": _edf,
    "image": _pictures,
    "nifti": _nifti,
    "npz": _npz,
    "nrrd": _nrrd,
    "table": _table,
    "webdataset": _webdataset,
    "wfdb": _wfdb,
}
