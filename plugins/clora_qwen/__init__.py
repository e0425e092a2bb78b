"""Qwen-Image-Edit through diffusers' own classes."""
