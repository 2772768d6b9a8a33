"""One denoising loop: prompts → images, and images ↔ noise."""

from latentdrift.generate.images import decode_latents, encode_images, generate_images
from latentdrift.generate.instructed import edit_by_instruction
from latentdrift.generate.inversion import inverse_scheduler, invert_images, invert_latents, steps_of_strength
from latentdrift.generate.loop import denoise, image_generators, start_noise
from latentdrift.generate.samplers import SAMPLERS, scheduler_like, use_sampler

__all__ = [
    "SAMPLERS",
    "decode_latents",
    "denoise",
    "edit_by_instruction",
    "encode_images",
    "generate_images",
    "image_generators",
    "inverse_scheduler",
    "invert_images",
    "invert_latents",
    "scheduler_like",
    "start_noise",
    "steps_of_strength",
    "use_sampler",
]
