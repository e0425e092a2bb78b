"""What `clora validate` predicts for the published Qwen-Image-Edit with fifty teachers, without its weights.

    python benchmarks/memory_prediction.py            # writes benchmarks/results/memory_prediction.csv

Configurations and files are as large as the published ones and hold no numbers, so nothing here is measured: a row is
the sum of the tensors that the run's own code makes, on the meta device.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from machine import write_rows

from clora.config.load import load_recipe
from clora.planning.cost import count
from clora.planning.memory import GIB, USABLE, Phase, phases
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover

ROOT = Path(__file__).parents[1]
WORLD = "recipes/worlds/qwen_image_edit.yaml"
RANK = 128  # of every teacher
#: bytes of the published parts in bfloat16: Qwen2.5-VL 7B has 8.29 G parameters, the VAE 127 M
STORED = {"text_encoder": 16_584_333_312, "vae": 253_806_966, "transformer": 40_860_000_000}
#: label -> the GPU it is meant for, files laid on the world, settings
CASES: Mapping[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "as the world stands": (80, (), ()),
    "and packed, optimizer on the GPU": (80, (), ("train.pack=true", "train.offload_optimizer=false")),
    "fp8, optimizer on the GPU": (80, (), ("backbone.memory.weights=fp8", "train.offload_optimizer=false")),
    "nothing saved, 50 teachers resident": (
        80,
        (),
        (
            "backbone.memory.gradient_checkpointing=false", "teacher.slots=null", "train.pack=true",
            "train.offload_optimizer=false",
        ),
    ),
    "gpu_24gb.yaml": (24, ("recipes/worlds/gpu_24gb.yaml",), ()),
    "gpu_24gb.yaml, rank 128": (32, ("recipes/worlds/gpu_24gb.yaml",), ("student.rank=128", "student.alpha=128")),
}  # fmt: skip


def main() -> None:
    """Predict every case and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/memory_prediction.csv")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        session = users_folder(Path(folder), args.teachers)
        for label, (gpu, files, sets) in CASES.items():
            rows.append({"case": label, "teachers": args.teachers, **predicted(session, gpu, files, sets)})
            print(rows[-1], flush=True)
    write_rows(args.out, rows)


def predicted(session: Path, gpu: int, files: tuple[str, ...], sets: tuple[str, ...]) -> dict[str, object]:
    """GiB of the largest phase by part, and whether it fits the GPU."""
    withs = [ROOT / file for file in files]
    loaded = load_recipe(ROOT / "recipes/collection.yaml", withs, sets, discover(), world=session)
    plan = make_plan(loaded, thorough=False)
    peak = max(phases(plan, count(plan)), key=lambda phase: phase.total)
    fits = "yes" if peak.total <= USABLE * gpu * GIB else "no"
    return {"gpu_gib": gpu, "fits": fits, "phase": peak.name, "peak_gib": _gib(peak.total), **_parts(peak)}


def _parts(phase: Phase) -> dict[str, float]:
    named = {"base": 0, "teachers": 0, "adapters in training": 0, "activations": 0, "working memory": 0, "other": 0}
    for name, size in phase.parts.items():
        key = next((known for known in named if name.startswith(known)), "other")
        named[key] += size
    return {f"{name.replace(' ', '_')}_gib": _gib(size) for name, size in named.items()}


def _gib(size: int) -> float:
    return round(size / GIB, 1)


def users_folder(folder: Path, teachers: int) -> Path:
    """A model, LoRAs and pictures as a person has them, files of the published sizes without numbers in them."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_qwen
    from clora_qwen.backbone import QwenImageEdit
    from PIL import Image

    model = tiny_qwen.build(folder / "model", edition="2511")
    (model / "transformer/config.json").write_text(json.dumps({"zero_cond_t": True}))  # else the class's own defaults
    encoder = json.loads((model / "text_encoder/config.json").read_text())
    words = encoder.get("text_config", encoder)
    words |= {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4}
    words["rope_parameters"] |= {"mrope_section": [16, 24, 24]}
    encoder["vision_config"]["out_hidden_size"] = 3584
    (model / "text_encoder/config.json").write_text(json.dumps(encoder))
    backbone = QwenImageEdit(model=str(model))
    linears = {f"{name}.weight": ("BF16", [out, inputs]) for name, (inputs, out) in backbone.shapes().items()}
    for part, size in STORED.items():
        (weights,) = (model / part).glob("*.safetensors")
        named = linears if part == "transformer" else {}
        rest = size - sum(2 * rows * columns for _, (rows, columns) in named.values())
        _hollow(weights, {**named, "others": ("U8", [rest])})
    factors = {}
    for module in backbone.targets():
        inputs, outputs = backbone.shapes()[module]
        factors[f"transformer.{module}.lora_A.weight"] = ("BF16", [RANK, inputs])
        factors[f"transformer.{module}.lora_B.weight"] = ("BF16", [outputs, RANK])
    entries = []
    for i in range(teachers):
        _hollow(folder / f"effect_{i}.safetensors", factors)
        entries.append({"name": f"effect_{i}", "lora": f"effect_{i}.safetensors", "teacher_prompt": f"effect {i}"})
    (folder / "bank.yaml").write_text(json.dumps([entry | {"caption": f"effect {entry['name']}"} for entry in entries]))
    for i in range(2):
        Image.new("RGB", (1024, 1024)).save(folder / f"{i}.png")
    lines = [{"source": f"{i}.png", "split": split} for i, split in enumerate(("train", "test"))]
    _jsonl(folder / "effects.jsonl", [line | {"effect": entry["name"]} for entry in entries for line in lines])
    _jsonl(folder / "general.jsonl", [line | {"instruction": "make it darker"} for line in lines])
    text = (ROOT / WORLD).read_text()
    for published, hollow in (("Qwen/Qwen-Image-Edit-2511", "model"), ("effects: effects ", "effects: effects.jsonl ")):
        text = text.replace(published, hollow, 1)
    (folder / "world.yaml").write_text(text)
    return folder / "world.yaml"


def _hollow(path: Path, tensors: Mapping[str, tuple[str, list[int]]]) -> None:
    """A safetensors file of a true header and a hole: no disk is used."""
    sizes = {"U8": 1, "BF16": 2}
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = sizes[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def _jsonl(path: Path, lines: list[dict[str, str]]) -> None:
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


if __name__ == "__main__":
    main()
