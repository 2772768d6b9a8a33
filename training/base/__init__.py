"""The embedded base model `tiny`: autoencoder, then U-Net with text encoder, on natural photographs only."""
