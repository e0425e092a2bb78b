"""How many threads compute: from trees that look like /proc and /sys, tables of machines, and what people say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clora import cli
from clora.plugin_system.core_commands import clora_commands
from clora.process import threads
from clora.process.free_cores import (
    Cores,
    Used,
    busy_between,
    cgroup_quotas,
    core_seconds,
    local_processes,
    look,
    physical_cores,
)
from clora.process.threads import Choice, choose, of_run, set_up


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({}, []),
        ({"proc/self/cgroup": "0::/\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, [1.5]),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000\n"}, [1.5]),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.scope\n",
                "sys/fs/cgroup/a.slice/b.scope/cpu.max": "800000 100000",
                "sys/fs/cgroup/a.slice/cpu.max": "250000 50000",
                "sys/fs/cgroup/cpu.max": "max 100000",
            },
            [8.0, 5.0],
        ),
        # a container that sees its own group alone, under the host's path
        ({"proc/self/cgroup": "0::/docker/abc/\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, [2.0]),
        ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/x/cpu.max": "200000 100000", "cpu.max": "1 1"}, [2.0]),
        (
            {
                "proc/self/cgroup": "9:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            [0.5],
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            [4.0, 4.0],
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "0 0\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "-5 100000\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "many 100000 \x00\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9" * 5000 + " 1\n"}, []),
        ({"proc/self/cgroup": "\n::\nnonsense\n0:\n" + "0::" + "/a" * 5000 + "\n"}, []),
    ],
)
def test_quotas_of_both_interfaces_and_of_every_group_around(files, limits, tmp_path):
    assert [quota.cores for quota in cgroup_quotas(tree(tmp_path, files))] == limits


STAT = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 10 50 800 40 3 5 2 0 0\ncpu1 200 0 0 0 0 0 0 0 0 0\ncpu10 7 0 0 0\nintr 5\n"


@pytest.mark.parametrize(
    ("stat", "mine", "ticks"),
    [
        (STAT, {0}, 170),
        (STAT, {0, 1}, 370),
        (STAT, {1, 7}, 200),
        (STAT, {7}, None),
        ("", {0}, None),
        ("cpu0 a b c d\n", {0}, None),
        ("cpu0 1\n", {0}, None),
        ("cpu0 " + "9" * 5000 + " 1 1 1\n", {0}, None),
    ],
)
def test_core_seconds_count_what_is_not_idle_on_our_own_cores(stat, mine, ticks):
    found = core_seconds(stat, frozenset(mine))
    assert found == (None if ticks is None else ticks / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (Used(0, 0, 0, None, 0), Used(2, 0, 3, None, 0), (1.5, 0)),
        (Used(0, 1, 5, None, 0), Used(2, 2, 6, None, 0), (0, 0)),  # what we did ourselves
        (Used(0, 0, 0, 0, 0), Used(2, 1, 3, 2, 0), (1.0, 0.5)),
        (Used(0, 0, 0, 9, 0), Used(2, 0, 2, 1, 0), (1.0, 0)),  # a counter that was set back
        (Used(0, 0, None, None, 0), Used(2, 0, None, None, 1.7), (1.7, 0)),
        (Used(1, 0, 0, 0, 0), Used(1, 0, 9, 9, 0), (0, 0)),
    ],
)
def test_busy_is_what_others_use_meanwhile(first, last, found):
    assert busy_between(first, last) == found


def test_look_reads_a_whole_tree_and_the_system_of_this_machine(tmp_path):
    mine = os.sched_getaffinity(0)
    files = {
        "proc/stat": "".join(f"cpu{number} 1 1 1 1 1\n" for number in mine),
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "50000 100000",
        "sys/fs/cgroup/cpu.stat": "usage_usec 7000000\nuser_usec 1\n",
    }
    assert look({}, tree(tmp_path, files), 0.0) == Cores(len(mine), len(mine), 0.5)
    assert look({"LOCAL_WORLD_SIZE": "3"}, tmp_path, 60.0).processes == 3  # and does not look at the load
    here = look({}, seconds=0.01)
    assert (here.logical, here.physical >= 1) == (len(mine), True)
    assert 0 <= here.busy <= here.logical


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, 1),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, 2),
        ({"LOCAL_WORLD_SIZE": "0"}, 1),
        ({"LOCAL_WORLD_SIZE": "-3"}, 1),
        ({"LOCAL_WORLD_SIZE": "9" * 5000}, 1),
        ({"LOCAL_WORLD_SIZE": "²"}, 1),
    ],
)
def test_processes_of_one_launch(environment, size):
    assert local_processes(environment) == size


def test_two_threads_of_a_core_are_one_core(tmp_path):
    files = {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 2},{n % 2 + 2}" for n in range(4)}
    assert physical_cores(frozenset(range(4)), tree(tmp_path, files)) == 2
    assert physical_cores(frozenset({1, 3, 8, 9}), tmp_path) == 3


@pytest.mark.parametrize(
    ("cores", "said"),
    [
        (Cores(1, 1), "1 thread: 1 core, idle"),
        (Cores(2, 2), "2 threads: 2 cores, both idle"),
        (Cores(2, 2, busy=0.25), "2 threads: 2 cores, both idle"),
        (Cores(2, 2, busy=0.5), "1 thread: 2 cores, 0.5 of them busy with other work; --threads says otherwise"),
        (Cores(2, 2, busy=1.3), "1 thread: 2 cores, 1.3 of them busy with other work; --threads says otherwise"),
        (Cores(2, 2, busy=2.0), "1 thread: 2 cores, 2.0 of them busy with other work; --threads says otherwise"),
        (Cores(16, 8), "8 threads: 16 cores (8 physical), all idle"),
        (Cores(16, 8, busy=4.0), "8 threads: 16 cores (8 physical), 4.0 of them busy with other work; --thr"),
        (Cores(16, 8, busy=10.0), "6 threads: 16 cores (8 physical), 10.0 of them busy with other work; --thr"),
        (Cores(64, 64, quota=4.0), "4 threads: 64 cores, a quota of 4, all idle"),
        (Cores(64, 64, quota=4.0, busy=10.0), "4 threads: 64 cores, a quota of 4, enough of them free"),
        (Cores(64, 64, quota=4.0, taken=2.0), "2 threads: 64 cores, a quota of 4, 2.0 of them busy with other work"),
        (Cores(64, 64, quota=4.0, busy=62.0), "2 threads: 64 cores, a quota of 4, 2.0 of them busy with other work"),
        (Cores(4, 4, quota=0.01), "1 thread: 4 cores, a quota of 0.01, all idle"),
        (Cores(4, 4, quota=8.0), "4 threads: 4 cores, all idle"),
        (Cores(4, 4, quota=2.5), "2 threads: 4 cores, a quota of 2.5, all idle"),
        (Cores(32, 32, processes=4), "8 threads: 32 cores, shared by 4 processes"),
        (Cores(2, 2, processes=8), "1 thread: 2 cores, shared by 8 processes"),
    ],
)  # fmt: skip
def test_a_thread_for_each_free_core_and_the_reason(cores, said):
    assert str(choose(cores)).startswith(said)


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not imported torch, on a machine of eight cores, three of them busy."""
    kept = sys.modules.get("torch")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threads, "look", lambda environment: Cores(8, 8, busy=3.0))
    yield monkeypatch
    if kept is not None:
        sys.modules["torch"] = kept
    threads._made.clear()


@pytest.mark.parametrize(
    ("asked", "environment", "said", "after"),
    [
        (None, {}, "5 threads: 8 cores, 3.0 of", {"OMP_NUM_THREADS": "5", **threads.PASSIVE}),
        (None, {"OMP_WAIT_POLICY": "active"}, "5 threads: ", {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "5"}),
        (None, {"KMP_BLOCKTIME": "1"}, "5 threads: ", {"KMP_BLOCKTIME": "1", "OMP_NUM_THREADS": "5"}),
        (None, {"GOMP_SPINCOUNT": "9"}, "5 threads: ", {"GOMP_SPINCOUNT": "9", "OMP_NUM_THREADS": "5"}),
        (None, {"OMP_NUM_THREADS": "3"}, "threads: OMP_NUM_THREADS=3 says how many", {"OMP_NUM_THREADS": "3"}),
        (None, {"MKL_NUM_THREADS": "3"}, "threads: MKL_NUM_THREADS=3 says how many", {"MKL_NUM_THREADS": "3"}),
        (None, {"OMP_NUM_THREADS": "\x1b[1m" + "x" * 99}, "threads: OMP_NUM_THREADS=\\x1b[1m", None),
        (None, {"OMP_NUM_THREADS": ""}, "5 threads: ", None),
        (7, {}, "7 threads: --threads says so", {"OMP_NUM_THREADS": "7"}),
        (7, dict.fromkeys(threads.COUNTS, "3"), "7 threads: ", dict.fromkeys(threads.COUNTS, "7")),
    ],
)  # fmt: skip
def test_what_a_person_says_wins_and_the_environment_is_set_before_torch(fresh, asked, environment, said, after):
    choice = set_up(asked, environment)
    assert str(choice).startswith(said)
    assert len(str(choice)) < 100
    assert after is None or environment == after


def test_an_idle_machine_keeps_the_runtimes_own_waiting(fresh):
    fresh.setattr(threads, "look", lambda environment: Cores(2, 2))
    environment: dict[str, str] = {}
    set_up(None, environment)
    assert environment == {"OMP_NUM_THREADS": "2"}


def test_where_torch_runs_already_its_own_number_stays(monkeypatch):
    import torch

    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    environment: dict[str, str] = {}
    assert set_up(None, environment) is None
    assert (told, environment) == ([], {})
    assert of_run(7) == (torch.get_num_threads(), None)
    assert str(set_up(7, environment)) == "7 threads: --threads says so"
    assert (told, environment) == ([7], {})
    set_up(None, environment)


@pytest.mark.parametrize(
    ("choice", "before", "count", "said"),
    [
        (Choice(1, "2 cores, busy"), 0, 1, "1 thread: 2 cores, busy"),
        (Choice(1, "2 cores, busy"), 1, 1, "1 thread: 2 cores, busy"),
        (Choice(1, "2 cores"), 2, 2, "2 threads, as when this run began, so that its sums stay the same (now it would"),
        (Choice(1, "--threads says so", fixed=True), 2, 1, "1 thread: --threads says so"),
        (Choice(None, "threads: OMP_NUM_THREADS=1 says how many", fixed=True), 2, 1, "threads: OMP_NUM_THREADS=1"),
        *[(Choice(1, "x"), before, 1, "1 thread: x") for before in (0, -1, 5000, 10**400)],
    ],
)  # fmt: skip
def test_a_run_keeps_the_threads_that_it_began_with(monkeypatch, choice, before, count, said):
    import torch

    now = [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    monkeypatch.setattr(threads, "_made", [choice])
    found, sentence = of_run(before)
    assert (found, now[-1]) == (count, count)
    assert sentence is not None
    assert sentence.startswith(said)


@pytest.mark.parametrize("command", [command.name for command in clora_commands() if command.computes])
@pytest.mark.parametrize("text", ["0", "-1", "4097", "1.5", "two", "", "٣", "1" * 5000, "1\x00", "\u202e2"])
def test_threads_that_are_no_number_are_refused(command, text, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main([command, "x", f"--threads={text}"])
    assert error.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"clora {command}: error: argument --threads: must be a whole number from 1 to 4096"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "count", "waiting", "said"),
    [
        ([], 1, "passive", "1 thread: 9 cores, 8.0 of them busy with other work; --threads says otherwise\n"),
        (["--threads", "3"], 3, None, "3 threads: --threads says so\n"),
    ],
)
def test_the_environment_is_set_before_torch_starts_its_pools(words, count, waiting, said, tmp_path):
    """In a process of its own: the choice is made while torch is not there yet, and then it has as many threads."""
    code = (
        "import json, os, sys\n"
        "from clora import cli\n"
        "from clora.process import threads\n"
        "from clora.cli import sample\n"
        "from clora.process.free_cores import Cores\n"
        "threads.look = lambda environment: Cores(9, 9, busy=8.0)\n"
        "seen = []\n"
        "real = threads.set_up\n"
        "threads.set_up = lambda *words: (seen.append('torch' in sys.modules), real(*words))[1]\n"
        "def run(args):\n"
        "    import torch\n"
        "    print(json.dumps([*seen, torch.get_num_threads(), os.environ.get('OMP_WAIT_POLICY')]))\n"
        "    return 0\n"
        "sample.run = run\n"
        f"cli.main(['sample', 'x', '--image', 'x.png', *{words}])\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in (*threads.COUNTS, *threads.WAITING)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=clean, cwd=tmp_path, check=True)
    assert json.loads(done.stdout) == [False, count, waiting]
    assert done.stderr == said
