"""The text encoder's stand-in: every word is a fixed random vector drawn from a hash of the word."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING

from clora.api import CloraError, quoted

if TYPE_CHECKING:
    import torch

WIDTH = 128
MAX_TOKENS = 32
BOS = "<bos>"
# A trigger such as <sepia_RN8pcKD> is one token and keeps its case; everything else is a lower-cased word.
_TOKEN = re.compile(r"<[^<>\s]+>|[a-z0-9']+")


class PromptError(CloraError, ValueError):
    """A prompt that the model cannot read whole."""


def tokenise(prompt: str) -> list[str]:
    """Return BOS, then the words and triggers of a prompt; punctuation falls away."""
    pieces = re.split(r"(<[^<>\s]+>)", prompt)
    lowered = "".join(piece if piece.startswith("<") else piece.lower() for piece in pieces)
    return [BOS, *_TOKEN.findall(lowered)]


@cache
def vector(token: str) -> torch.Tensor:
    """Return the float32 [128] vector of a token, mean 0 and variance 1, the same on every machine."""
    import torch

    digest = hashlib.shake_256(token.encode()).digest(2 * WIDTH)
    normal = NormalDist()
    values = [
        normal.inv_cdf((int.from_bytes(digest[i : i + 2], "big") + 0.5) / 65536) for i in range(0, len(digest), 2)
    ]
    drawn = torch.tensor(values, dtype=torch.float64)
    drawn = (drawn - drawn.mean()) / drawn.std(correction=0)
    return drawn.float()


def encode(prompts: Sequence[str], length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return text float32 [B, L, 128] and mask bool [B, L], L the longest prompt or ``length``.

    Raises PromptError when a prompt has more tokens than ``length`` or than 32.
    """
    import torch

    tokens = [tokenise(prompt) for prompt in prompts]
    longest = max((len(row) for row in tokens), default=1)
    limit = MAX_TOKENS if length is None else length
    if longest > limit:
        prompt = next(p for p, row in zip(prompts, tokens, strict=True) if len(row) > limit)
        raise PromptError(f"prompt has more than {limit} tokens, its start of text included: {quoted(prompt)}")
    width = longest if length is None else length
    text = torch.zeros(len(tokens), width, WIDTH)
    mask = torch.zeros(len(tokens), width, dtype=torch.bool)
    for row, words in enumerate(tokens):
        text[row, : len(words)] = torch.stack([vector(word) for word in words])
        mask[row, : len(words)] = True
    return text, mask
