"""A simulated cohort whose true counterfactuals are known.

What it models: skull-stripped axial T1-weighted slices through the lateral ventricles, deformed from the MNI152
template. A person is a smooth random deformation in three dimensions, a height of the slice, a sulcal width and a
deviation in ventricular volume. Age and diagnosis (CN, MCI, AD) act on the anatomy alone: the ventricles grow as a
flow whose divergence is positive inside them, and the sulci widen as the cortex thins. Coil shading, contrast and
Rician noise belong to the scan. The same person under another diagnosis or age shares all of that, noise included, so
the difference of two renderings is exactly the change of anatomy.

What it must not be used to claim: anything about patients. Every brain descends from one average of healthy young
adults. The effects are a few deterministic numbers (`subject.py`), chosen by hand to be seen in one slice and not
fitted to data; hippocampus, lesions, asymmetry, vessels, other diseases and scanners are not modelled; age, sex and
diagnosis are independent in a simulated cohort, as they are not in a clinic. It can show that a method recovers a
known change. It cannot show that the change it finds in a real scan is right, or how often.

Reference: Karacali and Davatzikos, "Simulation of tissue atrophy using a topology preserving transformation model",
IEEE Transactions on Medical Imaging, 2006, for atrophy as prescribed volume change.
"""

from __future__ import annotations

from latentdrift.data.simulate.cohort import simulate_cohort, simulated_subject, true_counterfactual
from latentdrift.data.simulate.render import render, ventricle_area
from latentdrift.data.simulate.subject import DIAGNOSES, SimulatedSubject
from latentdrift.data.simulate.template import template_slice

__all__ = [
    "DIAGNOSES",
    "SimulatedSubject",
    "render",
    "simulate_cohort",
    "simulated_subject",
    "template_slice",
    "true_counterfactual",
    "ventricle_area",
]
