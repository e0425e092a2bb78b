"""Files that lie: driven through inspect, check and read in one process, each answered in bounded, printable lines."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clora.cli import main
from clora.lora_io import reader
from clora.lora_io.base_weights import BaseWeights
from clora.lora_io.check import check_lora
from clora.lora_io.header import MAX_TENSORS, LoraFileError
from clora.lora_io.reader import read_lora
from clora.lora_io.survey import survey
from clora.lora_io.teacher import judge

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

Q, K = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"
SHAPES = {Q: (4, 6), K: (4, 6)}
LONGEST = 1_000
CONFIG = "adapter_config.json"
Make = Callable[[Path], None]


def raw(header: object, data: bytes = b"", length: int | None = None) -> Make:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(text) if length is None else length) + text + data
    return lambda path: path.write_bytes(content) and None


def tensor(begin: object, end: object, shape: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def lora(module: str = f"transformer.{Q}", a: float = 1.0, b: float = 1.0, dtype: torch.dtype = torch.float32):
    return {
        f"{module}.lora_A.weight": torch.full((2, 4), a, dtype=dtype),
        f"{module}.lora_B.weight": torch.full((6, 2), b, dtype=dtype),
    }


def saved(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Make:
    return lambda path: save_file(tensors, path, metadata)


def diffusers(text: str) -> Make:
    return saved(lora(), {"lora_adapter_metadata": text})


def peft(config: str) -> Make:
    def make(path: Path) -> None:
        save_file(lora(f"base_model.model.{Q}"), path)
        path.with_name(CONFIG).write_text(config)

    return make


def linked(path: Path) -> None:
    """A configuration that is a link to a text elsewhere."""
    peft("{}")(path)
    secret = path.parent.parent / "secret.txt"
    secret.write_text("root:x:0:0:" * 700)
    path.with_name(CONFIG).unlink()
    path.with_name(CONFIG).symlink_to(secret)


def dense(count: int) -> bytes:
    entries = (f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(count))
    return f"{{{','.join(entries)}}}".encode()


NINES = b"[" + b"9," * 299_999 + b"9]"
ONE = b'{"a":{"dtype":"F32","shape":%s,"data_offsets":%s}}'
HUGE = "9" * 401
DEEP = "[" * 100_000 + "]" * 100_000

#: what the file is: (how it is made, words of the one problem)
REFUSED: dict[str, tuple[Make, str]] = {
    "offset of 5,000 digits": (raw(ONE % (b"[1]", b"[0,%s]" % (b"9" * 5000))), "an integer of 5,000 digits"),
    "shape of 300,000 nines": (raw(ONE % (NINES, b"[0,4]")), "'a' has no proper shape and offsets"),
    "one size of 300,000 nines": (raw(ONE % (b"[%s]" % (b"9" * 300_000), b"[0,4]")), "an integer of 300,000 digits"),
    "offsets backwards": (raw({"a": tensor(4, 0, [1])}, bytes(4)), "'a' has -4 bytes"),
    "negative offsets": (raw({"a": tensor(-4, 0, [1])}, bytes(4)), "no proper shape and offsets"),
    "offsets beyond the file": (raw({"a": tensor(0, 1 << 62, [1 << 60])}), "truncated: tensors end at byte 46116860"),
    "offsets beyond 63 bits": (raw({"a": tensor(0, 1 << 63, [1 << 61])}), "no proper shape and offsets"),
    "offsets that are floats": (raw({"a": tensor(0.0, 4.0, [1])}, bytes(4)), "no proper shape and offsets"),
    "a product beyond 64 bits": (raw({"a": tensor(0, 4, [1 << 62] * 8)}, bytes(4)), "'a' has 4 bytes, which is not"),
    "nine dimensions": (raw({"a": tensor(0, 4, [1] * 9)}, bytes(4)), "no proper shape and offsets"),
    "a type of 8 kB": (raw({"a": tensor(0, 4, [1], "F" * 8000)}, bytes(4)), "(7,940 more characters)"),
    "a type that is a list": (raw({"a": tensor(0, 4, [1], ["F32"])}, bytes(4)), "unknown type ['F32']"),
    "a header of 2^63 bytes": (raw(b"{}", length=1 << 63), "claims 9,223,372,036,854,775,808 bytes"),
    "more tensors than any": (raw(dense(MAX_TENSORS + 1)), "100,001 tensors; at most 100,000 are read"),
    "a million tensors": (raw(dense(1_000_000)), "not a safetensors file, or a hostile one: its header claims"),
    "a name of 8 kB": (raw({"n" * 8000: tensor(0, 4, [1])}, bytes(4)), "is no tensor's name: too long"),
    "a name that steers": (raw({"\x1b[2J\u202e.alpha": tensor(0, 4, [1])}, bytes(4)), r"'\x1b[2J\u202e.alpha' is no"),
    "half a letter": (raw(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), r"'\ud800'"),
    "a name twice": (raw(b'{"a":{},"a":{}}'), "the key 'a' stands twice in one map"),
    "a key twice": (raw(b'{"a":{"dtype":"F32","dtype":"F16"}}'), "the key 'dtype' stands twice in one map"),
    "nested brackets": (raw(b'{"a":' + DEEP.encode() + b"}"), "nested deeper than 64 levels"),
    "NaN in the header": (raw(b'{"a":NaN}'), "NaN is no number"),
    "metadata that is no text": (raw({"__metadata__": {"a": ["x"] * 9000}}), "__metadata__ is not a map of texts"),
    "an adapter of 10^400": (diffusers('{"lora_alpha": 1' + "0" * 400 + "}"), "an integer of 401 digits"),
    "an adapter of 1e400": (diffusers('{"lora_alpha": 1e400}'), "beyond the range of floats"),
    "an adapter of NaN": (diffusers('{"lora_alpha": NaN}'), "NaN is no number"),
    "an adapter of brackets": (diffusers(f'{{"lora_alpha": {DEEP}}}'), "nested deeper than 64 levels"),
    "an adapter that is a list": (diffusers("[" + "1," * 9000 + "1]"), "is not a map but a list"),
    "an alpha that is a text": (diffusers(json.dumps({"lora_alpha": "8" * 9000})), "lora_alpha is '888"),
    "a peft config of 10^400": (peft('{"lora_alpha": ' + HUGE + "}"), "an integer of 401 digits"),
    "a peft config of NaN": (peft('{"lora_alpha": NaN}'), "NaN is no number"),
    "a peft config of brackets": (peft(DEEP), "nested deeper than 64 levels"),
    "a peft config that is null": (peft("null"), "is no JSON map but null"),
    "a peft config of 5 MB": (peft("{}" + " " * (5 << 20)), "is larger than the 4,194,304 bytes"),
    "a peft type of 8 kB": (peft(json.dumps({"peft_type": "L\n" * 4000})), r"of PEFT's type 'L\nL"),
    "ranks that are a list": (peft('{"lora_alpha": 8, "rank_pattern": [1]}'), "rank_pattern is not a map but a list"),
    "ranks that are texts": (peft('{"lora_alpha": 8, "rank_pattern": {"q": "8"}}'), "rank_pattern of 'q' is '8'"),
    "alphas that are null": (peft('{"lora_alpha": 8, "alpha_pattern": {"q": null}}'), "alpha_pattern of 'q' is None"),
    "alphas for 20,000 names": (
        peft(json.dumps({"lora_alpha": 8, "alpha_pattern": {f"m{i}": 1 for i in range(20_000)}})),
        "alpha_pattern has 20,000 patterns; at most 10,000",
    ),
    "a pattern of 8 kB": (peft(json.dumps({"lora_alpha": 8, "alpha_pattern": {"(a+)+" * 1600: 1}})), "no plain name"),
    "rslora in words": (peft('{"lora_alpha": 8, "use_rslora": "no"}'), "use_rslora is 'no', neither true nor false"),
    "a peft config elsewhere": (linked, "is a link out of its folder and is not read"),
    "two adapters": (
        saved({n.replace(".weight", f".{x}.weight"): t.clone() for x in ("one", "two") for n, t in lora(Q).items()}),
        "holds adapters of 2 names, 'one', 'two': which one is meant?",
    ),
    "two adapters of two linears": (
        saved({n.replace(".weight", f".{m[-4:]}.weight"): t for m in (Q, K) for n, t in lora(m).items()}),
        "holds adapters of 2 names, 'to_k', 'to_q'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_lies_is_refused_by_name_in_one_bounded_line(tmp_path, capsys, kind):
    make, said = REFUSED[kind]
    path = tmp_path / "folder/effect.safetensors"
    path.parent.mkdir()
    make(path)
    with pytest.raises(LoraFileError) as error:
        read_lora(path, SHAPES)
    (told,) = check_lora(path, SHAPES, data=True)
    assert said in told
    assert told == str(error.value)
    assert told.startswith(str(path.parent))
    assert told.isprintable()
    assert len(told) < LONGEST
    assert "root:x" not in told
    assert judge(path, SHAPES, BaseWeights()).problems == (told,)
    for words in ([], ["--modules"], ["--json"]):
        assert main(["inspect", *words, str(path)]) == 2
        out, err = capsys.readouterr()
        assert err == ""
        assert out.replace("\n", "").isprintable()
        assert len(out) < 3 * LONGEST or "--json" in words  # which repeats the metadata whole, for programs
    (found,) = survey(path, SHAPES).problems
    assert found == told


def test_a_configuration_in_the_hugging_face_cache_is_read(tmp_path):
    """.../snapshots/COMMIT/file leads to .../blobs/HASH, also from a folder below; no other link out is followed."""
    repo = tmp_path / "models--x--y"
    (repo / "blobs").mkdir(parents=True)
    (repo / "blobs/5a17").write_text('{"lora_alpha": 6}')
    for folder, up in (("snapshots/c0ffee", "../.."), ("snapshots/c0ffee/lora", "../../..")):
        path = repo / folder / "effect.safetensors"
        path.parent.mkdir(parents=True)
        save_file(lora(f"base_model.model.{Q}"), path)
        path.with_name(CONFIG).symlink_to(f"{up}/blobs/5a17")
        assert read_lora(path, SHAPES).deltas[Q].scale == 3.0
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/5a17").write_text("{}")
    path.with_name(CONFIG).unlink()
    path.with_name(CONFIG).symlink_to(tmp_path / "blobs/5a17")
    assert "is a link out of its folder" in check_lora(path, SHAPES)[0]
    path.with_name(CONFIG).unlink()
    path.with_name(CONFIG).symlink_to(CONFIG)
    assert "is a link out of its folder" in check_lora(path, SHAPES)[0]


@pytest.mark.parametrize(
    "prefix",
    ["pipe.dit.", "pipe.", "dit.", "model.diffusion_model.", "module.", "module._orig_mod.", "transformer._orig_mod."],
)
@pytest.mark.parametrize("adapter", ["", "default.", "my_adapter."])
def test_a_leftover_prefix_and_an_adapters_name_are_read(tmp_path, prefix, adapter):
    path = tmp_path / "f.safetensors"
    save_file({n.replace(".weight", f".{adapter}weight"): t for n, t in lora(prefix + Q).items()}, path)
    for shapes in (SHAPES, None):
        assert set(read_lora(path, shapes).deltas) == {Q}


def test_what_torch_compile_puts_into_the_middle_of_a_name_is_read(tmp_path):
    path = tmp_path / "f.safetensors"
    save_file(lora(Q.replace("blocks.0.", "blocks.0._orig_mod.")), path)
    assert set(read_lora(path, SHAPES).deltas) == {Q}
    flat = f"lora_unet__orig_mod_{Q.replace('.', '_')}"
    save_file({n.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): t for n, t in lora(flat).items()}, path)
    assert set(read_lora(path, SHAPES).deltas) == {Q}


@pytest.mark.parametrize("prefix", ["denoiser.", "pipe.unet.", "lora_dit_"])
def test_a_prefix_that_is_not_known_is_named(tmp_path, prefix):
    path = tmp_path / "f.safetensors"
    save_file(lora(prefix + (Q.replace(".", "_") if prefix.endswith("_") else Q)), path)
    (told,) = check_lora(path, SHAPES)
    assert f"; '{prefix}' before {Q} is no prefix that is known" in told


def test_a_file_that_changes_between_its_header_and_its_tensors(tmp_path, monkeypatch):
    path, real = tmp_path / "f.safetensors", reader.opened
    for other in ({n: t[:1].clone() for n, t in lora().items()}, lora("other"), None):
        save_file(lora(), path)

        def swapped(where: Path, other=other):
            save_file(other, where) if other is not None else where.write_bytes(b"")
            return real(where)

        monkeypatch.setattr(reader, "opened", swapped)
        with pytest.raises(LoraFileError) as error:
            read_lora(path, SHAPES)
        assert len(str(error.value)) < LONGEST
        monkeypatch.setattr(reader, "opened", real)


def test_a_sparse_file_of_terabytes_reserves_nothing(tmp_path):
    path, numbers = tmp_path / "f.safetensors", 1 << 38
    a, b = tensor(0, 4 * numbers, [1, numbers]), tensor(4 * numbers, 4 * numbers + 4, [1, 1])
    header = json.dumps({"m.lora_A.weight": a, "m.lora_B.weight": b}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + 4 * numbers + 4)
    (told,) = check_lora(path, {"m": (numbers, 1)}, data=True)
    assert "is larger than any factor that is known" in told
    assert "is larger than any factor that is known" in survey(path, None).problems[0]
