"""DICOM tags: the allow-list lets codes and numbers through, and nothing that could name somebody."""

import json

import numpy as np
import pytest
from dicom_files import dataset, item, write

from medjax.data.readers.dicom_tags import read_flags, read_tags

GRAY = np.zeros((8, 8), np.uint16)


def tags(tmp_path, **elements):
    return read_tags(write(tmp_path / "a.dcm", GRAY, **{"Modality": "DX", **elements}))


def test_known_codes_and_plausible_numbers_are_kept(tmp_path):
    got = tags(
        tmp_path,
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        ImageLaterality="L",
        PatientSex="F",
        PatientAge="045Y",
        Manufacturer="GE Healthcare",
        PixelSpacing=["0.1", "0.2"],
        KVP="120",
        ContrastBolusAgent="Iohexol for Doe",
    )
    assert got == {
        "modality": "DX",
        "body_part": "CHEST",
        "view": "PA",
        "laterality": "L",
        "sex": "F",
        "age_years": 45.0,
        "manufacturer": "ge",
        "contrast": True,
        "photometric": "MONOCHROME2",
        "rows": 8.0,
        "columns": 8.0,
        "bits": 16.0,
        "spacing_mm": [0.1, 0.2],
        "peak_kilovoltage": 120.0,
        "flags": [],
    }


def test_no_element_lets_a_name_a_date_or_a_number_through(tmp_path):
    from pydicom.datadict import DicomDictionary, dictionary_VR

    data = dataset(GRAY)
    secrets = {
        "PN": "Doe^Jane",
        "DA": "19500101",
        "TM": "112233",
        "DT": "19500101112233",
        "AS": "047Y",
        "IS": "4711471",
    }
    secrets |= dict.fromkeys(("LO", "SH", "LT", "ST", "UT", "UC"), "Jane Doe 4711471")
    secrets |= {"CS": "DOEJANE", "AE": "DOEJANE", "DS": "4711471", "UI": "1.2.4711471"}
    secrets |= {"FD": 4711471.0, "FL": 4711471.0, "UL": 4711471, "SL": 4711471}
    structural = {"SpecificCharacterSet", "PatientAge"}
    planted = 0
    for tag, (*_, keyword) in DicomDictionary.items():
        vr = dictionary_VR(tag)
        # Without the groups that say how to read the file and its pixels.
        if keyword and tag >> 16 not in (0, 2, 4, 0x28, 0x7FE0) and vr in secrets and keyword not in structural:
            data.add_new(tag, vr, secrets[vr])
            planted += 1
    data.add_new(0x00091001, "LO", "Doe^Jane")
    data.OtherPatientIDsSequence = [item(PatientID="4711471")]
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    got = read_tags(tmp_path / "a.dcm")
    text = json.dumps(got).lower()
    assert planted > 1000
    assert not any(secret in text for secret in ("doe", "jane", "4711", "1950", "1122"))
    assert set(got) <= {"photometric", "rows", "columns", "bits", "manufacturer", "contrast", "flags", "age_years"}


@pytest.mark.parametrize(
    "elements, years",
    [
        ({"PatientAge": "090Y"}, 90.0),
        ({"PatientAge": "103Y"}, 90.0),
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientAge": "010D"}, 0.03),
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "Doe"}, None),
        ({"PatientBirthDate": "19500615", "StudyDate": "20200614"}, 69.0),
        ({"PatientBirthDate": "19500615", "StudyDate": "20200615"}, 70.0),
        ({"PatientBirthDate": "18500615", "StudyDate": "20200615"}, None),
        ({}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of the wrong value that is written
def test_ages_are_years_and_capped(tmp_path, elements, years):
    assert tags(tmp_path, **elements).get("age_years") == years


@pytest.mark.parametrize(
    "elements, flags",
    [
        ({"BurnedInAnnotation": "YES"}, ("burned-in text",)),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "BurnedInAnnotation": "NO"}, ("burned-in text",)),
        ({"Modality": "US"}, ("burned-in text",)),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, ()),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, ("burned-in text",)),
        ({"ImageType": ["DERIVED", "SECONDARY"], "BurnedInAnnotation": "NO"}, ()),
        ({"Modality": "CT", "BodyPartExamined": "HEAD"}, ("face",)),
        ({"Modality": "CT", "BodyPartExamined": "CHEST", "StudyDescription": "Head"}, ()),
        ({"Modality": "MR", "ProtocolName": "t1 neuro"}, ("face",)),
        ({"Modality": "MR", "PixelSpacing": ["20", "20"]}, ("face",)),
        ({"Modality": "CT", "PixelSpacing": ["60", "60"]}, ()),
        ({"Modality": "DX", "BodyPartExamined": "SKULL"}, ()),
    ],
)
def test_flags_warn_of_burned_in_text_and_faces(tmp_path, elements, flags):
    path = write(tmp_path / "a.dcm", GRAY, **{"Modality": "DX", **elements})
    assert read_flags(path) == flags and read_tags(path)["flags"] == list(flags)


def test_a_damaged_element_is_as_good_as_none(tmp_path):
    path = write(tmp_path / "a.dcm", GRAY, KVP="120", PatientSex="F")
    path.write_bytes(path.read_bytes().replace(b"120 ", b"Doe "))
    assert "peak_kilovoltage" not in read_tags(path) and read_tags(path)["sex"] == "F"
