"""Bad input, through the command line and the plugins that ship: every mistake at its place, none as a traceback."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from clora_emoji.backbone import EmojiBackbone
from PIL import Image
from safetensors.torch import load_file, save_file

from clora import cli
from clora.lora_files.reader import LoraDelta
from clora.lora_files.writer import write_lora

RECIPES = Path(__file__).parents[1] / "recipes"
EFFECTS = ("thermal", "sepia")
LINEAR = "transformer.transformer_blocks.0.attn.to_q"
NEAREST = "; the nearest is transformer_blocks.0."

Told = Callable[..., list[str]]


def entry(effect: str, **keys: str) -> str:
    words = {
        "lora": f"{effect}.safetensors",
        "teacher_prompt": "restyle it",
        "caption": f"make it look {effect}",
    } | keys
    return "\n  ".join([f"- name: {effect}", *(f"{key}: {word}" for key, word in words.items())]) + "\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a bank of two tiny teachers, two pictures, and lists of them without a mistake."""
    monkeypatch.chdir(tmp_path)
    for effect in EFFECTS:
        deltas = {
            name: LoraDelta(torch.full((1, inputs), 0.01), torch.full((outputs, 1), 0.01), 1.0)
            for name, (inputs, outputs) in EmojiBackbone().shapes().items()
        }
        write_lora(tmp_path / f"bank/{effect}.safetensors", deltas)
    (tmp_path / "bank/bank.yaml").write_text("".join(entry(effect) for effect in EFFECTS))
    (tmp_path / "data").mkdir()
    for name in ("data/a.png", "data/b.png", "secret.png"):
        Image.new("RGB", (32, 32), (200, 10, 60)).save(tmp_path / name)
    splits = {"a.png": "train", "b.png": "test"}
    effects = [{"source": name, "effect": e, "split": split} for e in EFFECTS for name, split in splits.items()]
    general = [{"source": name, "instruction": "blur it", "split": split} for name, split in splits.items()]
    for name, rows in (("effects", effects), ("general", general)):
        (tmp_path / f"data/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """`told(recipe)`: the lines of `clora validate`, which must refuse the recipe without a traceback.

    `pictures=True` takes the lists of pictures in place of the emoji; `words` follow on the command line.
    """

    def lines(text: str = "", *words: str, pictures: bool = False, parent: str | None = None) -> list[str]:
        recipe = dedent(text)
        if "teachers:" not in recipe:
            recipe += "teachers: {manifest: bank/bank.yaml}\n"
        if pictures:
            recipe += "dataset: {use: jsonl, effects: data/effects.jsonl, general: data/general.jsonl}\nmetrics: null\n"
        Path("r.yaml").write_text(f"extends: {parent or RECIPES / 'collection.yaml'}\n{recipe}")
        code = cli.main(["validate", "r.yaml", *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert (code, out) == (2, ""), out + err
        # long paths say nothing here: those of this test, those of the recipes
        return err.replace(f"{folder}/", "").replace(f"{RECIPES}/", "recipes/").splitlines()

    return lines


@pytest.mark.parametrize(
    "dataset", ["emoji", "{use: jsonl, effects: data/effects.jsonl, general: data/general.jsonl}\nmetrics: null"]
)
def test_the_recipe_without_a_mistake_is_valid(folder, capsys, dataset):
    Path("r.yaml").write_text(
        f"extends: {RECIPES / 'collection.yaml'}\nteachers: {{manifest: bank/bank.yaml}}\ndataset: {dataset}\n"
    )
    assert cli.main(["validate", "r.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("valid: nothing stands in the way of this run\n")
    assert err == ""


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train: {stepz: 3}", "r.yaml:2:9: unknown key 'stepz' in train; did you mean 'steps'?"),
        ("routr: pdsr", "r.yaml:2:1: unknown key 'routr'; did you mean 'router'?"),
        ("router: {p_swich: 0.5}", "r.yaml:2:10: unknown key 'p_swich' in router; did you mean 'p_switch'?"),
        ("train: {steps: many}", "r.yaml:2:16: train.steps: expected an integer, found 'many'"),
        (
            "train: {steps: '3'}",
            'r.yaml:2:16: train.steps: expected an integer, found the text "3"; leave the quotes out',
        ),
        ("router: pdrs", "r.yaml:2:9: router has no component 'pdrs'; did you mean 'pdsr'?"),
        ("losses: {more: {use: dmdd}}", "r.yaml:2:22: losses has no component 'dmdd'; did you mean 'dmd'?"),
        ("router: {p_switch: 1.5}", "r.yaml:2:20: router.p_switch must be at most 1.0, found 1.5"),
        ("train: {steps: -1}", "r.yaml:2:16: train.steps must be at least 0, found -1"),
        (
            "losses: {ts_dmd: {tau_min: 1000}}",
            "r.yaml:2:28: losses.ts_dmd.tau_min must be less than 1000.0, found 1000.0",
        ),
        (
            "losses: {bs_dmd: {simulation: backwards}}",
            "r.yaml:2:31: losses.bs_dmd asks for simulation 'backwards', not in `simulations`; "
            "did you mean 'backward'?",
        ),
        ("dataset: {use: jsonl}", "r.yaml:2:1: dataset: give it `effects`, `general` or both, each a JSONL file"),
        ("dataset: {use: jsonl, general: x, size: 0}", "r.yaml:2:41: dataset.size must be at least 1, found 0"),
    ],
)  # fmt: skip
def test_one_mistake_in_the_recipe(told, line, sentence):
    assert told(line + "\n") == [sentence]


def test_a_value_set_on_the_command_line(told):
    assert told("", "--set", "train.stepz=3") == [
        "--set train.stepz: unknown key 'stepz' in train; did you mean 'steps'?"
    ]


def test_a_tau_max_that_leaves_no_step(told):
    (sentence,) = told("simulations: {target: {tau_max: 200}}\n")
    assert sentence.startswith(
        "r.yaml:2:15: simulations.target: tau_max 200 leaves no level of the schedule below it: 1000,"
    )


def test_losses_that_need_a_critic_without_one(told):
    found = told("critic: null\n")
    assert [line.split(": ", 1)[1] for line in found] == [
        f"losses.{name} asks for the critic, but there is no `critic` section" for name in ("bs_dmd", "ts_dmd")
    ]
    assert all(line.startswith("recipes/collection.yaml:") for line in found)


def test_a_file_to_extend_that_is_not_there(told, folder):
    (folder / "parent.yaml").write_text("")
    assert told(parent="parnet.yaml") == [
        "r.yaml:1:10: cannot read parnet.yaml: No such file or directory; did you mean 'parent.yaml'?"
    ]


def test_recipes_that_extend_one_another(told, folder):
    (folder / "other.yaml").write_text("extends: r.yaml\n")
    assert told(parent="other.yaml") == [
        "other.yaml:1:10: recipes extend one another in a circle: r.yaml -> other.yaml -> r.yaml"
    ]


def test_several_mistakes_at_once(told):
    found = told(
        """\
        routr: pdsr
        train:
          steps: many
          lr: 0
        losses:
          bs_dmd: {simulation: backwards, guidance: 1}
        critic: null
        """
    )
    assert found[0].startswith("recipes/collection.yaml:")
    assert found[0].endswith(": losses.ts_dmd asks for the critic, but there is no `critic` section")
    assert found[1:] == [
        "r.yaml:2:1: unknown key 'routr'; did you mean 'router'?",
        "r.yaml:4:10: train.steps: expected an integer, found 'many'",
        "r.yaml:5:7: train.lr must be more than 0.0, found 0.0",
        "r.yaml:7:35: unknown key 'guidance' in losses.bs_dmd; did you mean 'guidance_scale'?",
    ]


def test_several_mistakes_in_parts_that_are_each_well_written(told, folder):
    (folder / "bank/sepia.safetensors").unlink()
    (folder / "data/general.jsonl").write_text('{"source": "c.png"}\n')
    assert told(pictures=True) == [
        "r.yaml:2:1: teachers: bank/bank.yaml:6: lora 'sepia.safetensors': there is no such file",
        "r.yaml:3:1: dataset: data/general.jsonl:1: 'instruction' is missing",
    ]


@pytest.mark.parametrize(
    ("bank", "sentence"),
    [
        (None, "bank/bank.yaml: there is no such manifest"),
        ("", "bank/bank.yaml: the manifest is empty"),
        ("[]", "bank/bank.yaml:1: a bank is a list of teachers, each a mapping that begins `- name:`"),
        (
            entry("thermal", captoin="x"),
            "bank/bank.yaml:5: unknown key 'captoin'; did you mean caption?",
        ),
        (
            entry("thermal", trigger="<hot>") + entry("sepia", trigger="<hot>"),
            "bank/bank.yaml:10: the trigger '<hot>' stands in line 5 already",
        ),
        (
            entry("thermal", lora="../secret.safetensors"),
            "bank/bank.yaml:2: lora '../secret.safetensors' leads out of the manifest's folder; "
            "copy the file beside the manifest",
        ),
    ],
)
def test_a_bank_with_a_mistake(told, folder, bank, sentence):
    path = folder / "bank/bank.yaml"
    path.unlink() if bank is None else path.write_text(bank)
    assert told() == [f"r.yaml:2:1: teachers: {sentence}"]


def test_two_effects_whose_triggers_are_the_same_words(told, folder):
    bank = entry("thermal", trigger="<hot>") + entry("sepia", trigger="'< hot >'")
    (folder / "bank/bank.yaml").write_text(bank)
    (sentence,) = told()
    assert sentence.endswith(": prompts: effects 'thermal' and 'sepia' have the same trigger '<hot>'")


def test_an_effect_that_the_bank_lacks(told):
    assert told("effects: [thermla]\n")[0] == (
        "r.yaml:2:10: effects: the bank has no effect 'thermla'; did you mean 'thermal'?"
    )


def test_an_effect_that_the_world_does_not_know(told, folder):
    (folder / "bank/bank.yaml").write_text(entry("thermla", lora="thermal.safetensors"))
    (sentence,) = told()
    assert sentence.endswith(": dataset: the emoji world knows no effect 'thermla'; did you mean 'thermal'?")


def renamed(path: Path, share: int) -> None:
    """Every `share`-th linear under a name that the backbone does not have."""
    tensors = load_file(path)
    wrong = sorted({name.split(".lora_")[0] for name in tensors})[::share]
    save_file(
        {n.replace("blocks", "bloks") if n.split(".lora_")[0] in wrong else n: t for n, t in tensors.items()}, path
    )


def with_nan(path: Path) -> None:
    tensors = load_file(path)
    tensors[f"{LINEAR}.lora_A.weight"][0, 3] = float("nan")
    save_file(tensors, path)


def with_a_wrong_shape(path: Path) -> None:
    save_file(load_file(path) | {f"{LINEAR}.lora_A.weight": torch.zeros(1, 7)}, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: renamed(p, 1), ["no key names a linear that carries adapters", "bloks", NEAREST]),
        (lambda p: renamed(p, 2), ["84 of 168 keys name no linear that carries adapters", "bloks", NEAREST]),
        (with_nan, [f"NaN or infinity in '{LINEAR}.lora_A.weight'"]),
        (with_a_wrong_shape, ["transformer_blocks.0.attn.to_q: A [1, 7]", "do not fit a linear of 128 -> 128"]),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), ["truncated"]),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), ["truncated: the header claims"]),
        (lambda p: p.write_bytes(b""), ["not a safetensors file: it has only 0 bytes"]),
        (lambda p: p.write_bytes(pickle.dumps({"a": 1})), ["this is a pickle, which can run code"]),
        (lambda p: torch.save({"a": torch.zeros(3)}, p), ["this is a pickle, which can run code"]),
    ],
)  # fmt: skip
def test_a_teacher_file_with_a_mistake(told, folder, spoil, words):
    spoil(folder / "bank/sepia.safetensors")
    (sentence,) = told()
    assert sentence.startswith("r.yaml:2:1: teachers: sepia: bank/sepia.safetensors: ")
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"source": "a.png",}', "1:20: not JSON: "),
        ('{"sorce": "a.png", "effect": "sepia"}', "1: unknown key 'sorce'; did you mean 'source'?"),
        ('{"source": "a.png", "effect": 3}', "1: effect must be text, found the number 3"),
        ('{"source": "a.jpg", "effect": "wool"}', "1: source 'a.jpg': there is no such picture; did you mean 'a.png'?"),
        ('{"source": "words.png", "effect": "sepia"}', "1: source data/words.png is not a picture that can be read"),
        (
            '{"source": "enormous.png", "effect": "sepia"}',
            "1: source data/enormous.png has hundreds of millions of pixels; at most 64,000,000 are read",
        ),
        (
            '{"source": "../secret.png", "effect": "sepia"}',
            "1: source '../secret.png' leads out of the file's folder; put the pictures beside the file or below it",
        ),
        ("", ": is empty"),
    ],
)  # fmt: skip
def test_a_list_of_pictures_with_a_mistake(told, folder, line, sentence):
    (folder / "data/words.png").write_text("these are words")
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    (folder / "data/enormous.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (folder / "data/effects.jsonl").write_text(f"{line}\n")
    found = told(pictures=True)[0]
    assert found.startswith(f"r.yaml:3:1: dataset: data/effects.jsonl:{sentence.removeprefix(':')}"), found


def test_a_dataset_without_pictures_for_an_effect_or_a_split(told, folder):
    (folder / "data/effects.jsonl").write_text('{"source": "a.png", "effect": "sepai", "split": "train"}\n')
    assert [line.split(": dataset: ")[1] for line in told(pictures=True)] == [
        "data/effects.jsonl has no line of the effect 'thermal'; it has sepai",
        "data/effects.jsonl has no line of the effect 'sepia'; did you mean 'sepai'?",
    ]
    rows = [{"source": "a.png", "effect": effect, "split": "train"} for effect in EFFECTS]
    (folder / "data/effects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [line.split(": dataset: ")[1] for line in told(pictures=True)] == [
        "no test pictures for the effect thermal",
        "no test pictures for the effect sepia",
    ]


def test_a_metric_that_cannot_measure_the_dataset_is_told_before_the_training(told):
    (line,) = told("dataset: {use: jsonl, effects: data/effects.jsonl, general: data/general.jsonl}\n")
    assert line.startswith("recipes/worlds/emoji.yaml:6:3: metrics.truth: the dataset does not know")
    assert line.endswith("leave this metric out with `metrics: null`")


def test_a_dataset_without_a_general_stream(told):
    assert told("dataset: {use: jsonl, effects: data/effects.jsonl}\nmetrics: null\n") == [
        "r.yaml:2:1: dataset: the general stream has no pictures"
    ]
