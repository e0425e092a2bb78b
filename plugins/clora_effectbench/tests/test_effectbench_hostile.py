"""An image encoder's configuration that anybody may have written: refused in one line, without its content."""

from __future__ import annotations

import pytest
from clora_effectbench.encoder import encoder_problems


@pytest.mark.parametrize(
    "content",
    [
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"",
        b"root:x:0:0:root:/root:/bin/bash\n" * 300,
        b'{"model_type": 3}',
        b'{"model_type": "clip", "a": ' + b"9" * 5000 + b"}",
        b'{"model_type": "clip", "a": NaN}',
        b"[" * 100_000,
        b'"' + b"x" * 300_000 + b'"',
        b" " * (5 << 20),
    ],
    ids=range(12),
)
def test_a_configuration_that_is_none_is_told_in_a_line(tmp_path, content):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes(content)
    told = list(encoder_problems(str(tmp_path), None))
    assert any("config.json" in line for line in told), told
    for line in told:
        assert line.isprintable()
        assert len(line.replace(str(tmp_path), "")) < 250, line
