"""Numbers nobody means, through `clora validate`: each is refused at its place or makes a run that can be made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attrs import evolve
from clora_emoji.dataset import EmojiDataset

from clora import cli
from clora.config.load import load_recipe
from clora.config.schema import Start, Student
from clora.contracts.values import EffectCard, GeneralItem
from clora.lora_io.reader import LoraDelta
from clora.lora_io.writer import write_lora
from clora.planning.numbers import number_findings
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.runs.run_dir import RunDir

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

RECIPES = Path(__file__).parents[2] / "recipes"
SETS = "--set"

#: (what is set, the key that the message names)
REFUSED = [
    ("train.betas=[5, -3]", "train.betas must be at least 0 and less than 1, found 5.0"),
    ("train.betas=[1.0, 1.0]", "train.betas must be at least 0 and less than 1, found 1.0"),
    ("train.betas=[2, 3]", "train.betas must be at least 0 and less than 1, found 2.0"),
    ("student.steps=999999999", "student.steps must be between 1 and 1000, found 999999999"),
    (f"critic.updates={10**19}", "critic.updates must be between 1 and 1000, found 1000"),
    (f"teacher.steps={10**19}", "teacher.steps must be between 1 and 1000, found 1000"),
    ("student.shift=1e30", "student.shift must be between 0.01 and 100, found 1e+30"),
    ("student.shift=1e-320", "student.shift must be between 0.01 and 100, found 1e-320"),
    ("teacher.shift=1e-320", "teacher.shift must be between 0.01 and 100, found 1e-320"),
    ("losses.bs_dmd.weight=1e308", "losses.bs_dmd.weight must be 0 or between 1e-6 and 1,000,000, found 1e+308"),
    ("losses.ta_fm.weight=1e-320", "losses.ta_fm.weight must be 0 or between 1e-6 and 1,000,000, found 1e-320"),
    ("critic.losses.on_target.weight=1e308", "critic.losses.on_target.weight must be 0 or between"),
    ("losses.ts_dmd.floor=1e308", "losses.ts_dmd.floor must be between 1e-8 and 1, found 1e+308"),
    ("losses.bs_dmd.guidance_scale=1e308", "losses.bs_dmd.guidance_scale must be between 0 and 100"),
    ("train.lr=1e308", "train.lr must be between 1e-10 and 1, found 1e+308"),
    ("critic.lr=1e-320", "critic.lr must be between 1e-10 and 1, found 1e-320"),
    ("student.alpha=1e308", "student.alpha must be between 0.001 and 16,384, found 1e+308"),
    ("student.alpha=1e-320", "student.alpha must be between 0.001 and 16,384, found 1e-320"),
    ("student.alpha=0.001", "the LoRA's strength, alpha / rank, must be between 0.001 and 1000; 0.001 / 32"),
    (
        "student={rank: 8, alpha: 16384}",
        "the LoRA's strength, alpha / rank, must be between 0.001 and 1000; 16384 / 8 is 2048",
    ),
    ("student.rank=999999999", "student.rank must be between 1 and 16,384, found 999999999"),
    (
        "student.rank=129",
        "student.rank: 129 is more than any linear of this backbone can have: the largest, "
        "transformer_blocks.0.attn.to_q, maps 128 numbers to 128, so at most 128",
    ),
    ("teachers.scale=1e300", "teachers.scale must be between 0.001 and 1000, found 1e+300"),
    ("teacher.guidance_scale=1e308", "teacher.guidance_scale must be between 0 and 100"),
    (f"teacher.slots={10**19}", "teacher.slots must be between 1 and 10,000"),
    (f"seed={10**19}", "seed must be between 0 and 4,294,967,295"),
    ("train.batch_size=1000000000", "train.batch_size must be between 1 and 4096"),
    ("train.steps=1000000000", "train.steps must be between 0 and 1,000,000"),
    ("train.grad_clip=1e-320", "train.grad_clip must be between 1e-6 and 1,000,000"),
    ("train.weight_decay=1e308", "train.weight_decay must be between 0 and 1"),
    ("train.warmup_steps=1000000000", "train.warmup_steps must be between 0 and 1,000,000"),
    ("train.decay=1e-320", "train.decay must be between 0 and 1, found 1e-320, which is 0 in float32"),
    ("train.checkpoint_every=1000000000", "train.checkpoint_every must be between 1 and 1,000,000"),
    ("train.keep_checkpoints=1000000000", "train.keep_checkpoints must be between 1 and 1000"),
    ("student.ema=1.0", "student.ema must be between 0 and 0.999999, found 1.0"),
    ("prepare.batch_size=1000000000", "prepare.batch_size must be between 1 and 4096"),
    ("prepare.previews=1000000000", "prepare.previews must be between 0 and 1000"),
    ("prepare.train_images=0", "prepare.train_images must be between 1 and 1,000,000"),
    ("evaluate.images=1000000000", "evaluate.images must be between 1 and 1,000,000"),
    (f"evaluate.batch_size={10**19}", "evaluate.batch_size must be between 1 and 4096"),
    (f"router.hold_steps={10**19}", "router.hold_steps must be between 1 and 1,000,000"),
    ("router.p_switch=1e-320", "router.p_switch must be between 0 and 1, found 1e-320, which is 0 in float32"),
    ("simulations.target.tau_max=1e-320", "simulations.target.tau_max must be between 0.1 and 1000, found 1e-320"),
    ("simulations.target.last_steps=999999", "simulations.target.last_steps must be between 1 and 1000"),
    ("simulations.target.last_steps=9", "simulations.target: last_steps 9 asks for more than the schedule's 8 levels"),
    ("simulations.target.tau_max=0.2", "simulations.target: tau_max 0.2 (0.06668 at shift 1) leaves no level of"),
    (f"prompts.seed={10**19}", "prompts.seed must be between 0 and 4,294,967,295"),
    ("serve.merge={use: peft, density: 0}", "serve.merge.density must be between 0.001 and 1, found 0.0"),
    ("serve.merge={use: peft, weight: 1e308}", "serve.merge.weight must be between 0.001 and 1000"),
    ("effects=[" + ", ".join(f"e{i}" for i in range(15_000)) + "]", "effects: the bank has no effect 'e0'"),
    ("name=" + "a" * 300, "(240 more characters) is longer than 100 bytes, and a folder is named by it"),
    ('name="a/b"', "name: 'a/b' holds /, which no folder's name may"),
    ('name="a\\x01b"', "name: 'a\\x01b' holds a character that cannot be printed"),
    (f"critic.updates={10**30}", "critic.updates: expected an integer, found a number of 31 digits"),
    ("title=" + "a" * 5000, "title: 'aaaa"),
]  # fmt: skip


@pytest.mark.parametrize(("assignment", "sentence"), REFUSED, ids=[key[:50] for key, _ in REFUSED])
def test_a_number_that_nobody_means(told, assignment, sentence):
    lines = told("", SETS, assignment)
    assert sentence in lines[0]
    assert lines[0].startswith(f"--set {assignment.split('=')[0]}: ")
    assert len(lines) <= 11
    assert all(len(line) < 400 for line in lines)


def told_by(capsys, *sets: str) -> tuple[int, str, str]:
    """What `clora validate` says of the emoji world with some values set."""
    words = [word for each in ("effects=[duotone_ocean, thermal]", *sets) for word in (SETS, each)]
    code = cli.main(["validate", str(RECIPES / "collection.yaml"), *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["student.steps=1000", "critic.updates=1000", "train.batch_size=4096"], "more than "),
        (["train.steps=1000000", "teacher.slots=1", "router.per=batch"], "1,000,000 of the student"),
        (
            ["train.steps=5", "train.warmup_steps=10", "warm_start=null"],
            "train.warmup_steps 10 is more than train.steps",
        ),
        (["train.steps=0"], "train.steps: 0 trains nothing"),
        (["losses.ts_dmd.weight=0"], "losses.ts_dmd: its weight is 0"),
        (["router.p_switch=1"], "forward passes"),
        (["router.p_switch=0"], "forward passes"),
        (["train.checkpoint_every=1000000", "evaluate.images=1000000", "prepare.train_images=1000000"], "valid"),
        (["student.rank=128", "student.alpha=0.128"], "rank 128"),
        (["student.shift=0.01", "simulations.target.tau_max=1000"], "valid"),
        (["student.shift=100", "simulations.target.tau_max=null"], "valid"),
        (["student.shift=null"], "shift 1 (64 tokens: measured for the emoji model), 8 levels: 1000 875 750"),
        (["train.lr=1", "train.weight_decay=1", "train.betas=[0.999999, 0.999999]"], "valid"),
        (["seed=4294967295"], "valid"),
    ],
)
def test_numbers_at_their_bounds_are_valid_and_told(capsys, sets, words):
    code, out, err = told_by(capsys, *sets)
    assert (code, err) == (0, "")
    assert words in out


def test_losses_that_no_row_comes_to(capsys):
    sets = ["router.p_switch=0", "losses.bs_dmd=null", "critic.losses.on_backward=null"]
    code, _, err = told_by(capsys, *sets)
    assert code == 2
    assert "router: it sends every row to the stream general, which no loss reads: nothing would be trained" in err


def test_a_merge_of_a_rank_above_every_linear(capsys):
    code, _, err = told_by(
        capsys, "losses=null", "critic=null", "serve={adapter: merge, merge: {use: peft, rank: 129}}"
    )
    assert code == 2
    assert "serve.merge: rank: 129 is more than any linear of this backbone can have" in err


@pytest.mark.parametrize(("p_switch", "fed"), [(0.0, False), (0.5, True), (1.0, True)])
def test_a_short_run_is_refused_only_where_a_longer_one_trains_nothing_either(capsys, p_switch, fed):
    sets = ["losses.bs_dmd=null", "critic.losses.on_backward=null", "train.steps=1", "train.batch_size=1"]
    code, _, _ = told_by(capsys, f"router.p_switch={p_switch}", *sets)
    assert (code == 0) is fed


def test_a_student_narrower_than_the_lora_it_goes_on_from(tmp_path):
    plan = make_plan(load_recipe(RECIPES / "collection.yaml", (), [], discover()), thorough=False)
    linear, (inputs, outputs) = next(iter(plan.recipe.backbone.shapes().items()))
    delta = LoraDelta(torch.ones(33, inputs), torch.ones(outputs, 33), 1.0)
    write_lora(RunDir(tmp_path).lora, {linear: delta})
    recipe = evolve(plan.recipe, start=Start(tmp_path))
    assert list(number_findings(recipe)) == [("student.rank", "32 is less than the rank of the finished LoRA, 33")]
    assert list(number_findings(evolve(recipe, student=Student(rank=33)))) == []


def test_more_losses_than_any_method_has(told):
    many = ", ".join(f"l{i}: {{use: ta_fm}}" for i in range(40))
    (line,) = told(f"losses: {{{many}}}\n")
    assert line.endswith("losses: at most 32 of them can be used at once, found 43")


@pytest.mark.parametrize(
    "text",
    ["0GB", "-5GB", "nan", "nanGB", "infGB", "1e400GB", "24", "24TB", "", "GB", "0.0000001GB", "1" * 5000,
     "9" * 5000 + "GB", "9" * 400 + "GB", "1000000GB", "٢٤GB", "24GB\x1b[31m", "24 GB of it"],
)  # fmt: skip
def test_an_amount_of_memory_that_is_none(capsys, text):
    assert cli.main(["validate", str(RECIPES / "collection.yaml"), f"--memory={text}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("--memory: ")
    assert err.strip().endswith("write it as 24GB")
    assert len(err) < 200
    assert "\x1b" not in err


CARD = EffectCard("clay", Path("clay.safetensors"), "turn it to clay", "a clay figure", trigger="<clay>")

CARDS = [
    ({"name": "a" * 300}, "is longer than 100 bytes"),
    ({"name": "ä" * 60}, "is longer than 100 bytes"),
    ({"name": "a\0b"}, "'a\\x00b' holds a NUL character"),
    ({"name": "a\nb"}, "'a\\nb' holds a character that cannot be printed"),
    ({"name": "../clay"}, "'../clay' holds /, which no folder's name may"),
    ({"name": ""}, "is empty"),
    ({"name": "a\ud800"}, "holds half a character"),
    ({"caption": "clay \ud800"}, "'clay': its caption 'clay \\ud800' holds half a character"),
    (
        {"teacher_prompt": "x" * 1_000_000},
        "(999,940 more characters) has 1,000,000 characters; at most 10,000 are read",
    ),
    ({"trigger": "<\x1b[31m>"}, "'clay': its trigger '<\\x1b[31m>' holds a control character, \\x1b"),
    ({"scale": 1e300}, "clay: its scale, the bank's included, is 1e+300; it must be between 0.001 and 1000"),
    ({"scale": -1e-9}, "clay: its scale, the bank's included, is -1e-09; it must be between 0.001 and 1000"),
    ({"scale": float("nan")}, "clay: its scale, the bank's included, is nan; it must be between 0.001 and 1000"),
]


@pytest.mark.parametrize(("change", "sentence"), CARDS)
def test_a_teacher_that_no_run_could_use(told, monkeypatch, change, sentence):
    """Whatever component gives the cards; the banks that ship find most of it in their files, with the line."""
    monkeypatch.setattr("clora_teachers.bank.Bank.cards", lambda self: (evolve(CARD, **change),))
    monkeypatch.setattr("clora_teachers.bank.Bank.lora_files", lambda self: ())
    first = told()[0]
    assert sentence in first
    assert first.startswith("r.yaml:2:1: teachers: ")
    assert len(first) < 250


@pytest.mark.parametrize(
    ("instruction", "sentence"),
    [
        ("blur\ud800", "the instruction 'blur\\ud800' holds half a character"),
        ("x" * 1_000_000, "(999,940 more characters) has 1,000,000 characters"),
        ("blur\0it", "the instruction 'blur\\x00it' holds a control character, \\x00"),
    ],
)
def test_an_instruction_that_no_model_can_read(told, monkeypatch, instruction, sentence):
    items = [GeneralItem("a", "blur it"), *[GeneralItem(str(i), instruction) for i in range(50)]]
    monkeypatch.setattr(EmojiDataset, "general", lambda self, split: items)
    found = [line for line in told("dataset: emoji\n") if "instruction" in line]
    assert len(found) == 1
    assert sentence in found[0]
    assert len(found[0]) < 250
