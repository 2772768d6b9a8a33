"""Small stand-ins for what the pages take for granted: cohorts, runs, scans, data sets as they are distributed.

Images are drawn here: bright ellipses with a dark middle, larger in later stages.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentdrift.cli.__main__ import main
from tests.conftest import build_scheduler, build_unet, build_vae, text_config
from tests.data.sources import test_adni as adni
from tests.data.sources import test_chexpert as chexpert
from tests.data.sources import test_mimic_cxr_jpg as mimic
from tests.data.sources import test_nih_chestxray14 as nih
from tests.data.sources import test_oasis3 as oasis
from tests.doc_blocks import MODEL, smaller

STAGES = ("NonDemented", "VeryMildDemented", "MildDemented")
PEOPLE = 24


def slice_of(number: int, stage: int, size: int = 64) -> NDArray[np.uint8]:
    """Return a slice (size, size)."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(x / rng.uniform(0.65, 0.8), y / rng.uniform(0.75, 0.9))
    tissue = 150 + rng.integers(-25, 25, x.shape) + 20 * np.cos(9 * x + rng.uniform(0, 6)) * np.cos(7 * y)
    return np.where(radius < 1, np.where(radius < 0.2 + 0.12 * stage, 30, tissue), 0).astype(np.uint8)


def picture(path: Path, number: int = 0, stage: int = 0, size: int = 64) -> None:
    """Write a slice as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(slice_of(number, stage, size)).save(path)


def volume(path: Path, number: int = 0, stage: int = 0) -> None:
    """Write a head of 4 mm voxels as NIfTI."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    z = np.linspace(-1, 1, 40)
    flat = slice_of(number, stage, 48).astype(np.int16)
    values = np.stack([flat * (np.hypot(*np.mgrid[-1:1:48j, -1:1:48j]) ** 2 + h**2 < 1) for h in z], axis=2)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -96, -96, -80
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), path)


def dicom(path: Path, number: int = 0, stage: int = 0) -> None:
    """Write an MR image of one slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID, file.Modality = MRImageStorage, "MR"
    file.file_meta.MediaStorageSOPClassUID = MRImageStorage
    file.SOPInstanceUID = generate_uid(entropy_srcs=["image", str(number)])
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(number)])
    file.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number)])
    file.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", str(number)])
    file.PatientID, file.PatientName, file.PatientSex = f"P{number}", f"Person^{number}", "FM"[number % 2]
    file.PatientAge, file.PatientBirthDate, file.StudyDate, file.StudyTime = "070Y", "", "20200101", "101010"
    file.AccessionNumber, file.StudyID, file.ReferringPhysicianName, file.Manufacturer = "", "1", "", ""
    file.SeriesDescription, file.SeriesNumber, file.InstanceNumber = "T1 MPRAGE", 1, 1
    file.ImageType, file.PositionReferenceIndicator = ["ORIGINAL", "PRIMARY", "M"], ""
    file.ScanningSequence, file.SequenceVariant, file.ScanOptions, file.MRAcquisitionType = "GR", "MP", "", "2D"
    file.EchoTime, file.EchoTrainLength, file.RepetitionTime, file.InversionTime = 3, 1, 2000, 900
    file.ImageOrientationPatient, file.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-96, -96, 0]
    file.PixelSpacing, file.SliceThickness = [3, 3], 4
    pixels = slice_of(number, stage).astype("<u2") * 8
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)


def cohort(folder: Path, attribute: str = "stage", classes: tuple[str, ...] = STAGES, *, views: bool = False) -> None:
    """Write a cohort of 72 people with stage, age and sex, and a view if wanted; the first image is called scan.png."""
    lines = [f"file_name,subject,{attribute},age,sex" + ",view" * views]
    for person in range(72):
        name, stage = "scan.png" if person == 0 else f"{person}.png", person % len(classes)
        picture(folder / name, person, stage)
        lines.append(f"{name},p{person},{classes[stage]},{60 + person % 25},{'FM'[person // 3 % 2]}")
        lines[-1] += f",{('AP', 'PA')[person // 2 % 2]}" * views
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def dicom_tree(folder: Path) -> None:
    """Write images of several people, and their labels."""
    for number in range(PEOPLE):
        dicom(folder / f"{number:04d}" / "IM0", number, number % 2)
    rows = [f"P{number},{('CN', 'AD')[number % 2]}" for number in range(PEOPLE)]
    (folder / "labels.csv").write_text("\n".join(["PatientID,diagnosis", *rows]) + "\n")


def adni_root(folder: Path) -> None:
    """Write a collection of ADNI."""
    people = [(f"I{40000 + n}", f"{n:03d}_S_{1000 + n}", ("CN", "MCI", "AD")[n % 3]) for n in range(PEOPLE)]
    rows = [
        adni.row(image, who, group, "sc", "5/02/2006", sex="FM"[n % 2]) for n, (image, who, group) in enumerate(people)
    ]
    folder.mkdir(parents=True)
    (folder / "ADNI1_Complete_3Yr_1.5T_5_01_2024.csv").write_text("\n".join([adni.HEADER, *rows]) + "\n")
    for number, (image, who, _) in enumerate(people):
        volume(adni.write_nifti(folder, who, adni.FOLDER, "2006-05-02_12_31_52.0", image), number, number % 3)
    exam = ["RID,PTID,VISCODE,VISCODE2,EXAMDATE,DIAGNOSIS,Phase"]
    exam += [f"{1000 + n},{who},sc,sc,2006-05-02,{n % 3 + 1},ADNI1" for n, (_, who, _) in enumerate(people)]
    (folder / "DXSUM_01Jan2024.csv").write_text("\n".join(exam) + "\n")


def oasis_root(folder: Path) -> None:
    """Write sessions of OASIS-3 and their ratings."""
    names = [f"OAS3{1000 + n}" for n in range(PEOPLE)]
    rating = (0, 0.5, 1)
    visits = [f"{who},{who}_UDSb4_d0100,100,70,29,0,0,0,0,{rating[n % 3]},x" for n, who in enumerate(names)]
    people = [f"{who},,70,,{n % 2 + 1},12,2,5,White,R,23" for n, who in enumerate(names)]
    for number, who in enumerate(names):
        volume(folder / f"{who}_MR_d0129/anat2/sub-{who}_ses-d0129_T1w.nii.gz", number, number % 3)
    data = folder / "data_files"
    data.mkdir()
    (data / "OASIS3_UDSb4_cdr.csv").write_text("\n".join([oasis.B4, *visits]) + "\n")
    (data / "OASIS3_demographics.csv").write_text("\n".join([oasis.DEMOGRAPHICS, *people]) + "\n")


def radiograph(path: Path, level: int = 0) -> Path:
    """Write a picture in the place of a radiograph."""
    picture(path, level, level % 3)
    return path


def chexpert_root(folder: Path) -> None:
    """Write CheXpert-v1.0-small."""
    said = ({"No": "1.0"}, {"Cardiomegaly": "1.0"}, {"Pleural Effusion": "1.0"}, {"Pneumonia": "1.0"})
    lines = [
        chexpert.row(f"{chexpert.P}patient{n:05d}/study1/view1_frontal.jpg", view="PA", **said[n % 4])
        for n in range(48)
    ]
    chexpert.small(folder.parent, lines, radiograph, folder.name)


def bids_root(folder: Path) -> None:
    """Write a study in BIDS."""
    rows = ["participant_id\tage\tsex\tdiagnosis"]
    for number in range(PEOPLE):
        volume(folder / f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz", number, number % 2)
        rows.append(f"sub-{number:02d}\t{60 + number}\t{'FM'[number % 2]}\t{('CN', 'AD')[number % 2]}")
    (folder / "dataset_description.json").write_text('{"Name": "Study", "BIDSVersion": "1.9.0"}')
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")


def nifti_tree(folder: Path) -> None:
    """Write volumes in folders that say whose they are."""
    for number in range(PEOPLE):
        volume(folder / ("CN", "AD")[number % 2] / f"p{number}" / "t1.nii.gz", number, number % 2)


def patients(path: Path) -> None:
    """Write MIMIC-IV's table of patients."""
    mimic.pack(path, *mimic.PATIENTS)


def base(folder: Path) -> None:
    """Save a random Stable Diffusion model for images of 32 pixels, which reads captions as long as `tiny` does."""
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    from latentdrift import load_pipeline

    torch.manual_seed(0)
    tokenizer = load_pipeline("tiny", drift=None).tokenizer
    StableDiffusionPipeline(
        vae=build_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=build_unet(16).eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def shelf(folder: Path) -> Path:
    """Make, once, what takes a model: a run, its images and edits, a guide and a judge."""
    base(folder / MODEL)
    cohort(folder / "FOLDER")
    data, run = str(folder / "FOLDER"), str(folder / "run")
    wanted = ["--where", "stage=NonDemented", "--target", "stage=MildDemented"]
    template = ["--template", "an MRI of a {stage} brain[, {age:years}][, {sex}]", "--balance", "stage"]
    classes = ["--attribute", "stage", "--classes", "NonDemented", "MildDemented", "--split", f"{run}/split.csv"]
    for words in (
        ["finetune", "--data", data, "--out", run, *template],
        ["generate", "--model", run, "--out", str(folder / "images")],
        ["counterfactual", "--model", run, "--image", data, *wanted, "--out", str(folder / "edits"), "--take", "6"],
        *(
            ["classifier", "train", "--data", data, *classes, "--role", role, "--out", str(folder / role)]
            for role in ("guide", "judge")
        ),
    ):
        short = [str(folder / MODEL) if word == MODEL else word for word in smaller(["latentdrift", *words])]
        assert main([*short[1:], "--device", "cpu", "--quiet"]) == 0, words
    return folder


def makers(shelf: Path) -> dict[str, Callable[[Path], object]]:
    """Return how each name of the pages is made."""

    def copy(name: str) -> Callable[[Path], object]:
        return lambda path: shutil.copytree(shelf / name, path)

    return {
        MODEL: lambda path: path.symlink_to(shelf / MODEL),
        **dict.fromkeys(("FOLDER", "slices", "SLICES", "COHORT", "OTHER", "A", "B", "images"), copy("FOLDER")),
        **dict.fromkeys(("RUN", "runs/mine", "runs/other", "runs/aged"), copy("run")),
        **dict.fromkeys(("IMAGES", "runs/mine-images"), copy("images")),
        **dict.fromkeys(("EDITS", "runs/mine-edits"), copy("edits")),
        "runs/guide": copy("guide"),
        "runs/judge": copy("judge"),
        "cohort": lambda path: cohort(path, "diagnosis", ("CN", "MCI", "AD")),
        "radiographs": lambda path: cohort(path, "findings", ("No Finding", "Pneumonia"), views=True),
        "scan.png": picture,
        "second.png": lambda path: picture(path, 1),
        "third.png": lambda path: picture(path, 2),
        "new-scan.dcm": dicom,
        "new-patient.nii.gz": volume,
        "hospital-export": dicom_tree,
        "export": dicom_tree,
        "adni": adni_root,
        "oasis3": oasis_root,
        "CheXpert-v1.0-small": chexpert_root,
        "nih": lambda path: nih.write(path, nih.LINES, radiograph),
        "physionet.org": lambda path: mimic.write(path, radiograph, patients=False),
        "hosp/patients.csv.gz": patients,
        "bids": bids_root,
        "scans": nifti_tree,
    }
