"""The words under `memory:` of which several rooms know the meaning."""

from __future__ import annotations

from typing import Literal

#: how the weights of the blocks' linears are kept; fp8, int8 and nf4 are multiplied out where they are used
Weights = Literal["fp32", "bf16", "fp8", "int8", "nf4"]
Quantizer = Literal["own", "torchao", "bitsandbytes"]
