"""Files that cannot be used: each is refused in one line that names the file and the reason."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clora.errors import CloraError
from clora.lora_io.check import check_lora, coverage
from clora.lora_io.header import LoraFileError, inspect_header
from clora.lora_io.reader import read_lora

SHAPES = {"blocks.0.q": (4, 6), "blocks.0.k": (4, 6), "blocks.1.q": (4, 6)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "effect.safetensors"


def lora(*modules: str, a=(2, 4), b=(6, 2)) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for module in modules:
        tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = torch.ones(*a), torch.ones(*b)
    return tensors


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path, said: str) -> None:
    """Reader, check and coverage agree, in one line that names the file."""
    with pytest.raises(LoraFileError) as error:
        read_lora(path, SHAPES)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert check_lora(path, SHAPES, data=True) == [str(error.value)]
    assert isinstance(error.value, CloraError)


def test_a_missing_file_and_a_folder(path, tmp_path):
    refused(path, "there is no such file")
    refused(tmp_path, "there is no such file")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "only 0 bytes"),
        (b"abc", "only 3 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (raw(b"{}", length=1 << 60), "header claims"),
        (raw(b"{}", length=100), "truncated"),
        (raw(b"\xff\xfe\x00\x00"), "not JSON"),
        (raw(b"[" * 100_000), "its header is nested deeper than 64 levels"),
        (raw([1]), "not a map"),
        (raw({"__metadata__": {"a": 1}}), "__metadata__"),
        (raw({"__metadata__": [1]}), "__metadata__"),
        (raw(b'{"a": {}, "a": {}}'), "twice"),
        (raw({"a": 3}), "not a map"),
        (raw({"a": entry(0, 4, [1], "Q4")}, bytes(4)), "unknown type"),
        (raw({"a": entry(0, 4, [-1])}, bytes(4)), "no proper shape"),
        (raw({"a": entry(0, 4, [True])}, bytes(4)), "no proper shape"),
        (raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4)), "no proper shape"),
        (raw({"a": entry(0, 4, [2])}, bytes(4)), "4 bytes, which is not F32 [2]"),
        (raw({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)), "overlap"),
        (raw({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)), "belong to no tensor"),
        (raw({"a": entry(0, 8, [2])}, bytes(4)), "truncated: tensors end at byte 8"),
        (raw({"a": entry(0, 4, [1])}, bytes(9)), "5 bytes after the last tensor"),
        (raw({}), "holds no LoRA weights"),
    ],
)  # fmt: skip
def test_a_broken_header(path, content, said):
    path.write_bytes(content)
    refused(path, said)


def test_a_pickle_is_named_and_never_loaded(path, tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    for write in (
        lambda: torch.save({"w": Evil()}, path),
        lambda: path.write_bytes(pickle.dumps(Evil(), protocol=2)),
        lambda: path.write_bytes(pickle.dumps(Evil(), protocol=4)),
    ):
        write()
        refused(path, "this is a pickle")
    assert not marker.exists()


@pytest.mark.parametrize("length", [0x0280, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_is_read(path, length):
    header = {"blocks.0.q.lora_A.weight": entry(0, 32, [2, 4]), "blocks.0.q.lora_B.weight": entry(32, 80, [6, 2])}
    path.write_bytes(raw(json.dumps(header).encode().ljust(length), bytes(80)))
    assert path.read_bytes()[:2] in (b"\x80\x02", b"PK")
    assert set(read_lora(path, SHAPES).deltas) == {"blocks.0.q"}


def test_a_truncated_download(path):
    save_file(lora(*SHAPES), path)
    whole = path.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 20, 8):
        path.write_bytes(whole[:kept])
        refused(path, "truncated")


def test_nan_and_infinity_are_found_by_name_in_the_data_only(path):
    tensors = lora("blocks.0.q", "blocks.0.k")
    tensors["blocks.0.k.lora_B.weight"][1, 1] = float("nan")
    tensors["blocks.0.q.lora_A.weight"][0, 0] = float("inf")
    save_file(tensors, path)
    refused(path, "NaN or infinity in")
    (found,) = check_lora(path, SHAPES, data=True)
    assert "'blocks.0.k.lora_B.weight'" in found
    assert "'blocks.0.q.lora_A.weight'" in found
    assert check_lora(path, SHAPES) == []


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((2, 5), (6, 2), "blocks.0.q: A [2, 5] and B [6, 2] do not fit a linear of 4 -> 6"),
        ((2, 4), (7, 2), "do not fit"),
        ((2, 4), (6, 3), "are not [r, in] and [out, r]"),
        ((2, 4, 1, 1), (6, 2, 1, 1), "A [2, 4, 1, 1] and B [6, 2, 1, 1] do not fit a linear of 4 -> 6"),
        ((0, 4), (6, 0), "are not [r, in] and [out, r]"),
    ],
)
def test_a_wrong_shape(path, a, b, said):
    save_file(lora("blocks.0.q", a=a, b=b), path)
    refused(path, said)


def test_a_factor_alone_and_an_alpha_alone(path):
    tensors = lora("blocks.0.q", "blocks.0.k")
    del tensors["blocks.0.k.lora_B.weight"]
    save_file(tensors, path)
    refused(path, "blocks.0.k has 'blocks.0.k.lora_A.weight' without the rest")
    save_file(lora("blocks.0.q") | {"blocks.0.k.alpha": torch.tensor(1.0)}, path)
    refused(path, "'blocks.0.k.alpha' without the rest")


def test_two_names_of_one_factor(path):
    save_file(lora("blocks.0.q", "transformer.blocks.0.q"), path)
    with pytest.raises(LoraFileError, match=r"both the same factor of blocks\.0\.q"):
        read_lora(path, SHAPES)


def test_a_broken_alpha(path):
    save_file(lora("blocks.0.q") | {"blocks.0.q.alpha": torch.ones(2)}, path)
    refused(path, "is not one number but [2]")
    save_file(lora("blocks.0.q") | {"blocks.0.q.alpha": torch.tensor(float("nan"))}, path)
    refused(path, "is nan")


def test_whole_numbers_are_no_factors(path):
    save_file({name: tensor.to(torch.int8) for name, tensor in lora("blocks.0.q").items()}, path)
    with pytest.raises(LoraFileError, match="must be floating point"):
        read_lora(path, SHAPES)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("base_model.model.blocks.0.q.lokr_w1", "PEFT's LoKr or LoHa"),
        ("diffusion_model.blocks.0.q.lokr_t1", "LoKr of a convolution"),
        ("diffusion_model.blocks.0.q.oft_blocks", "OFT"),
        ("diffusion_model.blocks.0.q.boft_blocks", "OFT"),
        ("diffusion_model.blocks.0.q.a1.weight", "GLoRA"),
        ("diffusion_model.blocks.0.q.set_weight", "difference of whole weights"),
        ("diffusion_model.blocks.0.q.reshape_weight", "difference of whole weights"),
        ("diffusion_model.blocks.0.q.diff", "difference of whole weights"),
        ("diffusion_model.blocks.0.q.diff_b", "difference of whole weights"),
        ("diffusion_model.blocks.0.q.w_norm", "difference of whole weights"),
        ("diffusion_model.blocks.0.q.lora_mid.weight", "middle factor"),
        ("transformer.blocks.0.q.lora_B.bias", "biases"),
    ],
)
def test_adapters_that_cannot_become_a_lora_are_refused_by_name(path, key, kind):
    save_file(lora("transformer.blocks.0.q") | {key: torch.ones(2)}, path)
    refused(path, kind)
    refused(path, "which is not supported")
    refused(path, key)


def test_keys_that_match_nothing_are_an_error_with_the_nearest_name(path):
    save_file(lora("transformer.block.0.q", "transformer.block.0.k"), path)
    refused(path, "no key names a linear that carries adapters: 'transformer.block.0.")
    (found,) = check_lora(path, SHAPES)
    assert "and 1 more; the nearest is blocks.0." in found


def test_some_keys_that_match_nothing_are_an_error_unless_allowed(path):
    save_file(lora("blocks.0.q", "proj_out"), path)
    refused(path, "2 of 4 keys name no linear that carries adapters")
    file = read_lora(path, SHAPES, allow_unused=True)
    assert set(file.deltas) == {"blocks.0.q"}
    assert set(file.unused) == {"proj_out.lora_A.weight", "proj_out.lora_B.weight"}
    save_file(lora("proj_out"), path)
    with pytest.raises(LoraFileError, match="no key names"):
        read_lora(path, SHAPES, allow_unused=True)


def test_covering_some_linears_is_a_note_and_no_problem(path):
    save_file(lora("blocks.0.q"), path)
    assert check_lora(path, SHAPES, data=True) == []
    found = coverage(path, SHAPES)
    assert found.missing == ("blocks.0.k", "blocks.1.q")
    assert found.notes() == ["changes 1 of 3 linears; the rest, such as blocks.0.k, stay the base's"]


def test_the_header_is_enough_to_tell_what_is_inside(path):
    save_file(lora("blocks.0.q"), path, {"title": "ink"})
    header = inspect_header(path)
    assert header.metadata == {"title": "ink"}
    assert header.tensors["blocks.0.q.lora_A.weight"].shape == (2, 4)
