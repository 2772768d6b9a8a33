"""`tiny-brain`: the base model fine-tuned on real brain slices in four stages of dementia."""
