"""Blinded reader studies: real or synthetic, which diagnosis, how good; built, served to readers, and read back."""
