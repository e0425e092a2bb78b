"""Time of a LoRA linear over that of the frozen linear below it: this package, PEFT, and the arithmetic's own limit.

    python benchmarks/kernel_lora.py --device cuda --check     # on a GPU; whole cycles too: on_gpu.py
    python benchmarks/kernel_lora.py --device cpu              # the small shapes; `make bench`
    python benchmarks/kernel_lora.py --check --from FILE.csv   # the targets, of a measurement made before

Providers take turns on inputs that are in no cache; medians with the 20 % and 80 % quantiles. On a CPU that others use
too, `--clock thread --threads 1` counts the seconds that the thread was computing and not those it waited for its turn.
Writes results/kernel_lora_DEVICE.csv and a plot beside it.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from kernel_cases import Case, cases
from kernel_plot import plot
from kernel_providers import Provider, Weights, providers
from kernel_shared import shared_providers
from kernel_targets import Row, report, targets, unmeasured
from kernel_timing import PARTS, Bench
from machine import write_rows

CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}
RESULTS = Path(__file__).parent / "results"


def measured(case: Case, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A row for every provider and part of the work."""
    torch.manual_seed(0)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=args.device, dtype=case.dtype)

    x_shape = (case.batch, case.rows // case.batch, case.inputs)
    bench = Bench(lambda: (made(*x_shape), made(*case.answer)), CLOCKS[args.clock])
    if case.kind == "linear":
        ways = providers(case, Weights.of(case, args.device), case.compiles and not args.no_compile)
    else:
        ways = shared_providers(case, args.device)
    able = [provider for provider in ways if works(bench, provider)]
    times = bench.measure(able, args.seconds)
    peaks = {provider.name: bench.peak(provider) for provider in able}
    frozen = times["frozen"]
    for name, parts in times.items():
        for part in PARTS:
            timing = parts[part]
            yield {
                "shape": case.shape,
                "in": case.inputs,
                "out": case.outputs,
                "rows": case.rows,
                "rank": case.rank,
                "adapters": case.adapters,
                "dtype": str(case.dtype).removeprefix("torch."),
                "provider": name,
                "part": part,
                "median_ms": f"{timing.median:.4g}",
                "p20_ms": f"{timing.low:.4g}",
                "p80_ms": f"{timing.high:.4g}",
                "over_frozen": f"{timing.median / frozen[part].median:.3f}",
                "flop_limit": f"{case.flop_limit(part):.3f}",
                "peak_mib": f"{peaks[name] / 2**20:.2f}",
                "clock": "events" if args.device == "cuda" else args.clock,
            }


def chosen(args: argparse.Namespace) -> Iterator[Case]:
    """The cases that were asked for."""
    for case in cases(args.device):
        within = args.only in case.shape and case.rank in (args.ranks or [case.rank])
        if within and case.rows in (args.rows or [case.rows]):
            yield case


def works(bench: Bench, provider: Provider) -> bool:
    """Whether a provider can do the case at all; one that cannot is told and left out."""
    try:
        bench.warm(provider)
    except Exception as error:  # a compiler that cannot take the layer raises anything
        if provider.name in ("frozen", "ours"):
            raise
        print(f"  {provider.name} left out: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True


def told(rows: Sequence[Mapping[str, object]]) -> str:
    """One case in one line: forward and backward over the frozen linear's."""
    first = rows[0]
    both = [row for row in rows if row["part"] == "both"]
    what = f"{first['shape']:16} rows {first['rows']:>5} rank {first['rank']:>3} adapters {first['adapters']}"
    return f"{what}  limit {both[0]['flop_limit']}  " + "  ".join(f"{r['provider']} {r['over_frozen']}" for r in both)


def installed(name: str) -> str:
    """A package's version, or nothing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def verdict(rows: Sequence[Row], args: argparse.Namespace) -> int:
    """Tell which targets of the chosen cases are met; 1 where not all are."""
    if rows:
        args.device = "cuda" if rows[0]["clock"] == "events" else "cpu"
    found = list(targets(rows))
    return report(found, unmeasured(found, [case.key for case in chosen(args)]))


def main() -> None:
    """Measure, write, and with --check end with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each case")
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="on the CPU")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--only", default="", help="shapes whose name has this in it")
    parser.add_argument("--ranks", type=int, nargs="+", help="these ranks alone")
    parser.add_argument("--rows", type=int, nargs="+", help="these numbers of rows alone")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--from", dest="source", type=Path, help="check this file instead of measuring")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out = args.source or args.out or RESULTS / f"kernel_lora_{args.device}.csv"
    if args.clock == "thread" and args.threads != 1:
        parser.error("--clock thread sees one thread alone: add --threads 1")
    if args.source is None:
        torch.set_num_threads(args.threads if args.device == "cpu" else torch.get_num_threads())
        rows: list[dict[str, object]] = []
        for case in chosen(args):
            torch.compiler.reset()
            rows += (found := list(measured(case, args)))
            print(told(found), flush=True)
        if not rows:
            parser.error("no case has these shapes, ranks and rows")
        versions = {"peft": version("peft"), "triton": installed("triton")}
        write_rows(out, [{**row, **versions} for row in rows])
        out.with_suffix(".svg").write_text(plot(rows))
    if args.check:
        with out.open() as file:
            sys.exit(verdict(list(csv.DictReader(file)), args))


if __name__ == "__main__":
    main()
