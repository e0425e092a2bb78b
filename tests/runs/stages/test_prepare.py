"""Prepare: ranks share the work, and what is damaged or missing is made again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
import torch
from attrs import frozen
from emoji_in_parts import EFFECTS, plan_of, prepared
from PIL import Image

from clora.diffusion.rng import StepRng
from clora.diffusion.sampling import euler
from clora.errors import CloraError
from clora.inference.edit_sampler import EditSampler
from clora.inference.session import ModelSession
from clora.planning.plan import Plan
from clora.runs.run_dir import RunDir
from clora.runs.stages import targets
from clora.runs.stages.prepare import prepare
from clora.training.batches import Targets
from clora.training.distributed import Distributed

pytestmark = pytest.mark.slow  # many short tests, which take seconds together


def outputs(plan: Plan, made: Targets) -> dict[tuple[str, str], torch.Tensor]:
    return {(e, name): made.latents(e, name) for e in EFFECTS for name in plan.sources(e)}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of()


@pytest.fixture(scope="module")
def reference(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], torch.Tensor]:
    """Every output, made in one go by one rank."""
    return outputs(plan, prepared(plan, tmp_path_factory.mktemp("reference"))[1])


def test_an_output_is_the_teachers_own_sampler_from_noise_of_the_pictures_name(plan: Plan, reference: dict) -> None:
    session = ModelSession(plan)
    effect, source = EFFECTS[1], plan.sources(EFFECTS[1])[3]
    card = next(card for card in plan.cards if card.name == effect)
    velocity = EditSampler(plan, session)._velocity
    words = [session.conditioning.conditions([prompt], [source]) for prompt in (card.teacher_prompt, "")]
    like, schedule = torch.empty(1, *reference[effect, source].shape), EditSampler(plan, session)._teacher_schedule
    rng = StepRng(0).named("targets").named(effect).named(source)
    alone = euler(
        velocity(effect, words[0]), velocity(effect, words[1]), like, schedule(like),
        plan.recipe.teacher.guidance_scale, rng,
    )[0]  # fmt: skip
    assert torch.allclose(alone, reference[effect, source], atol=1e-4)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_work_and_all_read_the_same(
    plan: Plan, reference: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    made: list[tuple[str, ...]] = []
    real = targets.Bank.make
    monkeypatch.setattr(targets.Bank, "make", lambda bank, chunk: made.append(chunk.sources) or real(bank, chunk))
    turn = threading.Barrier(world_size)

    @frozen
    class Beside(Distributed):
        def wait(self) -> None:
            turn.wait(60)

    folder = RunDir(tmp_path / "run")
    worlds = [
        ModelSession(plan, cache=folder.cache) for _ in range(world_size)
    ]  # loading is not safe beside other threads
    for session in worlds:
        _ = session.adapted
    with ThreadPoolExecutor(world_size) as pool:
        jobs = [pool.submit(prepare, plan, w, folder, Beside(i, world_size)) for i, w in enumerate(worlds)]
        results = [outputs(plan, job.result(timeout=60)) for job in jobs]
    assert all(same(result, reference) for result in results)
    assert sorted(made) == sorted([*(plan.sources(e)[:3] for e in EFFECTS), *(plan.sources(e)[3:] for e in EFFECTS)])


def test_a_stopped_prepare_goes_on_with_what_is_missing(
    plan: Plan, reference: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = targets.Bank.make
    made: list[str] = []

    def until_the_third(bank: targets.Bank, chunk: targets.Chunk) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(chunk.card.name)
        real(bank, chunk)

    monkeypatch.setattr(targets.Bank, "make", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepared(plan, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / ".cache").rglob("*.safetensors")}
    assert len(files) == 2
    monkeypatch.setattr(targets.Bank, "make", lambda bank, chunk: made.append("again") or real(bank, chunk))
    assert same(outputs(plan, prepared(plan, tmp_path)[1]), reference)
    assert made == [EFFECTS[0]] * 2 + ["again"] * 2
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_damaged_or_missing_file_of_outputs_is_made_again(
    plan: Plan, reference: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    prepared(plan, tmp_path)
    path = sorted((tmp_path / ".cache/targets").rglob("*.safetensors"))[0]
    raw = path.read_bytes()
    capsys.readouterr()
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]) if harm == "flip" else raw[:-20])
    assert same(outputs(plan, prepared(plan, tmp_path)[1]), reference)
    assert path.read_bytes() == raw
    said = capsys.readouterr().err
    assert (said.count("\n"), "is damaged (" in said) == ((0, False) if harm == "delete" else (1, True))


def test_an_output_lost_while_training_is_told(plan: Plan, tmp_path: Path) -> None:
    _, made = prepared(plan, tmp_path)
    for path in (tmp_path / ".cache/targets").rglob("*.safetensors"):
        path.unlink()
    unread = plan.sources(EFFECTS[0])[4]  # no preview has shown it
    with pytest.raises(CloraError, match="the same command makes it again"):
        made.latents(EFFECTS[0], unread)


def test_a_new_picture_alone_is_made_and_another_strength_makes_all_anew(plan: Plan, tmp_path: Path) -> None:
    prepared(plan_of("prepare.train_images=3"), tmp_path)
    before = set((tmp_path / ".cache/targets").rglob("*.safetensors"))
    prepared(plan, tmp_path)
    after = set((tmp_path / ".cache/targets").rglob("*.safetensors"))
    assert len(before) == 2
    assert before < after
    assert len(after) == 4
    prepared(plan_of("teacher.guidance_scale=3"), tmp_path)
    assert len(set((tmp_path / ".cache/targets").rglob("*.safetensors"))) == 8


def test_teachers_that_make_nonsense_are_told(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense(*_: object) -> torch.Tensor:
        return torch.full((3, 48, 8, 8), float("nan"))

    monkeypatch.setattr(EditSampler, "teacher_latents", nonsense)
    with pytest.raises(CloraError, match=f"the teacher of {EFFECTS[0]}.*no finite numbers"):
        prepared(plan, tmp_path)


def test_previews_show_sources_beside_outputs_and_are_made_once(plan: Plan, tmp_path: Path, reference: dict) -> None:
    session, _ = prepared(plan, tmp_path)
    folder = tmp_path / "run/prepare"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*EFFECTS, *(f"{e}.png" for e in EFFECTS)])
    effect, source = EFFECTS[0], plan.sources(EFFECTS[0])[1]
    files = sorted((folder / effect).iterdir())
    assert len(files) == 2
    with Image.open(files[1]) as picture:
        assert picture.size == (256, 128)
        pixels = torch.from_numpy(numpy.array(picture).astype(float))[::4, ::4]
    output = session.backbone.decode(reference[effect, source][None])[0]
    expected = torch.cat([plan.recipe.dataset.images([source])[0], output], dim=-1).permute(1, 2, 0)
    assert (pixels / 127.5 - 1 - expected).abs().max() < 1 / 127
    with Image.open(folder / f"{effect}.png") as sheet:
        assert sheet.size == (2 * (256 + 8), 128 + 8)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    prepared(plan, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    files[0].unlink()
    prepared(plan, tmp_path)
    assert files[0].exists()


def test_no_previews_where_none_are_wanted(tmp_path: Path) -> None:
    prepared(plan_of("prepare.previews=0"), tmp_path)
    assert not (tmp_path / "run/prepare").exists()


def test_a_cache_that_cannot_be_written_is_told(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("in the way")
    with pytest.raises(CloraError, match=r"cannot write .*a file, not a folder"):
        prepared(plan, tmp_path)
