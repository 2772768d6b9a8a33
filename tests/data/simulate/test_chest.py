from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from latentdrift.data.simulate import FINDINGS, LOBES, SimulatedChest, render_chest, true_area
from latentdrift.data.simulate.chest.findings import PLACES, fluid_share
from latentdrift.data.simulate.chest.render import lung_path
from latentdrift.data.simulate.chest.thorax import FIELD_OF_VIEW, Shape, Thorax
from latentdrift.errors import ConfigurationError, UnknownNameError

PEOPLE = [SimulatedChest.draw(index, seed=5) for index in range(8)]
PERSON = replace(PEOPLE[0], finding="NoFinding", side="left", view="PA")
LEFT, RIGHT = np.s_[:, 72:], np.s_[:, :56]
"""Halves of a picture of 128 pixels, without the spine. The person's left is on the right."""


def thorax_of(person: SimulatedChest, pixels: int = 256) -> Thorax:
    return Thorax(Shape.of(person), pixels)


def test_the_heart_is_as_wide_as_its_ratio_says() -> None:
    thorax = thorax_of(PERSON, 720)
    widths = []
    for ratio in (0.4, 0.5, 0.6):
        columns = np.flatnonzero((thorax.heart(ratio) > 0).any(axis=0))
        widths.append((np.ptp(columns) + 1) * FIELD_OF_VIEW / 720)
        assert widths[-1] / (2 * thorax.shape.half_width) == pytest.approx(ratio, abs=0.006)
        middle = np.mean((columns + 0.5) * FIELD_OF_VIEW / 720 - FIELD_OF_VIEW / 2)
        # About a third lies to the right of the midline, which is the left of the picture.
        assert 0.1 * widths[-1] < middle - thorax.shape.shift < 0.2 * widths[-1]
    assert 2 * thorax.half_width.max() == pytest.approx(2 * thorax.shape.half_width)


def test_a_larger_heart_is_seen_in_the_image() -> None:
    def bright_columns(image: np.ndarray) -> int:
        """Measure the heart without knowing the simulator: columns that are much brighter than the lungs."""
        row = ndimage.gaussian_filter(image, 1.0)[74:84].mean(axis=0)
        lungs = np.percentile(row[20:108], 10)
        return int((row[16:112] > (lungs + np.percentile(row[20:108], 90)) / 2).sum())

    seen = [bright_columns(render_chest(PERSON, heart_size=ratio)) for ratio in (0.40, 0.48, 0.56, 0.64)]
    assert seen == sorted(set(seen))


def test_the_fluid_has_its_volume_and_lies_below_a_meniscus() -> None:
    thorax = thorax_of(PERSON)
    lung = lung_path(thorax, 0.45)
    pixel = (FIELD_OF_VIEW / 256) ** 2
    before = np.zeros_like(lung)
    for millilitres in (100.0, 400.0, 1200.0):
        share = fluid_share(thorax, lung, "left", millilitres)
        assert (share * lung).sum() * pixel == pytest.approx(millilitres, rel=0.02)
        assert (share >= before).all()
        before = share
    # Higher at the wall than in the middle of the lung, and nothing on the other side.
    wall, middle = (np.argmax(share[:, column] > 0.5) for column in (208, 170))
    assert wall < middle
    assert not share[:, :120].any()
    assert fluid_share(thorax, lung, "right", 400.0)[:, :120].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_effusion_whitens_the_costophrenic_angle_of_its_side(side: str) -> None:
    person = replace(PERSON, side=side)
    half, other = (LEFT, RIGHT) if side == "left" else (RIGHT, LEFT)
    without = render_chest(person)
    means = [render_chest(person, effusion=volume)[half].mean() for volume in (0, 200, 600, 1500)]
    assert means == sorted(set(means))
    np.testing.assert_array_equal(render_chest(person, effusion=900)[other], without[other])
    # 200 mL is about what an upright frontal view needs: there, but little.
    area = [true_area(person, effusion=volume).sum() for volume in (50, 200, 1000)]
    assert area == sorted(set(area))


def test_findings_change_only_where_they_are() -> None:
    for person in PEOPLE[:4]:
        clear = render_chest(person, "NoFinding")
        for finding in FINDINGS[1:]:
            ill = render_chest(person, finding)
            area = true_area(replace(person, finding="NoFinding"), finding=finding)
            np.testing.assert_allclose(ill[~area], clear[~area], atol=1e-6)
            # Bit for bit, but for the last bit where what changed is too little to be seen without noise.
            assert (ill == clear)[~area].mean() > 0.995
            assert 0.005 < area.mean() < 0.45
            # What is ill is denser; noise and the display's ceiling take a little of that.
            assert (ill - clear)[area].mean() > 0.01
        np.testing.assert_array_equal(render_chest(person), render_chest(person, person.finding, age=person.age))
        assert not true_area(person, finding=person.finding).any()


def test_findings_are_visible_above_the_noise() -> None:
    for person in PEOPLE:
        clear = render_chest(person, "NoFinding")
        noise = np.abs(render_chest(replace(person, finding="NoFinding", scan=1)) - clear).mean()
        for finding in FINDINGS[1:]:
            ill = ndimage.gaussian_filter(render_chest(person, finding) - clear, 1.5)
            assert ill.max() > 3 * noise, (person.name, finding)


@pytest.mark.parametrize("lobe", LOBES)
def test_pneumonia_lies_in_its_lobe_and_grows(lobe: str) -> None:
    person = replace(PERSON, lobe=lobe)
    small, large = (true_area(person, opacity=extent) for extent in (0.4, 0.9))
    assert large.sum() > 1.3 * small.sum()
    assert (large | ~small).mean() > 0.995
    rows, columns = np.nonzero(large)
    share, middle, _, _ = PLACES[lobe]
    assert np.sign(columns.mean() - 64) == (1 if lobe.startswith("left") else -1) == np.sign(share)
    assert (rows.mean() / 128 - 0.5) * FIELD_OF_VIEW == pytest.approx(middle, abs=2.5)
    change = (render_chest(person, opacity=0.9, noise=0) - render_chest(person, noise=0))[large]
    # Soft: weak changes at the edge are as common as strong ones inside.
    assert np.percentile(change, 20) < 0.35 * change.max()


def test_it_looks_like_a_frontal_radiograph() -> None:
    for person in PEOPLE:
        image = render_chest(replace(person, view="PA"), "NoFinding", noise=0)
        assert image.shape == (128, 128)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        left_lung, right_lung = image[40:70, 84:100].mean(), image[40:70, 28:44].mean()
        spine, abdomen = image[30:60, 60:68].mean(), image[112:126, 40:88].mean()
        assert max(left_lung, right_lung) < 0.6 * min(spine, abdomen)
        # The heart is in the left half of the chest, the right dome is the higher one.
        assert image[76:84, 74:82].mean() > image[76:84, 46:54].mean()
        shape = Shape.of(person)
        assert shape.dome_right < shape.dome_left
        # Ribs: the lung's brightness goes up and down on the way down.
        profile = ndimage.gaussian_filter1d(image[30:84, 96], 0.7)
        assert (np.diff(np.sign(np.diff(profile))) != 0).sum() >= 6


def test_views_ages_and_sexes_differ() -> None:
    bedside = replace(PERSON, view="AP")
    # Chon 2011: 1 / (0.00099 * 100 + 0.79) times as wide from a distance of 1 m.
    assert bedside.heart_size() / PERSON.heart_size() == pytest.approx(1 / 0.889, rel=1e-6)
    assert replace(PERSON, age=80.0).heart_size() > replace(PERSON, age=30.0).heart_size()
    assert Shape.of(bedside).dome_right < Shape.of(PERSON).dome_right
    man, woman = Shape.of(replace(PERSON, sex="M")), Shape.of(replace(PERSON, sex="F"))
    assert man.half_width > woman.half_width
    assert woman.breast > 0 == man.breast
    for attributes in ({"view": "AP"}, {"age": 85.0}, {"sex": "F" if PERSON.sex == "M" else "M"}):
        assert true_area(PERSON, **attributes).mean() > 0.05


def test_same_seed_same_picture_and_another_exposure_other_noise() -> None:
    np.testing.assert_array_equal(render_chest(PERSON), render_chest(PERSON))
    again = replace(PERSON, scan=1)
    clean = np.abs(render_chest(PERSON, noise=0) - render_chest(again, noise=0)).mean()
    assert 0 < clean < 0.1
    assert np.abs(render_chest(PERSON) - render_chest(PERSON, noise=0)).mean() > 0.002
    assert np.abs(render_chest(PEOPLE[0]) - render_chest(PEOPLE[1])).mean() > 0.02
    # Twice the pixels show the same chest.
    double = render_chest(PERSON, size=256, noise=0).reshape(128, 2, 128, 2).mean((1, 3))
    assert np.corrcoef(double.ravel(), render_chest(PERSON, noise=0).ravel())[0, 1] > 0.995


def test_a_confounded_population() -> None:
    people = [SimulatedChest.draw(index, 3, age_correlation=0.5, bedside=0.3) for index in range(800)]
    ill = [person.finding != "NoFinding" for person in people]
    assert np.corrcoef([person.age for person in people], ill)[0, 1] == pytest.approx(0.5, abs=0.09)
    assert np.mean([person.view == "AP" for person in people]) == pytest.approx(0.3, abs=0.05)
    assert {person.view for person in PEOPLE} == {"PA"}


def test_bad_parameters() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'Effusion'"):
        render_chest(PERSON, "Efusion")
    for name, value in (("sex", "X"), ("view", "PAA"), ("side", "up"), ("lobe", "lower")):
        with pytest.raises(UnknownNameError, match=name):
            render_chest(PERSON, **{name: value})
    for name, value in (
        ("size", 8), ("age", 3), ("heart_size", 0.9), ("effusion", -1), ("opacity", 1.5), ("noise", -1),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=name):
            render_chest(PERSON, **{name: value})
    with pytest.raises(ConfigurationError, match="bedside"):
        SimulatedChest.draw(0, 0, bedside=2)
