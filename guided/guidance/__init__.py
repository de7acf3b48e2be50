"""The loops: optimise a latent, denoise under guidance, decode words."""
