from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import nilearn
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from latentdrift.data import Cohort, ImageTransform
from latentdrift.data.simulate import (
    DIAGNOSES,
    SimulatedSubject,
    render,
    simulate_cohort,
    simulated_subject,
    true_counterfactual,
    ventricle_area,
)
from latentdrift.data.simulate.anatomy import load_anatomy, sample, sample_vectors
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

PEOPLE = [SimulatedSubject.draw(index, seed=5) for index in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "cohort"
    simulate_cohort(path, subjects=6, seed=5, size=64, truth=True)
    return path


def dark_centre(image: np.ndarray) -> int:
    """Count the dark pixels of the middle of the brain: the ventricles, measured without knowing the simulator."""
    rows, columns = np.nonzero(image > 0.1)
    top, left = rows.min(), columns.min()
    height, width = np.ptp(rows), np.ptp(columns)
    centre = image[top + int(0.25 * height) : top + int(0.68 * height), left + width // 3 : left + 2 * width // 3]
    return int((ndimage.gaussian_filter(centre, 0.5) < 0.35).sum())


def test_vectors_are_sampled_like_scipy_does() -> None:
    rng = np.random.default_rng(0)
    field = rng.standard_normal((7, 8, 9, 3)).astype(np.float32)
    points = rng.uniform(-3, 20, (3, 200)).astype(np.float32)
    reference = [
        ndimage.map_coordinates(field[..., i], (points - 1) / 2, order=1, mode="nearest", output=np.float32)
        for i in range(3)
    ]
    np.testing.assert_allclose(sample_vectors(field, points, (1.0, 1.0, 1.0), 2.0), reference, atol=1e-5)


def test_positions_agree_with_the_template_file() -> None:
    path = Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    image = nibabel.nifti1.load(path)
    points = np.array([[8, -25, 0], [12, 5, -60], [14, 20, 30]], np.float32).T
    voxels = np.rint(nibabel.affines.apply_affine(np.linalg.inv(image.affine), points.T)).astype(int)
    expected = np.asanyarray(image.dataobj)[tuple(voxels.T)] / 255
    anatomy = load_anatomy()
    np.testing.assert_allclose(sample(anatomy.t1, points, anatomy.origin), expected, atol=1e-6)


def test_ventricles_are_where_the_anatomy_has_them() -> None:
    anatomy = load_anatomy()
    inside = np.array([[-8, 14, 16], [8, 14, 16], [-10, -10, 22], [10, -10, 22], [24, -42, 10]], np.float32).T
    outside = np.array([[-25, 20, 24], [0, 40, 16], [0, -60, 16], [45, 5, 16], [14, 8, 8], [12, -18, 8]], np.float32).T
    assert (sample(anatomy.ventricles, inside, anatomy.origin) > 0.5).all()
    assert (sample(anatomy.ventricles, outside, anatomy.origin) < 0.1).all()


def test_growth_swells_the_ventricles_and_leaves_the_skull() -> None:
    anatomy = load_anatomy()
    divergence = sum(np.gradient(anatomy.growth[..., axis], 2.0, axis=axis) for axis in range(3))
    ventricles = anatomy.ventricles[::2, ::2, ::2]
    brain = anatomy.brain[::2, ::2, ::2]
    assert divergence[ventricles > 0.9].mean() > 0.4
    assert abs(divergence[(ventricles < 0.01) & (brain > 0.9)].mean()) < 0.03
    assert not anatomy.growth[brain < 0.1].any()


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
def test_ventricles_grow_with_the_diagnosis_in_the_image_too(person: SimulatedSubject) -> None:
    areas = [ventricle_area(person, diagnosis) for diagnosis in DIAGNOSES]
    assert areas[0] < areas[1] < areas[2]
    assert 1.3 < areas[2] / areas[0] < 2.1
    seen = [dark_centre(render(person, diagnosis, size=208)) for diagnosis in DIAGNOSES]
    assert seen[0] < seen[1] < seen[2]
    # The image has 1 mm pixels at this size, so the pixels gained are the area gained, whatever else is dark.
    assert seen[2] - seen[0] == pytest.approx(areas[2] - areas[0], rel=0.45)


def test_age_widens_sulci_and_ventricles() -> None:
    person = replace(PEOPLE[0], diagnosis="CN")
    assert ventricle_area(person, age=90) > 1.1 * ventricle_area(person, age=55)
    young, old = render(person, age=55), render(person, age=90)
    brain = young > 0.15
    assert (old[brain] < 0.35).mean() > (young[brain] < 0.35).mean() + 0.02


def test_counterfactual_keeps_everything_but_anatomy() -> None:
    person = PEOPLE[1]
    normal, diseased = render(person, "CN"), render(person, "AD")
    np.testing.assert_array_equal(render(person, person.diagnosis, person.age), render(person))
    change = np.abs(diseased - normal)
    assert change.max() > 0.3
    # The background stays bit-identical; white matter moves but keeps its noise and shading, so most changes are small.
    assert not change[normal == 0].any()
    assert np.median(change[normal > 0.2]) < 0.03
    # Another noise realisation alone would differ by more than that: the noise is shared.
    blank = replace(person, seed=person.seed + 1)
    assert np.median(np.abs(render(blank, "CN") - normal)[normal > 0.2]) > 0.06


def test_people_differ() -> None:
    images = [render(replace(person, age=70.0), "CN", size=64) for person in PEOPLE[:4]]
    for i, first in enumerate(images):
        for second in images[:i]:
            assert np.abs(first - second)[first > 0.2].mean() > 0.06


def test_image_looks_like_a_skull_stripped_t1_slice() -> None:
    image = render(PEOPLE[2])
    assert image.shape == (128, 128)
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert (image[:6] == 0).all()
    assert (image[:, :6] == 0).all()
    assert 0.3 < (image > 0.1).mean() < 0.6
    # Fluid is dark, white matter the brightest.
    assert np.percentile(image[image > 0.05], 3) < 0.25
    assert np.percentile(image[image > 0.05], 90) > 0.65


def test_cohort_is_an_ordinary_folder_and_the_truth_is_exact(folder: Path) -> None:
    cohort = Cohort.open(folder)
    assert len(cohort) == 6
    assert cohort.attribute_names == ("age", "sex", "diagnosis")
    assert cohort.counts("diagnosis") == {"AD": 2, "CN": 2, "MCI": 2}
    assert cohort.class_attribute() == "diagnosis"
    assert cohort.is_gray()
    for record in cohort:
        own = str(record.attributes["diagnosis"])
        with Image.open(record.image) as image:
            assert image.info["SyntheticData"] == "YES"
            np.testing.assert_allclose(
                np.asarray(image) / 255, true_counterfactual(folder, record, own), atol=0.51 / 255
            )
        others = {path.stem.split("_")[1]: path for path in (folder / "truth").glob(f"{record.subject}_*.png")}
        assert set(others) == set(DIAGNOSES) - {own}
        for diagnosis, path in others.items():
            found = (ImageTransform(64).read(path)[0].numpy() + 1) / 2
            np.testing.assert_allclose(found, true_counterfactual(folder, record, diagnosis), atol=0.51 / 255)


def test_same_seed_same_cohort(folder: Path, tmp_path: Path) -> None:
    again = simulate_cohort(tmp_path / "again", subjects=4, seed=5, size=64)
    first = Cohort.open(folder)
    assert [r.content_hash() for r in again] == [r.content_hash() for r in first[:4]]
    other = simulate_cohort(tmp_path / "other", subjects=1, seed=6, size=64)
    assert other[0].content_hash() != again[0].content_hash()


def test_an_interrupted_or_unwanted_simulation_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_cohort(tmp_path / "cohort", subjects=3, size=32, progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "used").mkdir()
    (tmp_path / "used/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="used exists and is not empty"):
        simulate_cohort(tmp_path / "used", subjects=1)
    with pytest.raises(ConfigurationError, match="at least 1"):
        simulate_cohort(tmp_path / "none", subjects=0)


def test_bad_parameters() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'MCI'"):
        render(PEOPLE[0], "MCII")
    with pytest.raises(UnknownNameError, match="sex"):
        replace(PEOPLE[0], sex="X")
    for age in (12, float("nan")):
        with pytest.raises(ConfigurationError, match="50 to 95"):
            render(PEOPLE[0], age=age)
    with pytest.raises(ConfigurationError, match="size"):
        render(PEOPLE[0], size=4)
    with pytest.raises(ConfigurationError, match="slice_mm"):
        replace(PEOPLE[0], slice_mm=80)


def test_truth_of_what_was_not_simulated(folder: Path, tmp_path: Path) -> None:
    record = Cohort.open(folder)[0]
    assert simulated_subject(folder, record) == (PEOPLE[0], 64)
    with pytest.raises(DataError, match="only simulated cohorts"):
        true_counterfactual(tmp_path, record, "AD")
    with pytest.raises(DataError, match="no subject 'somebody'"):
        true_counterfactual(folder, replace(record, subject="somebody"), "AD")
    for text, message in [("{", "cannot be read"), ('{"version": 99}', "version 99"), ("[]", "cannot be read")]:
        (tmp_path / "simulation.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            true_counterfactual(tmp_path, record, "AD")
    damaged = {"version": 1, "size": 64, "subjects": {record.subject: {"name": "x"}}}
    (tmp_path / "simulation.json").write_text(json.dumps(damaged), encoding="utf-8")
    with pytest.raises(DataError, match=r"parameters of sim-0001 are damaged"):
        true_counterfactual(tmp_path, record, "AD")
