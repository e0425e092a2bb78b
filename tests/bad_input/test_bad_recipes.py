"""Bad recipes, through the command line and the plugins that ship: every mistake at its place, none as a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora import cli
from clora.config import RecipeError, load_recipe
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.runs.job import make_job
from clora.runs.run_dir import RunDir

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

PATHS = ("a\0b", "a\udcffb", "a" * 256, "a/" * 2_500)
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
        "r.yaml:2:15: simulations.target: tau_max 200 (76.92 at shift 1) leaves no level of the schedule below it: "
        "1000, 875, 750"
    )


def test_losses_that_need_a_critic_without_one(told):
    found = told("critic: null\n")
    assert [line.split(": ", 1)[1] for line in found] == [
        f"losses.{name} asks for the critic, but there is no `critic` section" for name in ("bs_dmd", "ts_dmd")
    ]
    # the way to a file is told before its first mistake
    assert [line.split("recipes/collection.yaml:")[0] for line in found] == ["r.yaml:1:10 -> ", ""]


def test_a_file_to_extend_that_is_not_there(told, folder):
    (folder / "parent.yaml").write_text("")
    assert told(parent="parnet.yaml") == [
        "r.yaml:1:10: cannot read parnet.yaml: No such file or directory; did you mean 'parent.yaml'?"
    ]


def test_recipes_that_extend_one_another(told, folder):
    (folder / "other.yaml").write_text("extends: r.yaml\n")
    assert told(parent="other.yaml") == [
        "r.yaml:1:10 -> other.yaml:1:10: recipes extend one another in a circle: r.yaml -> other.yaml -> r.yaml"
    ]


def test_several_mistakes_at_once(told):
    found = told(
        """\
        routr: pdsr
        train:
          steps: many
          lr: 0
        losses:
          bs_dmd: {simulation: backwards, guidance_scal: 1}
        critic: null
        """
    )
    assert found[0].startswith("r.yaml:1:10 -> recipes/collection.yaml:")
    assert found[0].endswith(": losses.ts_dmd asks for the critic, but there is no `critic` section")
    assert found[1:] == [
        "r.yaml:2:1: unknown key 'routr'; did you mean 'router'?",
        "r.yaml:4:10: train.steps: expected an integer, found 'many'",
        "r.yaml:5:7: train.lr must be between 1e-10 and 1, found 0.0",
        "r.yaml:7:35: unknown key 'guidance_scal' in losses.bs_dmd; did you mean 'guidance_scale'?",
    ]


def test_several_mistakes_in_parts_that_are_each_well_written(told, folder):
    (folder / "bank/sepia.safetensors").unlink()
    (folder / "data/general.jsonl").write_text('{"source": "c.png"}\n')
    assert told(pictures=True) == [
        "r.yaml:2:1: teachers: bank/bank.yaml:6: lora 'sepia.safetensors': there is no such file",
        "r.yaml:3:1: dataset: data/general.jsonl:1: 'instruction' is missing",
    ]


def test_little_is_repeated_of_a_file_that_is_no_recipe(told, folder):
    passwd = "root:x:0:0:the administrator:/root:/bin/bash\n" * 200
    (folder / "passwd").write_text(passwd)
    start = "'root:x:0:0:the administrator:/root:/bin/bash root:x:0:0:the ' (8,939 more characters)"
    sentence = f"expected a mapping of sections, found {start}"
    assert told(parent="passwd") == [f"r.yaml:1:10 -> passwd:1:1: {sentence}"]
    assert told("", "--with", "passwd") == [f"r.yaml --with -> passwd:1:1: {sentence}"]
    assert told("serve: {plus: passwd}\n") == [f"r.yaml:2:15 -> passwd:1:1: {sentence}"]


def test_recipes_that_add_one_another(told, folder):
    assert told("serve: {plus: r.yaml}\n") == [
        "r.yaml:2:15: serve.plus: recipes add one another in a circle: r.yaml -> r.yaml"
    ]


def test_an_added_recipe_is_checked_as_thoroughly(told, folder):
    (folder / "b.yaml").write_text(f"extends: {RECIPES / 'collection.yaml'}\nteachers: {{manifest: no.yaml}}\n")
    (line,) = told("serve: {plus: b.yaml}\n")
    assert line.startswith("r.yaml:2:15 -> b.yaml:2:")
    assert "no.yaml" in line


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("option", ["--runs", "--run-dir"])
@pytest.mark.parametrize("command", ["run", "prepare"])
def test_a_run_folder_that_no_file_system_takes(folder, capsys, path, option, command):
    assert cli.main([command, "r.yaml", option, path]) == 2
    check_one_line(capsys.readouterr(), option)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("command", [["evaluate"], ["export"], ["sample", "--image", "a.png", "--effect", "sepia"]])
def test_a_finished_run_s_folder_that_no_file_system_takes(folder, capsys, path, command):
    assert cli.main([command[0], path, *command[1:]]) == 2
    check_one_line(capsys.readouterr(), "RUN")


def check_one_line(printed, word: str) -> None:
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith(f"{word}: the path '")
    assert printed.err.strip().isprintable()


def test_an_added_recipe_that_was_spoilt_since_is_told_when_the_job_is_made(folder):
    bank = f"extends: {RECIPES / 'collection.yaml'}\nteachers: {{manifest: bank/bank.yaml}}\n"
    Path("b.yaml").write_text(bank)
    Path("r.yaml").write_text(bank + "serve: {plus: b.yaml}\n")
    catalogue = discover()
    plan = make_plan(load_recipe("r.yaml", (), (), catalogue))
    job = make_job(plan, catalogue, RunDir(folder / "runs/r"))
    assert job.plus is not None
    assert job.plus.plan.recipe.name == "b"
    Path("b.yaml").write_text(bank + "train: {steps: many}\n")
    with pytest.raises(RecipeError, match=r"^r's serve.plus -> b.yaml:3:16: train.steps: expected an integer"):
        make_job(plan, catalogue, RunDir(folder / "runs/r"))
    Path("b.yaml").write_text(bank + "serve: {plus: r.yaml}\n")
    with pytest.raises(RecipeError, match=r"in a circle: b.yaml -> r.yaml -> b.yaml"):
        make_job(plan, catalogue, RunDir(folder / "runs/r"))
