from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec

from latentdrift.data.scan import Plane, Volume
from latentdrift.data.volumes.cut import PLANES, Cut, around, choose_cuts, cut_at, pick_cuts, plane_of
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
CH2 = Path("/usr/share/mricron/templates/ch2.nii.gz")


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    matrix = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[world, axis] = sign * spacing[axis]
    return from_matvec(matrix, [-12.0, 7.0, 31.0])


def head(shape: tuple[int, int, int], affine: np.ndarray, centre: np.ndarray, radius: float) -> Volume:
    """A ball of 100 in a background of 3."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    inside = np.linalg.norm(apply_affine(affine, index) - centre, axis=-1) <= radius
    return Volume(np.where(inside, 100, 3).astype(np.float32), affine, "MR")


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_slices_of_every_orientation_are_seen_alike_and_go_back_to_the_bit(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    affine = affine_of(order, signs, (1.0, 1.5, 3.0))
    voxels = np.random.default_rng(1).integers(0, 999, (4, 5, 6)).astype(np.int16)
    volume = Volume(voxels.astype(np.float32), affine)
    for plane, (normal, up, side) in PLANES.items():
        for display in ("neurological", "radiological"):
            cut = cut_at(volume, plane, 2, display)
            shown = cut.take(voxels)
            for row, column in ((0, 0), (0, shown.shape[1] - 1), (shown.shape[0] - 1, 1)):
                voxel = cut.voxel_of(voxels.shape, row, column)
                assert voxels[voxel] == shown[row, column]
                world = apply_affine(affine, voxel)
                below = apply_affine(affine, cut.voxel_of(voxels.shape, row + 1, column))
                right = apply_affine(affine, cut.voxel_of(voxels.shape, row, column + 1))
                # Down the image is away from `up`; right of the image is towards `side`, or away in radiology.
                step_down, step_right = np.zeros(3), np.zeros(3)
                step_down[up], step_right[side] = (
                    -cut.spacing[0],
                    cut.spacing[1] * (1 if display == "neurological" else -1),
                )
                np.testing.assert_allclose(below - world, step_down, atol=1e-9)
                np.testing.assert_allclose(right - world, step_right, atol=1e-9)
                assert world[normal] == pytest.approx(cut.position)
            again = voxels.copy()
            cut.put(again, cut.take(voxels).copy())
            assert again.tobytes() == voxels.tobytes()
            other = np.random.default_rng(2).integers(0, 999, shown.shape).astype(np.int16)
            cut.put(again, other)
            np.testing.assert_array_equal(cut.take(again), other)
            assert np.count_nonzero(again != voxels) <= other.size
            rest = np.delete(again, cut.index, cut.axis), np.delete(voxels, cut.index, cut.axis)
            np.testing.assert_array_equal(*rest)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
@pytest.mark.parametrize("plane", PLANES)
def test_a_mark_in_the_world_is_found_where_it_belongs(
    order: tuple[int, ...], signs: tuple[int, ...], plane: str
) -> None:
    affine = affine_of(order, signs, (2.0, 2.0, 2.0))
    volume = head((40, 40, 40), affine, apply_affine(affine, [20, 20, 20]), 30)
    voxel = (17, 25, 22)
    volume.voxels[voxel] = 5000
    world = apply_affine(affine, voxel)
    (cut,) = choose_cuts(volume, plane, (world[PLANES[plane][0]],))
    row, column = np.unravel_index(plane_of(volume, cut).pixels.argmax(), cut.take(volume.voxels).shape)
    assert cut.voxel_of(volume.voxels.shape, int(row), int(column)) == voxel


@pytest.mark.parametrize("plane", PLANES)
def test_a_ball_stays_round_with_unequal_spacing(plane: str) -> None:
    affine = from_matvec(np.diag([0.8, 2.0, 3.2]), [-60, -80, -70])
    volume = head((160, 80, 45), affine, np.array([2.0, -3, 1]), 50)
    (cut,) = choose_cuts(volume, plane, (0.0,), reference="centre")
    seen = plane_of(volume, cut)
    image = Placement.of(seen, 256, 3, 100).show(seen.pixels)
    # Second moments of a disc: equal along both axes.
    rows, columns = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    spread = [np.sqrt(np.average((a - np.average(a, weights=image)) ** 2, weights=image)) for a in (rows, columns)]
    assert spread[0] / spread[1] == pytest.approx(1, abs=0.02)
    pixel = Placement.of(seen, 256, 3, 100).pixel
    assert 2 * spread[0] * pixel == pytest.approx(50, rel=0.03)


def test_references(tmp_path: Path) -> None:
    affine = affine_of((2, 0, 1), (-1, 1, -1), (1.5, 2.0, 2.5))
    centre = apply_affine(affine, [33, 27, 30])
    volume = head((70, 60, 60), affine, centre, 45)
    for plane, (normal, _, _) in PLANES.items():
        step = abs(affine[normal]).max()
        for position in (-20.0, 0.0, 13.0):
            (cut,) = choose_cuts(volume, plane, (position,), reference="centre")
            assert abs(cut.position - centre[normal] - position) <= step / 2 + 1
            (cut,) = choose_cuts(volume, plane, (centre[normal] + position,), reference="origin")
            assert abs(cut.position - centre[normal] - position) <= step / 2 + 1e-9
    (cut,) = choose_cuts(volume, "axial", (-30.0,), reference="top")
    assert abs(cut.position - (centre[2] + 45 - 30)) <= 2.5
    with pytest.raises(ConfigurationError, match="coronal slices cannot be counted from the top"):
        choose_cuts(volume, "coronal", (0.0,), reference="top")
    for wrong in ({"plane": "axail"}, {"reference": "center"}, {"display": "mirror"}):
        with pytest.raises(UnknownNameError, match="Did you mean|Known"):
            choose_cuts(volume, **{"plane": "axial", "positions": (0.0,), **wrong})


def test_shoulders_do_not_move_the_centre_of_the_head_and_specks_not_its_top() -> None:
    affine = from_matvec(np.diag([4.0, 4, 4]), [-100, -100, -240])
    with_body = head((50, 50, 90), affine, np.array([0.0, 0, 0]), 80)
    (alone,) = choose_cuts(with_body, "axial", (0.0,), reference="centre")
    with_body.voxels[:, :, :30] = 90  # to 122 mm below the middle of the head
    with_body.voxels[24:27, 24:27, 30:42] = 90
    with_body.voxels[10, 10, 88] = 500
    (cut,) = choose_cuts(with_body, "axial", (0.0,), reference="centre")
    assert abs(cut.position - alone.position) <= 4
    (cut,) = choose_cuts(with_body, "axial", (-40.0,), reference="top")
    assert abs(cut.position - 40) <= 4


def test_tilted_heads_are_cut_where_the_slice_passes_their_centre() -> None:
    angle = np.deg2rad(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = from_matvec(turn @ np.diag([2.0, 2, 2]), [-80, -30, -90])
    centre = apply_affine(affine, [40, 20, 45])  # well off the middle of the field of view
    volume = head((80, 90, 90), affine, centre, 38)
    (cut,) = choose_cuts(volume, "axial", (0.0,), reference="centre")
    seen = plane_of(volume, cut)
    assert cut.index == 45
    assert seen.facts["tilt_degrees"] == pytest.approx(20, abs=1e-3)


def test_slices_with_too_little_in_them_are_refused_by_name() -> None:
    affine = from_matvec(np.diag([2.0, 2, 2]), [-60, -60, -60])
    volume = head((60, 60, 60), affine, np.zeros(3), 40)
    positions = (0.0, 39.5, 55.0, 80.0, 0.5)
    cuts, refused = pick_cuts(volume, "axial", positions, least_foreground=0.05)
    assert list(cuts) == [0.0]
    assert [refusal.name for refusal in refused] == [f"axial slice at {p:+g} mm" for p in positions[1:]]
    for refusal, reason in zip(
        refused, ("foreground", "0.0% of it", "reaches from -60 to 58 mm", r"+0 mm too"), strict=True
    ):
        assert reason in refusal.reason
    with pytest.raises(DataError, match=r"axial slice at \+55 mm: 0\.0% of it.*axial slice at \+80 mm"):
        choose_cuts(volume, "axial", (0.0, 55.0, 80.0))
    with pytest.raises(DataError, match="constant"):
        choose_cuts(Volume(np.ones((4, 4, 4), np.float32), np.eye(4)), "axial", (0.0,))


def test_around_is_even() -> None:
    assert around(4, 3) == (-4, 0, 4)
    assert around(5, 2) == (-2.5, 2.5)
    for wrong in ((0.0, 3), (1.0, 0), (float("nan"), 2)):
        with pytest.raises(ConfigurationError):
            around(*wrong)


def test_what_cannot_be_put_back_is_refused() -> None:
    cut = cut_at(Volume(np.zeros((4, 5, 6), np.float32), np.eye(4)), "axial", 2)
    voxels = np.zeros((4, 5, 6), np.int16)
    with pytest.raises(DataError, match=r"\(2, 2\); its place in the volume is \(5, 4\)"):
        cut.put(voxels, np.zeros((2, 2), np.int16))
    with pytest.raises(DataError, match="float32 do not fit into voxels of int16"):
        cut.put(voxels, np.zeros((5, 4), np.float32))
    with pytest.raises(DataError, match="no plane 2 along axis 2"):
        cut.take(voxels[:, :, :2])
    with pytest.raises(DataError, match="no axial slice 6"):
        cut_at(Volume(np.zeros((4, 5, 6), np.float32), np.eye(4)), "axial", 6)


def test_cuts_are_remembered_as_json() -> None:
    cut = cut_at(Volume(np.zeros((4, 5, 6), np.float32), affine_of((1, 2, 0), (1, -1, 1), (1, 2, 3))), "coronal", 1)
    found = json.loads(json.dumps(cut.to_dict()))
    assert Cut.from_dict(found) == cut
    for name, wrong in (("plane", "up"), ("spacing", 3), ("index", -1), ("axis", "x"), ("position", None), ("axis", 3)):
        with pytest.raises((DataError, UnknownNameError)):
            Cut.from_dict({**found, name: wrong})
        with pytest.raises(DataError, match="no cut of a volume"):
            Cut.from_dict({key: value for key, value in found.items() if key != name})


def test_a_plane_is_a_copy_with_the_facts_of_its_volume() -> None:
    volume = Volume(
        np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.diag([1.0, 2, 3, 1]), "CT", {"bits": 12, "window": (0, 80)}
    )
    cut = cut_at(volume, "axial", 1)
    plane = plane_of(volume, cut)
    assert isinstance(plane, Plane)
    assert (plane.spacing, plane.modality, plane.bits, plane.window) == ((2.0, 1.0), "CT", 12, (0.0, 80.0))
    assert Cut.from_dict(plane.facts["cut"]) == cut
    plane.pixels[:] = 0
    assert volume.voxels.any()


@pytest.mark.skipif(not CH2.is_file(), reason="Debian's mricron-data is not installed")
def test_a_real_head_looks_as_the_template_does() -> None:
    """The same MNI plane of ch2 and of nilearn's template are alike, and less so when mirrored or turned."""
    from latentdrift.data.formats.nifti import read_nifti
    from latentdrift.data.simulate.template import template_slice

    volume = read_nifti(CH2, modality="MR")
    (cut,) = choose_cuts(volume, "axial", (18.0,))
    assert cut.position == 18
    seen = plane_of(volume, cut)
    image = Placement.of(seen, 104, 0, 200, extent=208).show(seen.pixels)
    expected = template_slice(18.0, size=104)
    inside = expected > 0.05

    def likeness(shown: np.ndarray) -> float:
        # The template's window is centred 18 mm behind the origin; ch2's field of view elsewhere: allow for the shift.
        shifts = [np.roll(shown, shift, 0) for shift in range(-6, 7)]
        return max(float(np.corrcoef(shifted[inside], expected[inside])[0, 1]) for shifted in shifts)

    upright = likeness(image)
    assert upright > 0.5
    assert upright > likeness(image[::-1]) + 0.1
    centre = choose_cuts(volume, "axial", (0.0,), reference="centre")[0].position
    assert -15 < centre < 25
    assert 60 < choose_cuts(volume, "axial", (-20.0,), reference="top")[0].position < 90
