"""Every table of the data sets, damaged at random: a listing or a `DataError`, and nothing from outside."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from latentdrift.data.source import DataSource
from latentdrift.data.sources import _tables
from latentdrift.data.sources.adni import Adni, AdniConfig
from latentdrift.data.sources.chexpert import CheXpert
from latentdrift.data.sources.imagefolder import ImageFolder
from latentdrift.data.sources.mimic_cxr_jpg import MimicConfig, MimicCxrJpg
from latentdrift.data.sources.nih_chestxray14 import NihChestXray14
from latentdrift.data.sources.oasis3 import Oasis3
from latentdrift.errors import DataError

Write = Callable[..., Path]
TRIALS = 40

FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
DICOM = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
SHOTS = [f"train/patient0000{number}/study1/view1_frontal.jpg" for number in range(1, 9)]
COLLECTION = '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date"'

# Files of a data set as (name, text); what has no text is an image.
SETS: dict[str, tuple[DataSource, dict[str, str | None]]] = {
    "imagefolder": (ImageFolder(), {"metadata.csv": "file_name,age,stage\na.png,61,CN\nb.png,,AD\n", "a.png": None}),
    "imagefolder-jsonl": (ImageFolder(), {"metadata.jsonl": '{"file_name": "a.png", "age": 61}\n', "a.png": None}),
    "chexpert": (
        CheXpert(),
        {"train.csv": f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS}\n"
         + "".join(f"X/{shot},Male,68,Frontal,AP,1.0,,,,,,,,,,,,,\n" for shot in SHOTS), **dict.fromkeys(SHOTS)},
    ),
    "nih": (
        NihChestXray14(),
        {"Data_Entry_2017.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
         "View Position\n00000001_000.png,Mass|Edema,0,1,058Y,M,PA\n", "images/00000001_000.png": None,
         "test_list.txt": "00000001_000.png\n"},
    ),
    "mimic": (
        MimicCxrJpg(MimicConfig(views=("all",))),
        {"mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,ViewPosition,StudyDate\n"
         f"{DICOM},10000032,50414267,PA,21800506\n",
         "mimic-cxr-2.0.0-chexpert.csv.gz": f"subject_id,study_id,{FINDINGS}\n10000032,50414267,1.0" + "," * 13,
         "mimic-cxr-2.0.0-split.csv.gz": f"dicom_id,study_id,subject_id,split\n{DICOM},50414267,10000032,train\n",
         "patients.csv.gz": "subject_id,gender,anchor_age,anchor_year\n10000032,F,52,2180\n",
         f"files/p10/p10000032/s50414267/{DICOM}.jpg": None},
    ),
    "adni": (
        Adni(AdniConfig(diagnosis="visit")),
        {"collection.csv": f'{COLLECTION}\n"I13","002_S_0413","CN","F","76","sc","MRI","MPR; N3","x","5/02/2006"\n',
         "ADNIMERGE.csv": "RID,PTID,EXAMDATE,DX\n413,002_S_0413,2006-05-19,MCI\n",
         "ADNI/002_S_0413/MPR/2006/I13/ADNI_002_S_0413_I13.nii": None},
    ),
    "oasis": (
        Oasis3(),
        {"OASIS3_UDSb4_cdr.csv": "OASISID,days_to_visit,age at visit,CDRTOT\nOAS30001,0100,65.2,0.5\n",
         "OASIS3_demographics.csv": "OASISID,AgeatEntry,GENDER\nOAS30001,65.1,2\n",
         "OAS30001_MR_d0129/anat2/sub-OAS30001_ses-d0129_T1w.nii.gz": None},
    ),
}  # fmt: skip


def damage(content: bytes, rng: random.Random) -> bytes:
    """Cut, repeat, overwrite or insert."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + rng.randint(1, 30)]
        elif kind == 2:
            data[at:at] = data[rng.randrange(len(data) + 1) :]
        elif kind == 3:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 4:
            text = rng.choice([b'"', b",", b"\n", b"\r", b"\0", b"../", b"/", b"nan", b"-", b"1e999", b"\xef\xbb\xbf"])
            data[at:at] = text
        else:
            data[at:at] = rng.choice([b"9" * 400, b"../" * 50, b"x" * 200_000, b"\xff\xfe", "٣é".encode()])
        data = data or bytearray(b"\n")
    return bytes(data)


@pytest.mark.parametrize("name", SETS)
def test_damaged_tables(name: str, tmp_path: Path, write_image: Write) -> None:
    source, files = SETS[name]
    root = tmp_path / "set"
    write_image(tmp_path / "a.png")
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.write_bytes(b"image")
    tables = {file: text.encode() for file, text in files.items() if text is not None}

    def put(file: str, content: bytes) -> None:
        (root / file).write_bytes(gzip.compress(content) if file.endswith(".gz") else content)

    for file, content in tables.items():
        put(file, content)
    whole = source.list_scans(root)
    assert len(whole.scans) == sum(text is None for text in files.values()), whole.refused
    rng = random.Random(f"damage {name}")
    outcomes = []
    for file, content in tables.items():
        for trial in range(TRIALS):
            if trial % 4 or not file.endswith(".gz"):
                put(file, damage(content, rng))
            else:
                (root / file).write_bytes(damage(gzip.compress(content), rng))
            try:
                listing = source.list_scans(root)
            except DataError:
                outcomes.append("table")
                continue
            outcomes.append("rows" if listing.refused else "nothing")
            for scan in listing.scans:
                assert all(path.resolve().is_relative_to(root.resolve()) for path in scan.files)
                assert all(path.is_file() for path in scan.files)
                assert name.startswith("imagefolder") or not isinstance(scan.attributes.get("age"), str)
        put(file, content)
    assert len(set(outcomes)) > 1


@pytest.mark.parametrize(
    "content",
    [
        b"Path," * 100_000,
        b"Path\n" + b"x\n" * 20_100,
        b"Path\n" + b"y" * (1 << 21),
        b"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t\n" + (b"," * 19 + b"\n") * 10_100,
        b"Path\n" + b"\n" * 3_000_000,
    ],
    ids=["columns", "rows", "line", "cells", "characters"],
)
def test_small_files_that_unpack_to_endless_tables_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    for name, value in (("MOST_ROWS", 20_000), ("MOST_CELLS", 200_000), ("LARGEST_TABLE", 2_500_000)):
        monkeypatch.setattr(_tables, name, value)
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(content, 1))
    with pytest.raises(DataError, match="Is it a table"):
        CheXpert().list_scans(tmp_path)
