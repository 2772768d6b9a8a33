from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from latentdrift.data.simulate import (
    DIAGNOSES,
    SCANNERS,
    Scanner,
    SimulatedSubject,
    follow_up,
    lesion_area,
    render,
    render_volume,
    true_area,
    true_volumes,
    ventricle_area,
)
from latentdrift.errors import ConfigurationError, UnknownNameError

PEOPLE = [SimulatedSubject.draw(index, seed=5) for index in range(6)]


def dark_centre(image: np.ndarray) -> int:
    """Count the dark pixels of the middle of the brain: the ventricles, measured without knowing the simulator."""
    rows, columns = np.nonzero(image > 0.1)
    top, left = rows.min(), columns.min()
    height, width = np.ptp(rows), np.ptp(columns)
    centre = image[top + int(0.25 * height) : top + int(0.68 * height), left + width // 3 : left + 2 * width // 3]
    return int((ndimage.gaussian_filter(centre, 0.5) < 0.35).sum())


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
def test_ventricles_grow_with_the_diagnosis_in_the_image_too(person: SimulatedSubject) -> None:
    areas = [ventricle_area(person, diagnosis) for diagnosis in DIAGNOSES]
    assert areas[0] < areas[1] < areas[2]
    assert 1.3 < areas[2] / areas[0] < 2.1
    seen = [dark_centre(render(person, diagnosis, size=208)) for diagnosis in DIAGNOSES]
    assert seen[0] < seen[1] < seen[2]
    # The image has 1 mm pixels at this size, so the pixels gained are the area gained, whatever else is dark.
    assert seen[2] - seen[0] == pytest.approx(areas[2] - areas[0], rel=0.45)


def test_every_effect_is_monotone_in_age_and_diagnosis() -> None:
    person = replace(PEOPLE[3], age=72.0)
    for measure in (ventricle_area, lesion_area):
        by_age = [measure(person, "MCI", age) for age in (55, 65, 75, 85, 95)]
        by_diagnosis = [measure(person, diagnosis) for diagnosis in DIAGNOSES]
        assert by_age == sorted(by_age)
        assert by_diagnosis == sorted(by_diagnosis)
        assert by_age[-1] > 1.5 * by_age[0]
    loads = [lesion_area(person, lesion_load=load) for load in (0, 1, 10, 60)]
    assert loads == sorted(loads)
    assert loads[0] == 0
    assert loads[-1] > 300


def test_age_widens_sulci_and_ventricles() -> None:
    person = replace(PEOPLE[0], diagnosis="CN")
    assert ventricle_area(person, age=90) > 1.1 * ventricle_area(person, age=55)
    young, old = render(person, age=55), render(person, age=90)
    brain = young > 0.15
    assert (old[brain] < 0.35).mean() > (young[brain] < 0.35).mean() + 0.02


@pytest.mark.slow
def test_volumes_follow_what_the_subject_is_said_to_have() -> None:
    """Measured by summing slices, against the logarithms in `effects.py`."""
    person = SimulatedSubject("x", 11, 70.0, "F", "CN", strength=1.0)
    normal = true_volumes(person, spacing=4.0)
    diseased, male = true_volumes(person, "AD", spacing=4.0), true_volumes(person, sex="M", spacing=4.0)
    assert diseased["ventricles"] / normal["ventricles"] == pytest.approx(1.45, rel=0.06)
    assert diseased["hippocampus_left"] / normal["hippocampus_left"] == pytest.approx(1 - 0.242, rel=0.06)
    assert diseased["hippocampus_right"] / normal["hippocampus_right"] == pytest.approx(1 - 0.231, rel=0.06)
    assert male["brain"] / normal["brain"] == pytest.approx(1.11, rel=0.03)
    assert normal["ventricles"] / male["ventricles"] == pytest.approx(0.81, rel=0.06)
    assert diseased["brain"] == pytest.approx(normal["brain"], rel=1e-6)
    assert diseased["lesions"] > normal["lesions"]
    assert 1000 < normal["brain"] < 2200
    assert 10 < normal["ventricles"] < 60


def test_the_left_ventricle_can_be_larger_than_the_right() -> None:
    def left_share(asymmetry: float) -> float:
        person = replace(PEOPLE[1], asymmetry=asymmetry, ventricle=0.3)
        image = render(person, "AD", size=208, noise=0, lesion_load=0)
        dark = (image[60:150] < 0.3) & (image[60:150] > 0)
        return dark[:, 74:104].sum() / dark[:, 74:134].sum()

    assert left_share(0.4) > left_share(0.0) + 0.01
    assert left_share(0.0) > left_share(-0.4) + 0.01


def test_counterfactual_keeps_everything_but_anatomy() -> None:
    person = PEOPLE[1]
    normal, diseased = render(person, "CN"), render(person, "AD")
    np.testing.assert_array_equal(render(person, person.diagnosis, person.age), render(person))
    change = np.abs(diseased - normal)
    assert change.max() > 0.3
    # The background stays bit-identical; white matter moves but keeps its noise and shading, so most changes are small.
    assert not change[normal == 0].any()
    assert np.median(change[normal > 0.2]) < 0.045
    # Another noise realisation alone would differ by more than that: the noise is shared.
    blank = replace(person, seed=person.seed + 1)
    assert np.median(np.abs(render(blank, "CN") - normal)[normal > 0.2]) > 0.06


def test_lesions_change_nothing_but_lesions() -> None:
    person = PEOPLE[4]
    without, with_lesions = render(person, lesion_load=0), render(person, lesion_load=25)
    area = true_area(replace(person), lesion_load=0)
    assert true_area(person, diagnosis=person.diagnosis).sum() == 0
    changed = without != with_lesions
    assert 50 < changed.sum() < 1500
    assert area.any()
    # Lesions are dark in T1, and lie where it was bright before.
    assert (with_lesions[changed] < without[changed]).mean() > 0.95
    assert without[changed].mean() > 0.6
    outside = ~ndimage.binary_dilation(changed, iterations=2)
    np.testing.assert_array_equal(with_lesions[outside], without[outside])


def test_another_scanner_shows_the_same_anatomy() -> None:
    person = PEOPLE[2]
    own = render(person, noise=0, bias=0)
    brain = own > 0.1
    for name in SCANNERS:
        other = render(person, scanner=name, noise=0, bias=0)
        np.testing.assert_array_equal(other > 0, own > 0)
        assert np.corrcoef(own[brain], other[brain])[0, 1] > 0.9
    np.testing.assert_array_equal(render(replace(person, scanner="sharp-3T")), render(person, scanner="sharp-3T"))
    np.testing.assert_array_equal(render(person, scanner=Scanner("mine", 1.5)), render(person))
    contrasts = {
        name: np.ptp(np.percentile(render(person, scanner=name, noise=0, bias=0)[brain], [40, 90]))
        for name in ("soft-1T", "standard-1.5T", "sharp-3T")
    }
    assert contrasts["soft-1T"] < contrasts["standard-1.5T"] < contrasts["sharp-3T"]


def test_noise_is_rician_and_of_the_strength_asked_for() -> None:
    """Where the signal is high, a Rician deviates as its normal channels do: Gudbjartsson and Patz 1995."""
    person = PEOPLE[2]
    clean = render(person, noise=0)
    middle = (clean > 0.6) & (clean < 0.9)
    for noise in (0.01, 0.04):
        scans = np.stack([render(replace(person, scan=scan), noise=noise, bias=0) for scan in range(6)])
        # Gain differs from scan to scan and blotches have the same deviation as the noise: sqrt(1 + 0.75 ** 2).
        scans /= np.median(scans[:, middle], axis=1)[:, None, None] / np.median(scans[:, middle])
        assert scans.std(axis=0, ddof=1)[middle].mean() == pytest.approx(1.25 * noise, rel=0.15)
    assert np.abs(render(person, noise=0.04) - render(person, noise=0.04)).max() == 0


def test_shading_grows_with_its_strength() -> None:
    person = replace(PEOPLE[2], scan=1)
    flat = render(person, noise=0, bias=0)
    brain = flat > 0.5
    shaded = [render(person, noise=0, bias=bias)[brain] / flat[brain] for bias in (1, 3)]
    assert np.std(shaded[1]) == pytest.approx(3 * np.std(shaded[0]), rel=0.25)


def test_a_volume_is_its_slices() -> None:
    person = replace(PEOPLE[0], slice_mm=14.0)
    volume, affine = render_volume(person, heights=(10.0, 18.0))
    assert volume.shape == (104, 104, 5)
    np.testing.assert_array_equal(volume[..., 2], render(person, size=104)[::-1].T)
    np.testing.assert_array_equal(affine @ [0, 0, 2, 1], [-103, -121, 14, 1])
    np.testing.assert_array_equal(affine @ [103, 103, 0, 1], [103, 85, 10, 1])
    # The person's left, of negative x, is on the right of the picture when x runs to the right: no mirror image.
    diseased, _ = render_volume(person, heights=(14.0, 14.0), diagnosis="AD", noise=0)
    np.testing.assert_array_equal(diseased[..., 0], render(person, "AD", size=104, noise=0)[::-1].T)


def test_a_whole_brain() -> None:
    person = PEOPLE[0]
    volume, affine = render_volume(person, spacing=4.0, noise=0, bias=0)
    assert volume.shape == (52, 52, 42)
    for axis in range(3):
        assert not np.take(volume, [0, -1], axis).any()
    # The brain of the volume is as large as the outline says, and lies around the middle of the head.
    inside = volume > 0.05
    assert inside.sum() * 0.064 == pytest.approx(true_volumes(person, spacing=4.0)["brain"], rel=0.05)
    centre = affine @ [*np.mean(np.nonzero(inside), axis=1), 1]
    np.testing.assert_allclose(centre[:3], [0, -20, 6], atol=10)


def test_neighbouring_slices_are_one_brain() -> None:
    person = PEOPLE[3]
    slices = [render(person, noise=0, bias=0, height=height) for height in (14.0, 15.0, 30.0)]
    brain = slices[0] > 0.1
    near = np.abs(slices[0] - slices[1])[brain].mean()
    far = np.abs(slices[0] - slices[2])[brain].mean()
    assert near < 0.35 * far
    assert render(person, height=-75.0).max() < render(person, height=0.0).max()


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
    assert (image[:3] == 0).all()
    assert (image[:, :6] == 0).all()
    assert 0.3 < (image > 0.1).mean() < 0.6
    # Fluid is dark, white matter the brightest.
    assert np.percentile(image[image > 0.05], 3) < 0.25
    assert np.percentile(image[image > 0.05], 90) > 0.6


def test_visits_are_one_person_growing_older() -> None:
    person = replace(PEOPLE[1], diagnosis="CN", age=70.0)
    visits = follow_up(person, 5, 2.0)
    assert visits[0] == person
    assert [visit.age for visit in visits] == [70, 72, 74, 76, 78]
    assert {(visit.seed, visit.sex, visit.slice_mm) for visit in visits} == {(person.seed, person.sex, person.slice_mm)}
    areas = [ventricle_area(visit) for visit in visits]
    assert areas == sorted(areas)
    assert follow_up(person, 3, 2.0) == visits[:3]
    # The same anatomy at another visit differs in its scan's noise alone.
    again = replace(person, scan=3)
    assert (render(person) != render(again))[render(person) > 0.1].mean() > 0.9
    assert ((render(person, noise=0, bias=0) > 0.2) != (render(again, noise=0, bias=0) > 0.2)).mean() < 0.02
    assert ventricle_area(person) == ventricle_area(again)


def test_longitudinal_rates_are_those_asked_for() -> None:
    drawn = [SimulatedSubject.draw(index, seed=8, strength=1.0) for index in range(1500)]
    people = [replace(person, age=74.0) for person in drawn]
    for diagnosis, hippocampus, ventricles in (("CN", -0.0141, 0.03), ("AD", -0.0466, 0.09)):
        both = [follow_up(replace(person, diagnosis=diagnosis), 2, convert=False) for person in people[:600]]
        loss = [np.log(b.hippocampal_volumes()[0] / a.hippocampal_volumes()[0]) for a, b in both]
        gain = [np.log(b.ventricle_volume() / a.ventricle_volume()) for a, b in both]
        # The rates of decline are log-normal with mean exp(0.3 ** 2 / 2) = 1.046.
        assert np.mean(loss) == pytest.approx(1.046 * hippocampus, rel=0.05)
        assert np.mean(gain) == pytest.approx(1.046 * ventricles, rel=0.05)
        assert np.std(loss) > 0.2 * abs(hippocampus)


def test_conversions_happen_at_their_rate_and_without_a_jump() -> None:
    people = [replace(SimulatedSubject.draw(index, seed=8), diagnosis="MCI") for index in range(1500)]
    visits = [follow_up(person, 6) for person in people]
    assert np.mean([path[1].diagnosis == "AD" for path in visits]) == pytest.approx(0.081, abs=0.02)
    converted = np.mean([path[5].diagnosis == "AD" for path in visits])
    assert converted == pytest.approx(1 - (1 - 0.081) ** 5, abs=0.035)
    order = {name: number for number, name in enumerate(DIAGNOSES)}
    for path in visits:
        assert [order[visit.diagnosis] for visit in path] == sorted(order[visit.diagnosis] for visit in path)
        stages = [visit.stage for visit in path]
        assert stages == sorted(stages)
        assert all(order[visit.diagnosis] <= visit.stage for visit in path)
    late = next(path for path in visits if path[4].diagnosis == "AD" and path[3].diagnosis == "MCI")
    assert np.diff([visit.stage for visit in late[:5]]) == pytest.approx([0.25] * 4, abs=1e-3)
    stable = [follow_up(person, 4, convert=False)[-1].diagnosis for person in people[:50]]
    assert set(stable) == {"MCI"}


def test_a_confounded_population() -> None:
    for wanted in (0.6, -0.4, 0.0):
        people = [SimulatedSubject.draw(index, 3, age_correlation=wanted) for index in range(900)]
        found = np.corrcoef([p.age for p in people], [DIAGNOSES.index(p.diagnosis) for p in people])[0, 1]
        assert found == pytest.approx(wanted, abs=0.08)
        assert {p.age for p in people} <= set(range(55, 91))


def test_bad_parameters() -> None:
    person = PEOPLE[0]
    with pytest.raises(UnknownNameError, match="Did you mean 'MCI'"):
        render(person, "MCII")
    with pytest.raises(UnknownNameError, match="sex"):
        replace(person, sex="X")
    with pytest.raises(UnknownNameError, match="sharp-3T"):
        render(person, scanner="sharp-3")
    for age in (12, float("nan")):
        with pytest.raises(ConfigurationError, match="50 to 100"):
            render(person, age=age)
    for name, value in (("size", 4), ("lesion_load", -1), ("lesion_load", 101), ("height", 200), ("noise", 3)):
        with pytest.raises(ConfigurationError, match=name):
            render(person, **{name: value})
    for name, value in (("slice_mm", 80), ("strength", -1), ("severity", 9), ("ventricle", float("inf"))):
        with pytest.raises(ConfigurationError, match=name):
            replace(person, **{name: value})
    with pytest.raises(ConfigurationError, match="spacing"):
        render_volume(person, spacing=3.0)
    with pytest.raises(ConfigurationError, match="heights"):
        render_volume(person, heights=(20, 10))
    with pytest.raises(ConfigurationError, match="at least 1 visit"):
        follow_up(person, 0)
    with pytest.raises(ConfigurationError, match="more than 10 years"):
        follow_up(person, 7, 2.0)
    with pytest.raises(ConfigurationError, match="years_between"):
        follow_up(person, 2, 0.0)
    with pytest.raises(ConfigurationError, match="age_correlation"):
        SimulatedSubject.draw(0, 0, age_correlation=2)
    with pytest.raises(ConfigurationError, match="contrast"):
        Scanner("mine", 3.0, contrast=9)
