"""`--processor-time FILE` tells what every test takes and which `slow` markers are not true; slow files come first."""

from __future__ import annotations

import json

import processor_time
import pytest

QUICK = """
import pytest

def test_quick():
    pass

@pytest.mark.slow
def test_quick_and_marked():
    pass
"""
BUSY = """
import subprocess, sys, time
import pytest

BURN = "import time\\nwhile time.process_time() < 0.4: pass"

@pytest.fixture
def burnt():
    exec(BURN.replace("0.4", str(time.process_time() + 0.4)))

def test_in_a_child():
    subprocess.run([sys.executable, "-c", BURN], check=True)

@pytest.mark.slow
def test_marked(burnt):
    pass

@pytest.mark.slow
def test_marked_as_well(burnt):
    pass
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Two files of tests, for which 0.2 seconds are slow."""
    monkeypatch.setattr(processor_time, "SLOW", 0.2)
    monkeypatch.setattr(processor_time, "FAR", 1.5)
    pytester.makepyfile(test_a_quick=QUICK, test_b_busy=BUSY)
    for name in ("c", "d"):  # folders with a conftest of their own, as ours
        pytester.mkpydir(name).joinpath("conftest.py").touch()
        (pytester.path / name / f"test_{name}.py").write_text("def test_nothing(): pass")
    pytester.makeini("[pytest]\nmarkers = slow(seconds)")
    return pytester


def test_processor_seconds_include_children_and_fixtures(folder: pytest.Pytester) -> None:
    done = folder.runpytest_inprocess("-p", "processor_time", "--processor-time", "out/times.json")
    done.assert_outcomes(passed=7)
    times = json.loads((folder.path / "out/times.json").read_text())
    assert list(times.values()) == sorted(times.values(), reverse=True)
    seconds = {name.split("::")[1]: value for name, value in times.items()}
    assert seconds["test_quick"] < 0.2
    assert min(seconds["test_in_a_child"], seconds["test_marked"], seconds["test_marked_as_well"]) >= 0.38


def test_untrue_slow_markers_are_told(folder: pytest.Pytester) -> None:
    done = folder.runpytest_inprocess("-p", "processor_time", "--processor-time", "times.json")
    told = [line for line in done.outlines if "marked slow" in line]
    assert len(told) == 2
    assert told[0].startswith("not marked slow: ")
    assert told[0].endswith("test_b_busy.py::test_in_a_child")
    assert told[1].startswith("marked slow: ")
    assert told[1].endswith(" s in test_a_quick.py")


def test_a_file_of_quick_tests_that_take_long_together_is_told(
    folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor_time, "SLOW", 1.0)
    monkeypatch.setattr(processor_time, "SLOW_FILE", 0.2)
    done = folder.runpytest_inprocess("-p", "processor_time", "--processor-time", "times.json")
    told = [line for line in done.outlines if "marked slow" in line]
    assert len(told) == 2
    assert told[0].startswith("not marked slow: 0.")
    assert told[0].endswith("s in all quick tests of test_b_busy.py")  # that in a child alone has no marker
    assert told[1].startswith("marked slow: 0.0 s in test_a_quick.py")


def test_the_file_whose_markers_say_most_seconds_comes_first(folder: pytest.Pytester) -> None:
    (folder.path / "d/test_d.py").write_text("import pytest\n@pytest.mark.slow(5)\ndef test_nothing(): pass")
    done = folder.runpytest_inprocess("-p", "processor_time", "-v")
    files = [line.split("::")[0] for line in done.outlines if "::" in line]
    assert files == ["d/test_d.py"] + ["test_b_busy.py"] * 3 + ["test_a_quick.py"] * 2 + ["c/test_c.py"]


def test_collecting_is_not_the_first_tests(folder: pytest.Pytester) -> None:
    burn = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"
    folder.makepyfile(test_e_first=f"{burn}def test_first(): pass")
    folder.runpytest_inprocess("-p", "processor_time", "--processor-time", "times.json", "test_e_first.py")
    (seconds,) = json.loads((folder.path / "times.json").read_text()).values()
    assert seconds < 0.2
