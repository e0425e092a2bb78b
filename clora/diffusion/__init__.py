"""Rectified flow: noise and velocity, the two samplers, and the random numbers of a step."""
