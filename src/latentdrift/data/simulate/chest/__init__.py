"""A frontal chest radiograph from formulas: solids of an anatomy, the beam's way through each, and the exposure."""
