"""prepare -> train -> export -> evaluate -> report; each is skipped when its inputs have not changed."""
