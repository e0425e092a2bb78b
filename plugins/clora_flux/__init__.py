"""FLUX.1 Kontext through diffusers' own classes."""
