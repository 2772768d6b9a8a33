"""Simulated cohorts whose true counterfactuals are known: brains in T1-weighted MRI, and chest radiographs.

A simulated subject is an anatomy and a scan that follow from a seed, and attributes that act on the anatomy alone: for
a brain age, sex, diagnosis (CN, MCI, AD) and lesion load, for a chest age, sex, heart size, effusion and pneumonia. The
same subject under other attributes shares everything else, noise included, so the difference of two renderings is
exactly the change of anatomy. A scanner can be exchanged with the anatomy staying equal.

What the effects' sizes come from, what is left out, and what the simulator must not be used to claim: see
docs/simulator.md. In short, every brain descends from one average of healthy young adults and every chest from
formulas drawn by hand. They can show that a method recovers a known change. They cannot show that the change it finds
in a real scan is right, or how often.
"""

from __future__ import annotations

from latentdrift.data.simulate.chest.render import render_chest
from latentdrift.data.simulate.chest.subject import FINDINGS, LOBES, SimulatedChest
from latentdrift.data.simulate.cohort import simulate_cohort
from latentdrift.data.simulate.effects import DIAGNOSES
from latentdrift.data.simulate.kinds import render_subject, true_area
from latentdrift.data.simulate.measures import lesion_area, true_volumes, ventricle_area
from latentdrift.data.simulate.render import render
from latentdrift.data.simulate.scanners import SCANNERS, Scanner
from latentdrift.data.simulate.subject import SimulatedSubject
from latentdrift.data.simulate.template import template_slice
from latentdrift.data.simulate.truth import simulated_subject, true_counterfactual
from latentdrift.data.simulate.visits import follow_up
from latentdrift.data.simulate.volume import render_volume

__all__ = [
    "DIAGNOSES",
    "FINDINGS",
    "LOBES",
    "SCANNERS",
    "Scanner",
    "SimulatedChest",
    "SimulatedSubject",
    "follow_up",
    "lesion_area",
    "render",
    "render_chest",
    "render_subject",
    "render_volume",
    "simulate_cohort",
    "simulated_subject",
    "template_slice",
    "true_area",
    "true_counterfactual",
    "true_volumes",
    "ventricle_area",
]
