"""`mkdocs build --strict` makes the site: every reference is generated from the code, and a wrong link is refused."""

from __future__ import annotations

import html
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from distribution import write_distribution

from clora import api
from clora.contracts import hookspecs
from clora.diffusion import flow
from clora.planning.cost import SIDE, count
from clora.plugin_system.core_commands import clora_commands
from clora.plugin_system.described_keys import described_keys
from clora.plugin_system.discovery import discover
from clora.training.answers import MOST_QUESTIONS

pytestmark = pytest.mark.slow  # for the site that most of them need

ROOT = Path(__file__).parents[2]
#: what the site is made of
PARTS = (
    "mkdocs.yml",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "benchmarks",
    "clora",
    "plugins",
    "recipes",
    "tests",
)
COMPONENTS = [(component.kind, component) for component in discover().components]


def build(root: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # --quiet would keep warnings from being counted, and so from being refused
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1", **environment}
    return subprocess.run(words, cwd=root, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO")] == []
    return out


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """The repository as the site sees it, with pages that a test may change."""
    for name in PARTS:
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("mkdocs.yml", "docs"):  # mkdocs follows a link to its configuration and takes what lies there
        (tmp_path / name).unlink()
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path


def words_of(page: Path) -> str:
    """The text of a page's article."""
    text = page.read_text()
    article = text[text.index("<article") : text.index("</article>")]
    return html.unescape(re.sub(r"<[^>]+>", "", article))


def test_every_hook_has_its_signature_and_sentence(site: Path) -> None:
    page = words_of(site / "reference/hooks/index.html")
    hooks = [f for name, f in vars(hookspecs).items() if name.startswith("clora_") and inspect.isfunction(f)]
    assert len(hooks) >= 14
    for hook in hooks:
        assert f"def {hook.__name__}{inspect.signature(hook)}".replace("'", "") in page
        assert (hook.__doc__ or "?").split("\n")[0].replace("`", "") in page


@pytest.mark.parametrize(("kind", "component"), COMPONENTS, ids=lambda each: getattr(each, "name", each))
def test_every_component_has_its_keys_with_bounds_and_sentences(site: Path, kind, component) -> None:
    page = (site / f"reference/components/{kind}/index.html").read_text()
    assert f'id="{component.name}"' in page
    section = page.split(f'id="{component.name}"')[1].split("<h2")[0]
    words = html.unescape(re.sub(r"<[^>]+>", "", section))
    for key in described_keys(component.cls):
        assert f"<code>{key.name}</code>" in section
        assert key.bounds in words
        assert key.meaning.replace("`", "") in words


def test_every_command_has_its_help(site: Path) -> None:
    page = words_of(site / "reference/commands/index.html")
    for command in (*clora_commands(), *(registered.command for registered in discover().commands)):
        assert f"usage: clora {command.name}" in page
        assert command.help in page
    assert "--set KEY=VALUE" in page


def test_every_public_name_has_a_heading(site: Path) -> None:
    page = (site / "reference/api/index.html").read_text()
    names = [name for name in vars(api) if name.isidentifier() and not name.startswith("_")]
    assert len(names) > 100
    assert [name for name in names if f'id="{name.lower()}"' not in page] == []


def test_every_section_of_a_recipe_has_its_keys(site: Path) -> None:
    page = words_of(site / "reference/recipe/index.html")
    for section in ("student", "critic.lag", "warm_start", "train", "evaluate"):
        assert f"\n{section}¶" in page
    assert "between 1 and 16,384" in page


def test_a_public_name_is_a_link_to_its_reference(site: Path) -> None:
    hooks = (site / "reference/hooks/index.html").read_text()
    assert '<a href="../api/#teachers"><code>Teachers</code></a>' in hooks
    assert (
        '<a href="../reference/api/#stepcontext"><code>StepContext</code></a>'
        in (site / "first_loss/index.html").read_text()
    )
    losses = (site / "reference/components/losses/index.html").read_text()
    assert 'plugin <a href="../../../plugins/clora_dmd/"><code>dmd</code></a>' in losses


def test_a_linked_file_of_the_repository_is_in_the_site(site: Path) -> None:
    assert (site / "files/benchmarks/results/step_cost.csv").read_bytes() == (
        ROOT / "benchmarks/results/step_cost.csv"
    ).read_bytes()
    assert 'href="../files/benchmarks/results/step_cost.csv"' in (site / "cost/index.html").read_text()
    assert 'href="../plugins/clora_dmd/"' in (site / "science/index.html").read_text()


def test_nothing_is_asked_of_another_server(site: Path) -> None:
    asked = re.compile(r'<(?:script|img|iframe|link)(?=[^>]* (?:src|href)="(?:https?:)?//)(?! rel="canonical")[^>]*>')
    found = {match for page in site.rglob("index.html") for match in asked.findall(page.read_text())}
    assert found == set()


def test_a_formula_is_set_without_a_script(site: Path) -> None:
    page = (site / "method/index.html").read_text()
    assert page.count("<math") == (ROOT / "docs/method.md").read_text().count("```math") > 8
    assert "\\sigma" not in page


def test_the_method_shows_the_code_that_it_names(site: Path) -> None:
    page = words_of(site / "method/index.html")
    for function in (flow.add_noise, flow.shift, flow.guide):
        assert " ".join(inspect.getsource(function).split()) in " ".join(page.split())


def test_the_page_for_plugin_authors_has_the_bounds_of_the_code(site: Path) -> None:
    page = words_of(site / "plugin_authors/index.html")
    assert f"more than {MOST_QUESTIONS:,} questions in one step" in page
    assert f"up to {inspect.signature(count).parameters['cycles'].default} cycles" in page
    assert f"latents of zeros, [B, C, {SIDE}, {SIDE}]" in page


def test_a_reference_to_no_code_is_refused_by_name(changed: Path, tmp_path: Path) -> None:
    with (changed / "docs/method.md").open("a") as page:
        page.write(
            "\nCode: `clora/diffusion/flow.py::add_noise`, `clora/diffusion/flow.py::ad_noise`, `clora/gone.py::x`\n"
        )
    done = build(changed, tmp_path / "site")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "docs/method.md: there is no clora/diffusion/flow.py::ad_noise, clora/gone.py::x" in done.stderr


def test_wrong_links_and_pages_are_refused_by_name(changed: Path, tmp_path: Path) -> None:
    with (changed / "docs/cost.md").open("a") as page:
        page.write("\n[a](nowhere.md) [b](runs.md#no-such-place) [c](../benchmarks/gone.csv)\n")
    (changed / "docs/unlisted.md").write_text("# Not in the navigation\n")
    done = build(changed, tmp_path / "site")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in ("nowhere.md", "no-such-place", "../benchmarks/gone.csv", "unlisted.md"):
        assert word in done.stderr


def test_a_broken_plugin_is_refused_by_name(tmp_path: Path) -> None:
    write_distribution(tmp_path, "clora-wrong", {"wrong": "clora_not_there"})
    done = build(ROOT, tmp_path / "site", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "'wrong' of clora-wrong 1.0 is broken: cannot import clora_not_there" in done.stderr
