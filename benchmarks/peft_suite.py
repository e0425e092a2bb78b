"""PEFT's own LoRA tests, first with its own layers and then with `clora_triton`'s; no test may fare worse.

    python benchmarks/peft_suite.py [--folder runs/peft_suite] [--jobs 2] [--only ours]

The tests are PEFT's of the installed version, taken from its source archive on PyPI and kept in --folder, together with
the few packages that they need besides. Without --hub, tests that fetch a model fail for want of it both times and are
counted apart. The file is also the pytest plugin of these runs: it keeps the LoRA tests of files that test
every method, and switches the kernels on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: what PEFT's tests import that neither PEFT nor this project needs
NEEDED = (
    *("parameterized", "scipy", "datasets", "dill", "xxhash", "multiprocess", "pyarrow", "pandas"),
    *("python-dateutil", "pytest-xdist", "execnet"),
)
FILES = (
    *("custom_models", "initialization", "lora_conversion", "lora_ga", "lora_intruders", "lora_variants", "lorafa"),
    *("loraplus", "mixed", "other", "low_level_api", "tuners_utils", "target_parameters", "arrow", "bdlora", "velora"),
)
SWITCH, COUNTS = "CLORA_PEFT_SUITE", "CLORA_PEFT_COUNTS"


class _Everything(defaultdict[str, int]):
    """PEFT's note of models that it has fetched, saying that it has them all: no test asks the hub then."""

    def __contains__(self, _: object) -> bool:
        return True


calls: Counter[str] = Counter()


def pytest_configure() -> None:
    """Switch the kernels on, where this run is theirs, and count what reaches them."""
    if os.environ.get(SWITCH) != "ours":
        return
    import torch
    from clora_triton import peft, use_with_peft

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                calls[name] += 1
            return function(*args, **kwargs)

        return count

    peft.lora_linear = counted("kernel", peft.lora_linear)
    peft.Linear.forward = counted("layers", peft.Linear.forward)
    use_with_peft()


def pytest_collection_modifyitems(config, items) -> None:
    """Of tests that are given one method's configuration, those of LoRA."""
    methods = {item: set(re.findall(r"\w*Config\b", item.name)) for item in items}
    kept = [item for item in items if not methods[item] or "LoraConfig" in methods[item]]
    config.hook.pytest_deselected(items=[item for item in items if methods[item] and "LoraConfig" not in methods[item]])
    items[:] = kept
    shared = sys.modules.get("tests.testing_utils")
    if shared is not None and os.environ.get("HF_HUB_OFFLINE") == "1":
        vars(shared)["_HUB_MODEL_ACCESSES"] = _Everything(int)


def pytest_sessionfinish(session) -> None:
    """Leave how many calls the kernels took and how many they left to PEFT."""
    if os.environ.get(SWITCH) == "ours":
        path = Path(os.environ[COUNTS])
        path.with_suffix(f".{os.getpid()}.json").write_text(json.dumps(calls))


def fetch(folder: Path) -> Path:
    """PEFT's source of the installed version, unpacked, with what its tests need; done once."""
    name = f"peft-{version('peft')}"
    tests = folder / name / "tests"
    pip = [sys.executable, "-m", "pip"]
    if not tests.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = [f"peft=={version('peft')}", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        subprocess.run([*pip, "download", *source, "-d", str(folder)], check=True)
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        (tests / "__init__.py").touch()  # they import one another by relative names
    if not (folder / "site").exists():
        subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), *NEEDED], check=True)
    return tests.parent


def run(source: Path, whose: str, jobs: int, hub: bool) -> tuple[dict[str, str], Counter[str]]:
    """Run the suite in a process of its own; each test's outcome, and the calls by who took them."""
    counts = source.parent / f"{whose}.calls"
    for old in source.parent.glob(f"{whose}.*.json"):
        old.unlink()
    paths = (str(source.parent / "site"), str(ROOT / "benchmarks"), str(ROOT), str(ROOT / "plugins"))
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": str(int(not hub)),
        SWITCH: whose,
        COUNTS: str(counts),
    }
    junit = source.parent / f"{whose}.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        "-p",
        "peft_suite",
        "--tb=short",
    ]
    command += ["-p", "no:cacheprovider", "-n", str(jobs), f"--junitxml={junit}", "-W", "ignore", "--tb=short"]
    tests = [f"tests/test_{file}.py" for file in FILES if (source / f"tests/test_{file}.py").exists()]
    with (source.parent / f"{whose}.log").open("w") as log:
        subprocess.run([*command, *tests], cwd=source, env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
    calls: Counter[str] = Counter()
    for path in source.parent.glob(f"{whose}.*.json"):
        calls.update(json.loads(path.read_text()))
    return outcomes(junit), calls


def outcomes(junit: Path) -> dict[str, str]:
    """Each test's outcome: passed, failed, skipped, or `no model` where it failed for want of a file from the hub."""
    from xml.etree import ElementTree

    found: dict[str, str] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [each for each in case if each.tag in ("failure", "error")]
        if any(offline(f"{each.get('message')} {each.text}") for each in bad):
            found[name] = "no model"
        elif bad:
            found[name] = "failed"
        else:
            found[name] = "skipped" if case.find("skipped") is not None else "passed"
    return found


def offline(text: str) -> bool:
    """Whether an error is the hub's absence."""
    signs = ("OfflineModeIsEnabled", "LocalEntryNotFound", "We couldn't connect to", "HF_HUB_OFFLINE", "offline mode")
    return any(sign in text for sign in signs)


def main() -> None:
    """Run both, write results/peft_suite.csv, and end with 1 where a test fares worse with ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/peft_suite")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--hub", action="store_true", help="let the tests fetch their small models")
    parser.add_argument("--only", choices=("peft", "ours"))
    args = parser.parse_args()
    source = fetch(args.folder.resolve())
    results: dict[str, dict[str, str]] = {}
    calls: Counter[str] = Counter()
    for whose in (args.only,) if args.only else ("peft", "ours"):
        results[whose], taken = run(source, whose, args.jobs, args.hub)
        calls += taken
        print(whose, dict(Counter(results[whose].values())), dict(taken), flush=True)
    if args.only:
        return
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from machine import write_rows

    rows = [{"layers": whose, "tests": len(each), **tally(each)} for whose, each in results.items()]
    rows = [{**row, "calls": calls["kernel"] if row["layers"] == "ours" else 0} for row in rows]
    write_rows(ROOT / "benchmarks/results/peft_suite.csv", [{**row, "peft": version("peft")} for row in rows])
    worse = [n for n, outcome in results["peft"].items() if outcome == "passed" and results["ours"].get(n) != "passed"]
    for name in worse:
        print("worse with ours:", name)
    sys.exit(bool(worse))


def tally(results: dict[str, str]) -> dict[str, int]:
    """How many tests ended how."""
    found = Counter(results.values())
    return {outcome: found[outcome] for outcome in ("passed", "failed", "skipped", "no model")}


if __name__ == "__main__":
    main()
