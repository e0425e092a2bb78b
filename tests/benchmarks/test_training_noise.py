"""The benchmark of training noise keeps what it has made, and its table has the means."""

from __future__ import annotations

import json
from pathlib import Path


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    import training_noise

    path, results = tmp_path / "training_noise.json", {}
    training_noise.once(path, results, "one", lambda: {"sampled at 1": 0.5})
    training_noise.once(path, results, "one", lambda: {"sampled at 1": 0.7})
    assert json.loads(path.read_text()) == {"one": {"sampled at 1": 0.5}}


def test_the_table_has_the_mean_of_the_teachers_and_every_base() -> None:
    import training_noise

    rows = {
        "teacher, uniform, thermal, seed 11": {"sampled at 1": 0.1, "sampled at 3": 0.3},
        "teacher, uniform, gold_frame, seed 11": {"sampled at 1": 0.2, "sampled at 3": 0.5},
        "base, half at shift 3, as committed": {"sampled at 1": 0.01, "sampled at 3": 0.02},
    }
    assert training_noise.table(rows).splitlines()[2:] == [
        "| 2 teachers | uniform | 0.1500 | 0.4000 |",
        "| base, as committed | half at shift 3 | 0.0100 | 0.0200 |",
    ]
