"""Measures every way to cut the kernels' work at a linear's shape, and keeps the quickest for later launches.

`python -m clora_triton.tuning --in 3072 --out 12288 --rows 4096 --rank 128` does it on a GPU (a minute or two a shape,
most of it compiling), keeps what it found on disk, and prints it; `load` brings it back. Without it, launches take
the configuration that `configs.default` reasons out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import torch
from attrs import asdict, frozen

from clora_triton.backward import backward_s_and_db, da
from clora_triton.choices import Choices, cache_folder
from clora_triton.configs import CONFIGS, TUNED, Config, Work, fitting, outer_work
from clora_triton.expand import expand_add
from clora_triton.fused import fused_dx, fused_linear
from clora_triton.launching import Factors
from clora_triton.shrink import shrink

#: seconds of a call
Timer = Callable[[Callable[[], object]], float]


@frozen
class Job:
    """One kernel at one shape, to be launched with any configuration."""

    work: Work
    launch: Callable[[Config | None], object]


def jobs(x: torch.Tensor, weight: torch.Tensor, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> Iterator[Job]:
    """Every kernel that a LoRA linear x [M, in] with weight [out, in] launches, its rows shared among the adapters."""
    (m, inner), width, count = x.shape, weight.shape[0], len(a)
    which = list(range(count))
    rows = [m // count + (index < m % count) for index in which]
    scales = [1.0] * count
    dy = x.new_ones(m, width)
    s = shrink(x, a, which, rows)
    of_a, of_b = Factors.of("a", a, 1, inner, x), Factors.of("b", b, 0, width, dy)
    yield Job(of_a.work("shrink", x, m, inner), lambda c: shrink(x, a, which, rows, config=c))
    for work, factors in ((of_b.work("expand", x, m, width), b), (of_a.work("expand", x, m, inner), [f.T for f in a])):
        y = x.new_zeros(m, work.width)
        yield Job(work, lambda c, y=y, f=factors: expand_add(y, s, f, None, which, rows, config=c))
    yield Job(
        of_b.work("fused", x, m, width, inner),
        lambda c: fused_linear(x, weight, None, s, b, scales, which, rows, config=c),
    )
    if inner != width:  # a square one's dx has the key of its y
        yield Job(of_a.work("fused", x, m, inner, width), lambda c: fused_dx(dy, weight, s, a, which, rows, config=c))
    yield Job(of_b.work("backward", dy, m, width), lambda c: backward_s_and_db(dy, s, b, scales, which, rows, config=c))
    ranks = [factor.shape[0] for factor in a]
    yield Job(outer_work(x, m, inner, max(ranks)), lambda c: da(s, x, which, rows, ranks, config=c))


def tune(job: Job, device: torch.device, timer: Timer, choices: Choices | None = None) -> dict[Config, float]:
    """Seconds of every configuration that runs here; the quickest is used from now on, and kept in `choices`.

    One that the device refuses (too much shared memory, say) is left out.
    """
    seconds: dict[Config, float] = {}
    for config in fitting(job.work, device):
        try:
            seconds[config] = timer(lambda c=config: job.launch(c))
        except Exception as error:  # a compiler that cannot raises anything
            if choices is not None:
                choices.say(f"{name_of(config)} does not run here: {type(error).__name__}: {error}")
    if seconds:
        best = min(seconds, key=lambda config: seconds[config])
        TUNED[device, job.work.key()] = best
        if choices is not None:
            choices.put(job.work.key(), name_of(best), {name_of(config): value for config, value in seconds.items()})
    return seconds


def load(device: torch.device, choices: Choices) -> int:
    """Use what an earlier process found on this device; gives how many entries there are."""
    found = 0
    for key in choices.known:
        for config in CONFIGS.get(key.split()[0], ()):  # pyright: ignore[reportArgumentType, reportCallIssue]
            if choices.get(key, [name_of(config)]) is not None:
                TUNED[device, key] = config
                found += 1
    return found


def name_of(config: Config) -> str:
    """A configuration in a word, such as m64n128k64r128chunk1024group8warps8stages3."""
    return "".join(f"{name.removeprefix('block_')}{value}" for name, value in asdict(config).items())


def kept(device: torch.device) -> Choices:
    """The file of this GPU's name, this torch and this triton, apart from the dispatcher's."""
    made_by = f"{torch.cuda.get_device_name(device)} torch {torch.__version__} triton {version('triton')}"
    return Choices(cache_folder(), f"configurations {made_by}")


def seconds_of(run: Callable[[], object]) -> float:
    """Median on a GPU, with the L2 cache flushed before each call."""
    from triton.testing import do_bench

    milliseconds: Any = do_bench(run, return_mode="median")
    return float(milliseconds) / 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune one shape on the current GPU and print a line for every kernel."""
    parser = argparse.ArgumentParser(prog="python -m clora_triton.tuning", description=__doc__)
    for name in ("in", "out", "rows", "rank"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--adapters", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--masters", choices=("bfloat16", "float16", "float32"), default="float32")
    given = vars(parser.parse_args(arguments))
    if not torch.cuda.is_available():
        parser.exit(2, "tuning: expected a CUDA GPU, found none\n")
    device = torch.device("cuda", torch.cuda.current_device())
    dtype, masters = getattr(torch, given["dtype"]), getattr(torch, given["masters"])
    x = torch.randn(given["rows"], given["in"], device=device, dtype=dtype)
    weight = torch.randn(given["out"], given["in"], device=device, dtype=dtype)
    a = [torch.randn(given["rank"], given["in"], device=device, dtype=masters) for _ in range(given["adapters"])]
    b = [torch.randn(given["out"], given["rank"], device=device, dtype=masters) for _ in range(given["adapters"])]
    choices = kept(device)
    for job in jobs(x, weight, a, b):
        seconds = tune(job, device, seconds_of, choices)
        best = sorted(seconds.items(), key=lambda item: item[1])[:1]
        told = ", ".join(f"{1e6 * value:.1f} us by {name_of(config)}" for config, value in best) or "nothing runs here"
        print(f"{job.work.key()}: {told} (of {len(seconds)} that run)")


if __name__ == "__main__":
    main()
