"""`clora export` as a user meets it: what it refuses, and what it writes from a run that has finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clora_export import COMMAND
from safetensors.torch import load_file

from clora.cli import main
from clora.config.load import load_recipe
from clora.lora_io.reader import LoraDelta
from clora.lora_io.writer import write_lora
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.runs.files.checksums import checksum_of_file
from clora.runs.files.record import RunRecord
from clora.runs.run_dir import RunDir
from clora.testing.commands import command_problems

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run's folder with an exported LoRA that changes one linear, and no pictures."""
    sets = ["effects=[duotone_ocean, thermal]"]
    plan = make_plan(load_recipe(ROOT / "recipes/quickstart.yaml", (), sets, discover()), thorough=False)
    folder = tmp_path / "run"
    module, (inputs, outputs) = next(iter(plan.recipe.backbone.shapes().items()))
    run, delta = RunDir(folder), LoraDelta(torch.ones(2, inputs), torch.ones(outputs, 2), 0.5)
    write_lora(run.lora, {module: delta}, plan.exported(run.lora).header)
    run.recipe.write_text(plan.text)
    recipe = checksum_of_file(run.recipe)
    run.write_info(RunRecord("quickstart", "", 0, plan.digest, 0, 0.0, 1, recipe, machine={}, versions={}))
    run.mark_done("export", plan.digest, (run.lora,))
    return folder


def test_elsewhere_in_another_type_with_peft_and_merged(run_dir: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run_dir), "--out", str(out), "--dtype", "float16", "--peft", "--merge"]) == 0
    assert {t.dtype for t in load_file(out / "lora.safetensors").values()} == {torch.float16}
    assert {t.dtype for t in load_file(out / "lora_comfyui.safetensors").values()} == {torch.float16}
    assert "thermal" in (out / "README.md").read_text()
    assert (out / "peft/adapter_config.json").is_file()
    assert (out / "transformer/diffusion_pytorch_model.safetensors").is_file()
    assert "1 linears changed" in capsys.readouterr().out


def test_the_runs_own_export_is_not_rewritten_in_another_type(run_dir: Path, capsys) -> None:
    before = (run_dir / "export/lora.safetensors").read_bytes()
    assert main(["export", str(run_dir), "--dtype", "float16"]) == 2
    assert "--dtype needs --out" in capsys.readouterr().err
    assert (run_dir / "export/lora.safetensors").read_bytes() == before


def test_a_run_without_an_export_says_so(run_dir: Path, capsys) -> None:
    (run_dir / "export/lora.safetensors").unlink()
    assert main(["export", str(run_dir)]) == 2
    assert "lora.safetensors has gone; `clora run` with the run's recipe makes it again" in capsys.readouterr().err


def test_a_damaged_export_is_named(run_dir: Path, capsys) -> None:
    file = run_dir / "export/lora.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    assert main(["export", str(run_dir), "--peft"]) == 2
    told = capsys.readouterr().err
    assert "lora.safetensors is damaged, or was changed, since it was written (" in told
    assert not (run_dir / "export/peft").exists()


def test_a_folder_that_cannot_be_written_is_named(run_dir: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "taken").write_text("a file")
    assert main(["export", str(run_dir), "--out", str(tmp_path / "taken")]) == 2
    assert "a part of the path is a file, not a folder" in capsys.readouterr().err


def test_a_base_without_weight_files_is_not_merged_into(run_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from clora.api import ExportedRun

    monkeypatch.setattr(ExportedRun, "backbone", property(lambda found: object()))
    assert main(["export", str(run_dir), "--out", str(tmp_path / "out"), "--merge"]) == 2
    assert "--merge: this run's backbone does not tell where its weights' files are" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_it_keeps_the_rules_for_commands() -> None:
    assert command_problems(COMMAND) == []
