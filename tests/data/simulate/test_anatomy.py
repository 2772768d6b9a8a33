from __future__ import annotations

from pathlib import Path

import nibabel
import nilearn
import numpy as np
import pytest
from scipy import ndimage

from latentdrift.data.simulate import SimulatedSubject
from latentdrift.data.simulate import effects as published
from latentdrift.data.simulate.anatomy import load_anatomy
from latentdrift.data.simulate.lesions import lesion_share, threshold_of
from latentdrift.data.simulate.sampling import finer, sample, sample_vectors, smooth_noise


def test_vectors_are_sampled_like_scipy_does() -> None:
    rng = np.random.default_rng(0)
    for parts in (2, 3):
        field = rng.standard_normal((7, 8, 9, parts)).astype(np.float32)
        points = rng.uniform(-3, 20, (3, 200)).astype(np.float32)
        reference = [
            ndimage.map_coordinates(field[..., i], (points - 1) / 2, order=1, mode="nearest", output=np.float32)
            for i in range(parts)
        ]
        np.testing.assert_allclose(sample_vectors(field, points, (1.0, 1.0, 1.0), 2.0), reference, atol=1e-5)


def test_a_finer_grid_is_sampled_like_scipy_does() -> None:
    field = np.random.default_rng(0).standard_normal((2, 12 * 12)).astype(np.float32)
    for pixels in (12, 7, 30):
        index = (np.arange(pixels) + 0.5) * 12 / pixels - 0.5
        rows, columns = np.meshgrid(index, index, indexing="ij")
        reference = [
            ndimage.map_coordinates(part.reshape(12, 12), [rows, columns], order=1, mode="nearest").ravel()
            for part in field
        ]
        np.testing.assert_allclose(finer(field, pixels), reference, atol=1e-5)


def test_random_fields_have_unit_variance_and_do_not_depend_on_where_they_are_asked() -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (3, 40_000)).astype(np.float32)
    field = smooth_noise(np.random.default_rng(1), points, 6.0, 2)
    assert field.std(axis=1) == pytest.approx([1, 1], abs=0.05)
    assert abs(np.corrcoef(field)[0, 1]) < 0.05
    np.testing.assert_array_equal(smooth_noise(np.random.default_rng(1), points[:, 5:9], 6.0, 2), field[:, 5:9])


def test_positions_agree_with_the_template_file() -> None:
    path = Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    image = nibabel.nifti1.load(path)
    points = np.array([[8, -25, 0], [12, 5, -60], [14, 20, -50]], np.float32).T
    voxels = np.rint(nibabel.affines.apply_affine(np.linalg.inv(image.affine), points.T)).astype(int)
    volume = np.asanyarray(image.dataobj)
    anatomy = load_anatomy()
    np.testing.assert_allclose(sample(anatomy.t1, points, anatomy.origin), volume[tuple(voxels.T)] / 255, atol=1e-6)
    # Nothing of the brain is cut off: its border is empty on all sides.
    assert anatomy.t1.sum() == pytest.approx(volume.sum(dtype=float) / 255, rel=1e-5)
    for axis in range(3):
        assert not np.take(anatomy.t1, [0, -1], axis).any()


def test_structures_are_where_the_anatomy_has_them() -> None:
    anatomy = load_anatomy()
    inside = np.array([[-8, 14, 16], [8, 14, 16], [-10, -10, 22], [10, -10, 22], [24, -42, 10]], np.float32).T
    outside = np.array([[-25, 20, 24], [0, 40, 16], [0, -60, 16], [45, 5, 16], [14, 8, 8], [12, -18, 8]], np.float32).T
    assert (sample(anatomy.ventricles, inside, anatomy.origin) > 0.5).all()
    assert (sample(anatomy.ventricles, outside, anatomy.origin) < 0.1).all()
    hippocampus = np.array([[-28, -20, -16], [28, -20, -16], [-24, -12, -21], [30, -29, -9]], np.float32).T
    elsewhere = np.array([[0, -20, -16], [45, -20, -16], [28, 10, -16], [28, -60, -16], [25, -20, 5]], np.float32).T
    assert (sample(anatomy.hippocampi, hippocampus, anatomy.origin) > 0.5).all()
    assert (sample(anatomy.hippocampi, elsewhere, anatomy.origin) < 0.1).all()


def test_growth_swells_the_ventricles_and_leaves_the_skull() -> None:
    anatomy = load_anatomy()
    divergence = sum(np.gradient(anatomy.growth[..., axis], 2.0, axis=axis) for axis in range(3))
    ventricles = anatomy.ventricles[::2, ::2, ::2]
    brain = anatomy.brain[::2, ::2, ::2]
    assert divergence[ventricles > 0.9].mean() > 0.4
    assert abs(divergence[(ventricles < 0.01) & (brain > 0.9)].mean()) < 0.03
    assert not anatomy.growth[brain < 0.1].any()


def test_the_hippocampi_shrink_into_the_horns_and_nothing_else_moves() -> None:
    anatomy = load_anatomy()
    divergence = sum(np.gradient(anatomy.shrinkage[..., axis], 2.0, axis=axis) for axis in range(3))
    hippocampi, horns = anatomy.hippocampi[::2, ::2, ::2], anatomy.horns[::2, ::2, ::2]
    assert divergence[hippocampi > 0.9].mean() < -0.3
    assert divergence[horns > 0.5].mean() > 0.5
    assert np.abs(anatomy.shrinkage[..., 60:, :]).max() == 0
    low, high = anatomy.medial_temporal
    assert -50 < low < -25
    assert 0 < high < 25


def test_the_expected_lesion_volume_is_the_load() -> None:
    anatomy = load_anatomy()
    shape = anatomy.white.shape[:3]
    grid = np.meshgrid(*(np.arange(side)[::2] * 2.0 + start for side, start in zip(shape, anatomy.origin, strict=True)))
    points = np.stack([axis.ravel() for axis in grid]).astype(np.float32)
    for load in (2.0, 20.0):
        volumes = [lesion_share(seed, points, load, anatomy).sum() * 0.064 for seed in range(25)]
        assert np.mean(volumes) == pytest.approx(load, rel=0.25)
    assert not lesion_share(1, points, 0.0, anatomy).any()
    assert threshold_of(5.0, anatomy) > threshold_of(6.0, anatomy)
    # A larger load contains the smaller one, and begins at the ventricles.
    small, large = (lesion_share(1, points, load, anatomy) for load in (4.0, 30.0))
    assert (large >= small).all()
    prone = sample_vectors(anatomy.white, points, anatomy.origin, 2.0)[1]
    assert prone[small > 0.5].mean() > prone[large > 0.5].mean()


def test_effects_between_and_beyond_their_knots() -> None:
    assert published.of_severity((0.0, 1.0, 3.0, 5.0), 1.5) == 2
    assert published.of_severity((0.0, 1.0, 3.0, 5.0), 4.0) == 7
    assert published.ventricles_of_age(79) - published.ventricles_of_age(73) == pytest.approx(6 * 0.03)
    assert (published.head_scale("M") / published.head_scale("F")) ** 3 == pytest.approx(1.11)


def test_published_sizes_at_strength_1() -> None:
    person = SimulatedSubject("x", 1, 75.0, "F", "CN", strength=1.0)

    def under(diagnosis: str, severity: float = 0.0, age: float = 75.0, sex: str = "F") -> SimulatedSubject:
        return SimulatedSubject("x", 1, age, sex, diagnosis, severity=severity, strength=1.0)

    left, right = person.hippocampal_volumes()
    for diagnosis, losses in (("MCI", (0.129, 0.111)), ("AD", (0.242, 0.231))):
        found = under(diagnosis).hippocampal_volumes()
        assert (1 - found[0] / left, 1 - found[1] / right) == pytest.approx(losses)
    # A year of AD: 4.66 % of the hippocampus is lost, the ventricles gain 9 %.
    later = under("AD", published.PROGRESS_A_YEAR["AD"], age=76)
    assert np.log(later.hippocampal_volumes()[0] / under("AD").hippocampal_volumes()[0]) == pytest.approx(
        -0.0466, abs=0.0003
    )
    assert np.log(later.ventricle_volume() / under("AD").ventricle_volume()) == pytest.approx(0.09, abs=0.0005)
    women = person.ventricle_volume() * published.head_scale("F") ** 3
    men = under("CN", sex="M").ventricle_volume() * published.head_scale("M") ** 3
    assert women / men == pytest.approx(0.81)
    assert under("AD").sulcal_width() - person.sulcal_width() == pytest.approx(2 * 0.22)
    assert under("AD").lesion_load() / person.lesion_load() == pytest.approx(1.7)
    assert under("CN", age=87).lesion_load() / person.lesion_load() == pytest.approx(np.exp(0.06 * 12))
