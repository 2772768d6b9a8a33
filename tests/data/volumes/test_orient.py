from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec

from latentdrift.data.scan import Volume
from latentdrift.data.volumes.orient import axis_codes, closest_axes, tilt_degrees, to_ras, voxel_spacing
from latentdrift.errors import DataError

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(
    order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...] = (1.0, 1.5, 3.0)
) -> np.ndarray:
    matrix = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[world, axis] = sign * spacing[axis]
    return from_matvec(matrix, [-12.0, 7.0, 31.0])


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_codes_and_turning_agree_with_nibabel(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    affine = affine_of(order, signs)
    voxels = np.random.default_rng(1).normal(size=(4, 5, 6)).astype(np.float32)
    assert axis_codes(affine) == "".join(nibabel.aff2axcodes(affine))
    assert tilt_degrees(affine) == 0
    turned = to_ras(Volume(voxels, affine))
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels, affine))
    np.testing.assert_array_equal(turned.voxels, expected.get_fdata().astype(np.float32))
    np.testing.assert_allclose(turned.affine, expected.affine)
    assert turned.facts["axes"] == "RAS"
    assert np.shares_memory(turned.voxels, voxels)


def test_tilted_and_sheared_affines_agree_with_nibabel() -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    for seed in range(200):
        turn = Rotation.random(random_state=seed).as_matrix()
        shear = np.eye(3) + np.triu(rng.uniform(-0.2, 0.2, (3, 3)), 1)
        affine = from_matvec(turn @ shear @ np.diag(rng.uniform(0.3, 6, 3)), rng.normal(0, 50, 3))
        assert axis_codes(affine) == "".join(nibabel.aff2axcodes(affine))
        np.testing.assert_allclose(voxel_spacing(affine), nibabel.affines.voxel_sizes(affine))


def test_tilt_is_the_angle() -> None:
    for degrees in (0.0, 5.0, 30.0, 44.0):
        angle = np.deg2rad(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        assert tilt_degrees(from_matvec(turn @ np.diag([1.0, 2, 5]))) == pytest.approx(degrees, abs=1e-5)
        assert tilt_degrees(from_matvec(turn)) == pytest.approx(
            nibabel.affines.obliquity(from_matvec(turn)).max() * 180 / np.pi, abs=1e-4
        )


def test_every_voxel_keeps_its_place() -> None:
    affine = affine_of((2, 0, 1), (-1, 1, -1))
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    turned = to_ras(Volume(voxels, affine))
    for value in range(24):
        before = apply_affine(affine, np.argwhere(voxels == value)[0])
        np.testing.assert_allclose(apply_affine(turned.affine, np.argwhere(turned.voxels == value)[0]), before)


def test_a_singular_affine_is_refused() -> None:
    with pytest.raises(DataError, match="singular"):
        closest_axes(np.array([[1.0, 2, 1, 0], [1, 2, 0, 0], [1, 2, 0, 0], [0, 0, 0, 1]]))
