"""Bad recipes, through the command line and the plugins that ship: every mistake at its place, none as a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora import cli

RECIPES = Path(__file__).parents[2] / "recipes"


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
        ("router: {p_switch: 1.5}", "r.yaml:2:20: router.p_switch must be between 0 and 1, found 1.5"),
        ("train: {steps: -1}", "r.yaml:2:16: train.steps must be between 0 and 1,000,000, found -1"),
        (
            "losses: {ts_dmd: {tau_min: 1000}}",
            "r.yaml:2:28: losses.ts_dmd.tau_min must be at least 0 and less than 1000, found 1000.0",
        ),
        (
            "losses: {bs_dmd: {simulation: backwards}}",
            "r.yaml:2:31: losses.bs_dmd asks for simulation 'backwards', not in `simulations`; "
            "did you mean 'backward'?",
        ),
        ("dataset: {use: jsonl}", "r.yaml:2:1: dataset: give it `effects`, `general` or both, each a list or a folder"),
        ("dataset: {use: jsonl, general: x, size: 0}", "r.yaml:2:41: dataset.size must be between 1 and 8000, found 0"),
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
        "r.yaml:5:7: train.lr must be between 1e-10 and 1, found 0.0",
        "r.yaml:7:35: unknown key 'guidance' in losses.bs_dmd; did you mean 'guidance_scale'?",
    ]


def test_several_mistakes_in_parts_that_are_each_well_written(told, folder):
    (folder / "bank/sepia.safetensors").unlink()
    (folder / "data/general.jsonl").write_text('{"source": "c.png"}\n')
    assert told(pictures=True) == [
        "r.yaml:2:1: teachers: bank/bank.yaml:6: lora 'sepia.safetensors': there is no such file",
        "r.yaml:3:1: dataset: data/general.jsonl:1: 'instruction' is missing",
    ]
