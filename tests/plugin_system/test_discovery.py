"""The catalogue: what is found, what is set aside and why, and how a name is chosen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from distribution import write_distribution

from clora.config.load import load_recipe
from clora.config.problems import RecipeError
from clora.contracts.run import RunInfo
from clora.errors import CloraError
from clora.plugin_system.discovery import BLOCK_VARIABLE, Plugin, discover
from clora.plugin_system.source_hash import source_digest

ROUTER = """
    from attrs import frozen
    from clora.api import Component, hookimpl

    @frozen
    class Even:
        p: float = 0.5

    @hookimpl
    def clora_routers():
        return [Component("even", Even)]
"""


def only(state: str) -> list[Plugin]:
    return [p for p in discover().plugins if p.state == state and "CLORA_BLOCK" not in p.reason]


def broken(install, source: str) -> str:
    install("bad-house", {"bad": source})
    (plugin,) = only("broken")
    assert (plugin.name, plugin.distribution, plugin.version) == ("bad", "bad-house", "1.0")
    assert "\n" not in plugin.reason
    return plugin.reason


def hook(body: str, name: str = "clora_routers") -> str:
    return (
        "from attrs import frozen\nfrom clora.api import Component, hookimpl\n"
        f"@frozen\nclass A: pass\n@hookimpl\ndef {name}():\n    {body}\n"
    )


def test_a_plugin_is_found_through_its_entry_point(install) -> None:
    install("effects-house", {"even": ROUTER}, version="2.1")
    found = discover().find("router", "even")
    assert (found.cls.__name__, found.plugin, found.distribution, found.version) == (
        "Even",
        "even",
        "effects-house",
        "2.1",
    )


def test_a_plugin_that_cannot_be_imported_stops_no_other(install) -> None:
    install("good-house", {"even": ROUTER})
    assert "cannot import bad_house_bad: ModuleNotFoundError" in broken(install, "import no_such_package")
    assert discover().find("router", "even").distribution == "good-house"


def test_a_plugin_that_exits_when_imported_is_only_broken(install) -> None:
    assert "SystemExit" in broken(install, "raise SystemExit(3)")


def test_a_misspelt_hook_names_the_nearest(install) -> None:
    reason = broken(install, hook("return []", name="clora_router"))
    assert reason == "no hook is named 'clora_router'; did you mean 'clora_routers'?"


def test_a_hook_that_asks_for_unknown_arguments_is_named(install) -> None:
    source = "from clora.api import hookimpl\n@hookimpl\ndef clora_run_started(run, colour): pass\n"
    assert "colour" in broken(install, source)


def test_a_module_without_hooks_is_told(install) -> None:
    assert "no function marked with @hookimpl" in broken(install, "def clora_routers(): return []")


def test_a_plugin_that_raises_when_looked_at_is_only_broken(install) -> None:
    source = "import sys\nclass P:\n    def __dir__(self): raise KeyError('x')\nsys.modules[__name__] = P()\n"
    assert broken(install, source) == "KeyError: 'x'"


@pytest.mark.parametrize(("said", "fine"), [("1", True), ("2", False), ("'1'", False), ("None", False)])
def test_a_plugin_for_other_hooks_is_told_both_versions(install, said: str, fine: bool) -> None:
    source = f"clora_hook_version = {said}\n" + hook("return [Component('a', A)]")
    if fine:
        install("good-house", {"good": source})
        assert discover().find("router", "a").distribution == "good-house"
        return
    assert broken(install, source) == (
        f"it is written for version {said} of the hooks, and clora 0.1.0 has version 1; "
        "install a bad-house for this clora, or a clora for that bad-house"
    )


def test_a_wrapper_is_refused(install) -> None:
    source = "from clora.api import hookimpl\n@hookimpl(wrapper=True)\ndef clora_routers():\n    return (yield)\n"
    assert "clora_routers is a wrapper" in broken(install, source)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return None", "clora_routers must return list[Component], not NoneType"),
        ("return (Component('a', A),)", "clora_routers must return list[Component], not tuple"),
        ("return [A]", "clora_routers must return list[Component], but the list holds <class"),
        ("return [Component('a', dict)]", "clora_routers: the class of 'a' must be an attrs class, not <class 'dict'>"),
        ("return [Component('a', A())]", "clora_routers: the class of 'a' must be an attrs class, not A()"),
        ("return [Component('a b', A)]", "clora_routers: 'a b' is no name"),
        ("return [Component('a', 'house.A')]", "clora_routers: the class of 'a' must be written as module:Class, not"),
        ("return [Component('a', 'no_house.b:A')]", "clora_routers: the module of 'a' is not there: 'no_house.b' (Mod"),
        ("return [Component('a', 'os.no_house:A')]", "clora_routers: the module of 'a' is not there: 'os.no_house'"),
        ("return [Component('a', A), Component('a', A)]", "clora_routers registers 'a' twice"),
        ("raise OSError('no disk')", "clora_routers raised OSError: no disk"),
    ],
)
def test_a_wrong_registration_names_the_hook(install, body: str, reason: str) -> None:
    assert broken(install, hook(body)).startswith(reason)


def test_a_broken_plugin_gives_no_component(install) -> None:
    broken(install, hook("return [Component('a', A)]") + "@hookimpl\ndef clora_losses():\n    return 3\n")
    assert not discover().components


def test_blocked_by_the_environment(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("effects-house", {"even": ROUTER, "other": "raise RuntimeError"})
    monkeypatch.setenv("CLORA_BLOCK_PLUGINS", f"{os.environ[BLOCK_VARIABLE]}, other, even")
    states = {p.name: p.state for p in discover().plugins if p.distribution == "effects-house"}
    assert states == {"even": "blocked", "other": "blocked"}
    with pytest.raises(
        CloraError, match=r"plugin 'even' of effects-house 1.0 is blocked: CLORA_BLOCK_PLUGINS names it"
    ):
        discover().find("router", "even")


def test_one_name_from_two_distributions_must_be_chosen(install) -> None:
    install("a-house", {"one": ROUTER})
    install("b-house", {"two": ROUTER})
    with pytest.raises(CloraError, match="from a-house and b-house; write a-house:even or b-house:even"):
        discover().find("router", "even")
    assert discover().find("router", "b-house:even").plugin == "two"


def test_one_name_from_two_plugins_of_one_distribution(install) -> None:
    install("a-house", {"one": ROUTER, "two": ROUTER})
    with pytest.raises(CloraError, match="plugins one and two of a-house both give router a component named 'even'"):
        discover().find("router", "even")


def test_an_unknown_name_brings_the_nearest(install) -> None:
    install("a-house", {"one": ROUTER})
    with pytest.raises(CloraError, match=r"^router has no component 'evn'; did you mean 'even'\?$"):
        discover().find("router", "evn")
    with pytest.raises(CloraError, match="did you mean 'a-house:even'"):
        discover().find("router", "a-house:evne")


def test_an_unknown_name_quotes_the_broken_plugin_it_may_come_from(install) -> None:
    install("a-house", {"one": ROUTER})
    install("b-house", {"polar": "import no_such_package"})
    message = (
        "router has no component 'polar'; .*; plugin 'polar' of b-house 1.0 is broken: cannot import .*no_such_package"
    )
    with pytest.raises(CloraError, match=message):
        discover().find("router", "polar")


LAZY = """
    from clora.api import Component, hookimpl

    @hookimpl
    def clora_routers():
        return [
            Component("even", "late_house_parts:Even"),
            Component("gone", "late_house_parts:Gone"),
            Component("plain", "late_house_parts:Plain"),
            Component("bad", "late_house_bad:Even"),
            Component("exits", "late_house_exits:Even"),
        ]
"""


def late(install) -> None:
    """A plugin whose classes are imported when they are used."""
    site = Path(install("late-house", {"lazy": LAZY}))
    parts = "from attrs import frozen\n@frozen\nclass Even:\n    p: float = 0.5\nclass Plain: pass\n"
    (site / "late_house_parts.py").write_text(parts)
    (site / "late_house_bad.py").write_text("import no_such_package")
    (site / "late_house_exits.py").write_text("raise SystemExit(3)")


def test_a_class_named_by_its_place_is_imported_when_it_is_used(install, monkeypatch) -> None:
    late(install)
    monkeypatch.delitem(sys.modules, "late_house_parts", raising=False)
    found = discover().find("router", "even")
    assert "late_house_parts" not in sys.modules
    assert found.cls(p=0.25).p == 0.25
    assert found.cls is sys.modules["late_house_parts"].Even


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bad", "cannot import 'late_house_bad:Even': ModuleNotFoundError: No module named 'no_such_package'"),
        ("exits", "cannot import 'late_house_exits:Even': SystemExit: 3"),
        ("gone", "cannot import 'late_house_parts:Gone': AttributeError: "),
        ("plain", "the class of 'plain' must be an attrs class, not 'late_house_parts:Plain'"),
    ],
)
def test_a_class_that_cannot_be_had_is_told_at_its_line_with_the_plugins_name(install, tmp_path, name, why) -> None:
    late(install)
    path = tmp_path / "r.yaml"
    path.write_text(f"router:\n  use: {name}\n")
    with pytest.raises(RecipeError) as told:
        load_recipe(path, catalogue=discover())
    line = f"2:8: router: {name!r} of plugin 'lazy' of late-house 1.0 is broken: {why}"
    assert [str(problem) for problem in told.value.problems if line in str(problem)]


def packaged(site: Path, version: str = "1.0") -> Path:
    """A plugin that is a package, with a second module and tests; returns the package's folder."""
    folder = site / "whole_house"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text(dedent(ROUTER))
    (folder / "inner.py").write_text("x = 1\n")
    (folder / "tests/test_it.py").write_text("def test_it(): pass\n")
    write_distribution(site, "whole-house", {"whole": "whole_house"}, version)
    return folder


def code_of(site: Path) -> str:
    """What a fresh process says that the component's numbers depend on."""
    program = "from clora.plugin_system.discovery import discover; print(discover().find('router', 'even').code)"
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_component_depends_on_its_packages_source_and_version_and_not_on_its_tests(tmp_path: Path) -> None:
    folder = packaged(tmp_path / "one")
    before = code_of(tmp_path / "one")
    assert re.fullmatch(r"whole-house 1\.0 [0-9a-f]{16}", before)
    (folder / "tests/test_it.py").write_text("def test_more(): pass\n")
    assert code_of(tmp_path / "one") == before
    (folder / "inner.py").write_text("x = 2\n")
    changed = code_of(tmp_path / "one")
    assert changed != before
    packaged(tmp_path / "two", version="1.1")
    assert code_of(tmp_path / "two") == before.replace("1.0", "1.1")


def test_the_digest_of_a_recipe_changes_with_the_code_of_what_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    from clora.plugin_system import catalogue

    recipe = Path(__file__).parents[2] / "recipes/quickstart.yaml"
    before = load_recipe(recipe, catalogue=discover())
    assert load_recipe(recipe, catalogue=discover()).digest == before.digest
    assert before.code["losses.ta_fm"].startswith("clora 0.1.0 ")

    def with_other_source_of(package: str) -> str:
        def source(module: str) -> str:
            return "0" * 16 if module.startswith(package) else source_digest(module)

        monkeypatch.setattr(catalogue, "source_digest", source)
        return load_recipe(recipe, catalogue=discover()).digest

    assert all(with_other_source_of(each) != before.digest for each in ("clora_tafm", "clora_pdsr", "clora_emoji"))
    assert with_other_source_of("clora_flux") == before.digest  # which the recipe does not use


OBSERVER = """
    from clora.api import hookimpl
    seen = []

    @hookimpl
    def clora_run_started(run):
        seen.append(run.name)

    @hookimpl
    def clora_checkpoint_saved(path, step):
        seen.append((step, path.name))

    @hookimpl
    def clora_step_finished(report):
        raise ValueError("no curve")

    @hookimpl(specname="clora_run_finished")
    def at_last(results):
        seen.append(results)
"""


def test_observers_get_the_arguments_they_ask_for(install) -> None:
    install("watchers", {"watch": OBSERVER})
    catalogue = discover()
    run = RunInfo("a_run", Path("runs/a_run"), "0", 3)
    catalogue.run_started(run)
    catalogue.checkpoint_saved(run, 7, Path("x/step-7"))
    catalogue.run_finished(run, {"score": 1.0})
    assert sys.modules["watchers_watch"].seen == ["a_run", (7, "step-7"), {"score": 1.0}]


def test_an_observer_that_raises_is_a_warning(install) -> None:
    from clora.contracts.values import StepReport

    install("watchers", {"watch": OBSERVER})
    report = StepReport(1, {}, 0.1, 1.0, 1e-4)
    with pytest.warns(RuntimeWarning, match="plugin watch: clora_step_finished raised ValueError: no curve"):
        discover().step_finished(RunInfo("a_run", Path(), "0", 3), report)


def test_discovery_itself_imports_no_torch() -> None:
    code = "import clora.plugin_system.discovery, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
