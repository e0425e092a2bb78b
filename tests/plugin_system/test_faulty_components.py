"""What a stranger's component does wrong is refused by its place, its plugin and its line, wherever it does it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distribution import write_distribution
from two_effects import RECIPE, TwoEffects

from clora import cli
from clora.config.problems import RecipeError
from clora.contracts.evaluation import Evaluation
from clora.planning.cost import count
from clora.planning.plan import Plan
from clora.plugin_system.guard import ComponentError
from clora.runs.files.results import Results
from clora.runs.run_dir import RunDir
from clora.runs.stages.measuring import measure
from clora.runs.stages.report import report
from clora.testing.reports import example_report
from clora.training.forward_scheduler import run_together

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

SOURCE = """
import torch
from attrs import frozen
from clora.api import (
    Await, CloraError, Component, LossTerm, Measured, PictureGrid, Prompts, Quantity, Reference, Route, Row, Simulated,
    hookimpl,
)

WELL = "all is well"
WORST = {"worst": PictureGrid(("cat",), {"student": torch.zeros(1, 3, 2, 2)})}
TWO = {"a": Quantity("lower"), "c": Quantity(reference=Reference("base", "a"))}


@frozen
class Asks:
    how: str
    streams: tuple[str, ...] = ("effect", "general")
    weight: float = 1.0

    def __call__(self, step):
        x, sigma = step.targets, torch.ones(len(step.rows))
        good = step.forward("student", x, sigma, grad=True)
        yield {
            "text": "student", "list": [good], "none": None, "number": 3, "tuple": (good, "more"), "dict": {"a": 1},
            "sigma": step.forward("student", x, 0.5, grad=True),
            "sigmas": step.forward("student", x, torch.ones(len(x) + 1), grad=True),
            "rows": step.forward("student", x[:-1], sigma, grad=True),
            "channels": step.forward("student", x.repeat(1, 2, 1, 1), sigma, grad=True),
            "pixels": step.forward("student", 3.0, sigma, grad=True),
            "role": step.forward("teecher", x, sigma) if self.how == "role" else good,
            "nobody": Await("bakward"),
        }[self.how]
        return LossTerm(x.sum())


@frozen
class Gives:
    how: str
    streams: tuple[str, ...] = ("effect", "general")
    weight: float = 1.0

    def __call__(self, step):
        velocity = yield step.forward("student", step.targets, torch.ones(len(step.rows)), grad=True)
        loss = velocity.square().mean()
        if self.how == "raises":
            raise ValueError("the ink has run out")
        if self.how == "exits":
            raise SystemExit(3)
        return {
            "nothing": None, "number": 0.5, "tensor": loss, "rows": LossTerm(velocity.square().flatten(1).mean(1)),
            "whole": LossTerm(torch.tensor(3)), "logs": LossTerm(loss, [1]), "log": LossTerm(loss, {"error": loss}),
            "constant": LossTerm(loss.detach()),
        }[self.how]


@frozen
class NoGenerator:
    streams: tuple[str, ...] = ("effect", "general")
    weight: float = 1.0

    def __call__(self, step):
        return LossTerm(step.targets.sum())


@frozen
class NoWeight:
    streams: tuple[str, ...] = ("effect",)

    def __call__(self, step):
        yield


@frozen
class NoCall:
    streams: tuple[str, ...] = ("effect",)
    weight: float = 1.0


@frozen
class Misspelt(NoGenerator):
    def weigth_at(self, progress):
        return 1.0


@frozen
class Simulates:
    how: str

    def check_schedule(self, schedule):
        if self.how == "check raises":
            raise KeyError("levels")
        return {"check": "no step is left", "numbers": [1]}.get(self.how, ())

    def simulate(self, step):
        x, sigma = step.targets, torch.ones(len(step.rows))
        velocity = yield step.forward("student", x, sigma, grad=True)
        return {
            "nothing": None,
            "rows": Simulated(step.rows[:-1], x, sigma, velocity),
            "shape": Simulated(step.rows, x, sigma, velocity[:, :, :1]),
        }.get(self.how, Simulated(step.rows, x, sigma, velocity))


@frozen
class Routes:
    how: str

    def route(self, rng, rows, effects):
        if self.how == "raises":
            return effects[99]
        good = [Row("effect", effects[0])] * rows
        return {
            "list": good, "few": Route(tuple(good[1:])), "many": Route(tuple(good * 2)),
            "text": Route(tuple(["effect"] * rows)),
            "stream": Route((*good[1:], Row("genral"))), "effect": Route((*good[1:], Row("effect", "termal"))),
            "none": Route((*good[1:], Row("effect"))), "both": Route((*good[1:], Row("general", effects[0]))),
        }[self.how]


@frozen
class NoRoute:
    pass


@frozen
class RouteIsAValue:
    route: int = 3


@frozen
class Words:
    how: str

    def effect(self, card):
        if self.how == "raises":
            raise LookupError(card.name)
        others = {"nothing": None, "text": card.name, "number": Prompts(card.name, 3)}
        return others.get(self.how, Prompts(card.name, "a"))

    def general(self, item):
        return None if self.how == "general" else Prompts(item.instruction, item.instruction)


@frozen
class Measures:
    how: str = "twice"

    def measure(self, evaluation):
        if self.how == "raises":
            raise IndexError("no pictures")
        return {
            "nothing": None, "text": Measured({"a": "much"}), "none": Measured({"a": None}),
            "unknown": Measured({"ants": 1.0}, {"ant": Quantity("lower")}), "nan": Measured({"a": float("nan")}),
            "sideways": Measured({"a": 1.0}, {"a": Quantity("left")}), "word": Measured({"a": 1.0}, {"a": "lower"}),
            "beside": Measured({"a": 1.0}, {"a": Quantity(reference=Reference("base", "b"))}),
            "few": Measured({}, grids={"worst": PictureGrid(("a", "b"), {"student": torch.zeros(1, 3, 2, 2)})}),
            "unlike": Measured({}, grids={"worst": PictureGrid(("a",), {"x": torch.zeros(1, 3, 2, 2), "y": 3})}),
            "rows": Measured({}, grids={"worst": {"student": torch.zeros(1, 3, 2, 2)}}),
            "lines": Measured({"a": 1.0}, summary="good\\nbad"),
        }.get(self.how, Measured({"a": 1.0, "c": 0.5}, TWO, {"thermal": {"a": 2.0}}, grids=WORST, summary=WELL))


@hookimpl
def clora_losses():
    return [Component(c.__name__, c) for c in (Asks, Gives, NoGenerator, NoWeight, NoCall, Misspelt)]


@hookimpl
def clora_simulations():
    return [Component("Simulates", Simulates)]


@hookimpl
def clora_routers():
    return [Component(c.__name__, c) for c in (Routes, NoRoute, RouteIsAValue)]


@hookimpl
def clora_prompts():
    return [Component("Words", Words)]


@hookimpl
def clora_metrics():
    return [Component("Measures", Measures)]


@frozen
class Tells:
    how: str = "well"
    file: str = "told.txt"

    def files(self):
        if self.how == "files_raise":
            raise OSError("no names")
        return {"files_text": self.file, "files_number": 3}.get(self.how, [self.file])

    def report(self, run):
        if self.how == "raises":
            raise ZeroDivisionError("no updates")
        if self.how == "says":
            raise CloraError("the tracker does not answer")
        contents = {"number": 3, "surrogate": "\\ud800"}
        if self.how in contents:
            return {self.file: contents[self.how]}
        others = {"nothing": None, "other": {"else.txt": ""}, "none": {}}
        return others.get(self.how, {self.file: f"{run.title} \\u00e9"})


@hookimpl
def clora_reporters():
    return [Component("Tells", Tells)]


@hookimpl
def clora_run_started(run):
    raise SystemExit(4)
"""
SMALL = TwoEffects(("warm_start=null",))
OWNER = r"\(\w+ of faulty 0\.3, --set \S+\)"


@pytest.fixture(autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The faulty distribution beside the real ones."""
    site = tmp_path_factory.mktemp("site")
    (site / "faulty_parts.py").write_text(SOURCE)
    write_distribution(site, "faulty", {"faulty": "faulty_parts"}, "0.3")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "faulty_parts", raising=False)
    yield
    sys.modules.pop("faulty_parts", None)


def plan_with(*sets: str) -> Plan:
    return SMALL.plan(*sets)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("{use: Asks, how: text}", "yielded str 'student'; expected a Forward, a tuple or a dict of them, or an Await"),
        ("{use: Asks, how: list}", "yielded list .*; expected a Forward"),
        ("{use: Asks, how: none}", "yielded None; expected a Forward"),
        ("{use: Asks, how: number}", "yielded int 3; expected a Forward"),
        ("{use: Asks, how: tuple}", "yielded str 'more'; expected a Forward"),
        ("{use: Asks, how: dict}", "yielded int 1; expected a Forward"),
        ("{use: Asks, how: sigma}", r"yielded a Forward whose sigma is float 0.5; expected \[4\], a number for each"),
        ("{use: Asks, how: sigmas}", r"whose sigma is a tensor \[5\] of torch.float32; expected \[4\]"),
        (
            "{use: Asks, how: rows}",
            r"x_sigma is a tensor \[3, 48, 4, 4\] .*; expected \[4, 48, 4, 4\], a row for",
        ),
        ("{use: Asks, how: channels}", r"whose x_sigma is a tensor \[4, 96, 4, 4\] .*; expected \[4, 48, 4, 4\]"),
        ("{use: Asks, how: pixels}", r"whose x_sigma is float 3.0; expected \[4, 48, 4, 4\]"),
        ("{use: Asks, how: role}", "yielded a Forward of the role 'teecher'; the roles are student, critic, teacher"),
        ("{use: Asks, how: nobody}", "awaits the simulation 'bakward', which never comes"),
        ("{use: Gives, how: nothing}", "returned None; expected a LossTerm"),
        ("{use: Gives, how: number}", "returned float 0.5; expected a LossTerm"),
        ("{use: Gives, how: tensor}", r"returned a tensor \[\] of torch.float32; expected a LossTerm"),
        ("{use: Gives, how: rows}", r"a LossTerm whose loss is a tensor \[4\] of torch.float32; expected one number"),
        ("{use: Gives, how: whole}", r"a LossTerm whose loss is a tensor \[\] of torch.int64; expected one number"),
        ("{use: Gives, how: logs}", r"returned logs that are list \[1\]; expected a mapping"),
        (
            "{use: Gives, how: log}",
            r"the log 'error', which is a tensor \[\] of torch.float32; expected a number",
        ),
        ("{use: Gives, how: constant}", "its loss has no gradient: no forward had any"),
        ("{use: Gives, how: raises}", r"ValueError: the ink has run out at faulty_parts\.py:\d+"),
        ("{use: Gives, how: exits}", r"SystemExit: 3 at faulty_parts\.py:\d+"),
        ("NoGenerator", r"expected a generator, which yields the forwards that it needs, and got LossTerm"),
    ],
)
def test_a_loss_that_breaks_its_contract_is_named(loss: str, sentence: str) -> None:
    only = ("losses={bs_dmd: null, ts_dmd: null, ta_fm: null}", "critic=null", "simulations=null")
    plan = plan_with(*only, f"losses.mine={loss}")
    with pytest.raises(ComponentError, match=rf"^losses\.mine {OWNER}: .*{sentence}"):
        count(plan, cycles=1)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nothing", "returned None; expected a Simulated"),
        ("rows", r"returned the rows \[.*\]; expected those of its step, \[.*\]"),
        ("shape", r"returned a Simulated whose x0 is a tensor \[\d, 48, 1, 4\] of .*; expected \[\d, 48, 4, 4\]"),
    ],
)
def test_a_simulation_that_breaks_its_contract_is_named_and_not_the_loss_that_reads_it(how: str, sentence: str) -> None:
    plan = plan_with(f"simulations.backward={{use: Simulates, how: {how}}}")
    with pytest.raises(ComponentError, match=rf"^simulations\.backward {OWNER}: {sentence}"):
        count(plan, cycles=1)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("list", r"gave list \[.*; expected a Route"),
        ("few", "gave a route of 3 rows; expected 4, as many as it was asked for"),
        ("many", "gave a route of 8 rows; expected 4"),
        ("text", "gave a route with str 'effect' in it; expected Rows"),
        ("stream", "gave a row of the stream 'genral'; did you mean 'general'?"),
        ("effect", "gave a row of the effect stream with 'termal'; did you mean 'thermal'?"),
        ("none", "gave a row of the effect stream with None; known: duotone_ocean, thermal"),
        ("both", "gave a row of the general stream with the effect 'duotone_ocean'; expected None"),
        ("raises", r"IndexError: list index out of range at faulty_parts\.py:\d+"),
    ],
)
def test_a_router_whose_route_is_none_is_named_before_the_run(how: str, sentence: str) -> None:
    with pytest.raises(ComponentError, match=rf"^router {OWNER}: {sentence}".replace("?", r"\?")):
        plan_with(f"router={{use: Routes, how: {how}}}")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nothing", "gave None for 'duotone_ocean'; expected Prompts"),
        ("text", "gave str 'duotone_ocean' for 'duotone_ocean'; expected Prompts"),
        ("number", "gave int 3 as the teacher's words for 'duotone_ocean'; expected a text"),
        ("raises", r"LookupError: duotone_ocean at faulty_parts\.py:\d+"),
    ],
)
def test_a_prompt_strategy_that_gives_no_prompts_is_named_before_the_run(how: str, sentence: str) -> None:
    with pytest.raises(ComponentError, match=rf"^prompts {OWNER}: {sentence}"):
        plan_with(f"prompts={{use: Words, how: {how}}}")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("losses.mine=NoWeight", "losses.mine: 'NoWeight' is no Loss: it has no weight"),
        ("losses.mine=NoCall", "losses.mine: 'NoCall' is no Loss: it has no __call__"),
        ("router=NoRoute", "router: 'NoRoute' is no Router: it has no route"),
        ("router=RouteIsAValue", "router: 'RouteIsAValue' is no Router: its route is no method"),
        (
            "simulations.backward={use: Simulates, how: check}",
            "check_schedule gave str 'no step is left'; expected a",
        ),
        ("simulations.backward={use: Simulates, how: numbers}", "its check_schedule gave list [1]; expected a list of"),
        (
            "simulations.backward={use: Simulates, how: check raises}",
            "check_schedule raised KeyError: 'levels' at fa",
        ),
    ],
)
def test_what_a_component_lacks_is_told_as_a_mistake_of_the_recipe(setting: str, sentence: str, capsys) -> None:
    words = [part for text in (*SMALL.words, setting) for part in ("--set", text)]
    assert cli.main(["validate", str(RECIPE), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_misspelt_ability_is_doubtful() -> None:
    plan = plan_with("losses.mine=Misspelt")
    (told,) = [line for line in plan.warnings if "Misspelt" in line]
    assert "losses.mine: nobody calls the method 'weigth_at' of 'Misspelt'; did you mean 'weight_at'?" in told
    assert not plan_with().warnings


def test_a_command_ends_with_one_line_and_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = (*SMALL.words, "losses.mine={use: Gives, how: raises}")
    words = ["run", str(RECIPE), "--runs", str(tmp_path), *(part for text in sets for part in ("--set", text))]
    with pytest.warns(RuntimeWarning, match="plugin faulty: clora_run_started raised SystemExit: 4"):
        assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("losses.mine (Gives of faulty 0.3, --set losses.mine): ValueError: the ink")
    with pytest.warns(RuntimeWarning, match="SystemExit"):
        assert cli.main([*words, "--traceback"]) == 1
    assert 'raise ValueError("the ink has run out")' in capsys.readouterr().err


def test_calls_are_traced_where_that_is_asked_for(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    count(plan_with(), cycles=1)
    assert "trace:" not in capsys.readouterr().err
    monkeypatch.setenv("CLORA_TRACE", "1")
    count(plan_with(), cycles=1)
    lines = capsys.readouterr().err.splitlines()
    sentence = re.compile(r"trace: +\d+\.\d{3} ms  losses\.bs_dmd  \(dmd of clora 0\.1\.0, .*\)")
    assert any(sentence.fullmatch(line) for line in lines)
    places = {line.split()[3] for line in lines}
    assert places >= {"router", "prompts", "simulations.backward", "critic.losses.on_target"}


def test_the_line_is_the_components_own_wherever_it_is_installed(tmp_path: Path, monkeypatch) -> None:
    home = tmp_path / "site-packages/far_house"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("from far_house.inner import deep\ndef call():\n    deep()\n    yield\n")
    (home / "inner.py").write_text("import json\ndef deep():\n    x = 1\n    json.loads('{')\n")
    monkeypatch.syspath_prepend(str(home.parent))
    import far_house

    with pytest.raises(ComponentError, match=r"^losses\.far: JSONDecodeError: .* at inner\.py:4$"):
        run_together({}, {"far": far_house.call()}, lambda forwards: [])
    sys.modules.pop("far_house"), sys.modules.pop("far_house.inner")


def test_a_component_that_cannot_be_counted_stands_in_the_way_of_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    sets = (*SMALL.words, "losses.mine={use: Gives, how: raises}")
    assert cli.main(["validate", str(RECIPE), *(part for text in sets for part in ("--set", text))]) == 0
    out = capsys.readouterr().out
    assert "not counted" in out
    assert "losses.mine (Gives of faulty 0.3, --set losses.mine): ValueError: the ink has run out" in out


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nothing", "gave None; expected a Measured"),
        ("text", "gave 'a' in its values as str 'much'; expected a number"),
        ("none", "gave 'a' in its values as None; expected a number"),
        ("unknown", r"describes 'ant', which is none of its numbers; did you mean 'ants'\?"),
        ("sideways", "says of 'a' that 'left' is better; expected lower, higher or None"),
        ("word", "describes 'a' as str 'lower'; expected a Quantity"),
        ("beside", "sees 'a' beside 'b', which is none of its numbers"),
        ("few", r"gave the row 'student' of 'worst' as a tensor .*; expected \[2, 3, H, W\], a picture for each"),
        ("unlike", r"gave the row 'y' of 'worst' as int 3; expected \[1, 3, H, W\]"),
        ("rows", "gave 'worst' as dict .*; expected a PictureGrid"),
        ("lines", "gave str .* as its summary; expected one line of text"),
        ("raises", r"IndexError: no pictures at faulty_parts\.py:\d+"),
    ],
)
def test_a_metric_that_gives_no_findings_is_named(how: str, sentence: str) -> None:
    plan = plan_with(f"metrics={{mine: {{use: Measures, how: {how}}}}}")
    with pytest.raises(ComponentError, match=rf"^metrics\.mine {OWNER}: {sentence}"):
        measure(plan, Evaluation([], None), Results(), lambda text: None)


def test_metrics_of_one_kind_stand_side_by_side_and_what_is_no_number_is_told() -> None:
    plan = plan_with("metrics={one: Measures, two: Measures, three: {use: Measures, how: nan}}")
    told: list[str] = []
    found, pictures = measure(plan, Evaluation([], None), Results(), told.append)
    assert list(found.values) == ["a", "c", "two.a", "two.c", "three.a"]
    assert found.better == {"a": "lower", "two.a": "lower"}
    assert [found.quantities[name].reference.of for name in ("c", "two.c")] == ["a", "two.a"]
    assert list(found.grids) == ["worst", "two.worst"]
    assert found.measured(pictures).grids["two.worst"].rows["student"].shape == (1, 3, 2, 2)
    assert found.measured(pictures).summary == "all is well"
    assert found.per_effect == {"thermal": {"a": 2.0, "two.a": 2.0}}
    assert told == ["metrics.three: three.a is not a finite number"]
    assert found.tree()["values"]["three.a"] is None


@pytest.mark.parametrize(
    ("reporters", "sentence"),
    [
        ("{mine: {use: Tells, how: files_raise}}", "its files raised OSError: no names at faulty_parts.py:"),
        ("{mine: {use: Tells, how: files_text}}", "its files gave str 'told.txt'; expected a list of the names"),
        ("{mine: {use: Tells, how: files_number}}", "its files gave int 3; expected a list of the names"),
        ("{mine: {use: Tells, file: /etc/passwd}}", "'/etc/passwd' is no name for a file in the run's folder"),
        ("{mine: {use: Tells, file: ../told.txt}}", "'../told.txt' is no name for a file in the run's folder"),
        ("{mine: {use: Tells, file: 'nul.txt'}}", "'nul.txt' is no name for a file in the run's folder"),
        ("{mine: {use: Tells, file: ''}}", "'' is no name for a file in the run's folder"),
        ("{mine: {use: Tells, file: Export/a.txt}}", "would stand where the run writes 'export'; choose another name"),
        ("{a: Tells, mine: {use: Tells, file: TOLD.txt}}", "would stand where reporters.a writes 'told.txt'"),
        ("{a: Tells, mine: {use: Tells, file: told.txt/b}}", "would stand where reporters.a writes 'told.txt'"),
    ],
)
def test_files_that_a_reporter_may_not_write_are_refused_before_the_run(reporters: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_with(f"reporters={reporters}")
    assert len(caught.value.problems) == 1
    assert "reporters.mine: " in str(caught.value)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("raises", r"ZeroDivisionError: no updates at faulty_parts\.py:\d+"),
        ("says", "the tracker does not answer"),
        ("nothing", "gave None; expected a mapping of 'told.txt' to contents"),
        ("other", r"gave a file 'else.txt', which its files\(\) do not name"),
        ("none", r"gave no 'told.txt', which its files\(\) name"),
        ("number", "gave int 3 for 'told.txt'; expected text or bytes"),
        ("surrogate", "gave text for 'told.txt' that UTF-8 cannot hold"),
    ],
)
def test_a_reporter_that_breaks_its_contract_is_named_once_the_others_have_told(
    how: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_with(f"reporters={{mine: {{use: Tells, how: {how}}}, good: {{use: Tells, file: b/good.txt}}}}")
    monkeypatch.setattr("clora.runs.stages.report.gather", lambda *_: example_report())
    with pytest.raises(ComponentError, match=rf"^reporters\.mine {OWNER}: {sentence}"):
        report(plan, example_report().run, pytest.fail, RunDir(tmp_path), None)
    assert (tmp_path / "b/good.txt").read_text(encoding="utf-8") == "An example with clay \u00e9"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "report.html"], (
        "nothing of the faulty one is written"
    )


def test_reporters_decide_nothing_of_the_run() -> None:
    one, other = plan_with(), plan_with("reporters={page: null, mine: Tells}")
    assert one.digest == other.digest
    assert one.warm == other.warm
    assert one.reporters_digest != other.reporters_digest
