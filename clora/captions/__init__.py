"""Captions of effects: the file they lie in, what makes an answer usable, and the asking (paper: AOP)."""
