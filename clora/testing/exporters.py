"""Helpers for the tests of exporters: a small LoRA, what its evaluation found, and the checks for authors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clora.contracts.evaluation import Measured, Quantity
from clora.contracts.export import (
    EffectSamples,
    Evaluated,
    ExportedEffect,
    ExportedLora,
    ExportedSampler,
    FileContents,
    Illustrates,
)
from clora.diffusion.flow import Schedule
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.writer import write_lora
from clora.planning.export_files import WEIGHTS, files_problem
from clora.plugin_system.guard import Owners

EFFECTS = ("clay", "ink")


def example_lora(path: Path) -> ExportedLora:
    """A LoRA of two effects that is to lie at `path`, where `write_example` puts it."""
    schedule = Schedule.shifted(4, 3.0)
    return ExportedLora(
        path=path,
        title="Two effects",
        digest="0123456789abcdef",
        effects=tuple(ExportedEffect(name, f"make it {name}", f"all {name}") for name in EFFECTS),
        sampler=ExportedSampler("few_step", len(schedule), 1.0, schedule.shift, schedule.sigmas),
        rank=2,
        publication=None,
        header={"clora": "{}"},
        weights=lambda: read_lora(path).deltas,
    )


def write_example(lora: ExportedLora) -> None:
    """Write the weights of `example_lora`: one linear of 6 inputs and 8 outputs."""
    import torch

    draw = torch.Generator().manual_seed(0)
    delta = LoraDelta(torch.randn(2, 6, generator=draw), torch.randn(8, 2, generator=draw), 1.0)
    write_lora(lora.path, {"blocks.0.attn.to_q": delta}, lora.header)


def example_evaluated() -> Evaluated:
    """Three pictures of 16 x 16 for each effect of `example_lora`, and a number."""
    import torch

    draw = torch.Generator().manual_seed(0)

    def pictures() -> torch.Tensor:
        return torch.randint(0, 256, (3, 3, 16, 16), generator=draw, dtype=torch.uint8)

    samples = {name: EffectSamples(("a", "b", "c"), pictures(), pictures()) for name in EFFECTS}
    return Evaluated(Measured({"distance": 0.25}, {"distance": Quantity("lower")}), samples)


def contents_of(files: Mapping[str, FileContents]) -> dict[str, bytes]:
    """What the files hold once they are written."""
    with TemporaryDirectory() as folder:
        found: dict[str, bytes] = {}
        for name, contents in files.items():
            if callable(contents):
                contents(Path(folder) / "file")
                found[name] = (Path(folder) / "file").read_bytes()
            else:
                found[name] = contents if isinstance(contents, bytes) else contents.encode()
        return found


def exporter_problems(exporter: Any) -> Iterator[str]:
    """Names before there is a LoRA; the same files each time; LoRA and pictures stay as they are."""
    with TemporaryDirectory() as folder, Owners().calling("exporters"):
        lora, evaluated = example_lora(Path(folder) / WEIGHTS), example_evaluated()
        asked: dict[str, Callable[[], Any]] = {"export": partial(exporter.export, lora)}
        if isinstance(exporter, Illustrates):
            asked["illustrate"] = partial(exporter.illustrate, lora, evaluated)
        early = asked["export"]()  # there is no file yet: the names alone are asked for
        pictures = {name: sample.result.clone() for name, sample in evaluated.samples.items()}
        write_example(lora)
        before = lora.path.read_bytes()
        for method, ask in asked.items():
            files = ask()
            problem = files_problem(files)
            if problem is not None:
                yield f"its {method} {problem}"
                return
            if contents_of(files) != contents_of(ask()):
                yield f"its {method} gives other files each time: what is damaged could not be made again"
            if method == "export" and set(files) != set(early):
                yield "its export gives other names once the LoRA is there: they are checked before anything is trained"
        if lora.path.read_bytes() != before:
            yield "it changed the LoRA"
        if any(not pictures[name].equal(sample.result) for name, sample in evaluated.samples.items()):
            yield "it changed the pictures, which other exporters and the report read"
