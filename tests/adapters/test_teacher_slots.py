"""Teachers in a few slots: the right numbers on the network, the right ones evicted, loaded ahead, no thread left."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from attrs import define, field
from safetensors.torch import load_file, save_file
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Factors
from clora.adapters.teacher_prefetch import Source
from clora.adapters.teacher_slots import TeacherSlots
from clora.errors import CloraError
from clora.lora_io.reader import read_lora

SHAPES = {"one": (6, 4), "two": (4, 8)}
#: {teacher: ({linear: rank}, type of the file, strength)}: mixed ranks, coverage, types
BANK = {
    "wide": ({"one": 3, "two": 2}, torch.bfloat16, 1.0),
    "narrow": ({"one": 1}, torch.float32, 0.5),
    "other": ({"two": 4}, torch.float16, 2.0),
    "last": ({"one": 2, "two": 2}, torch.bfloat16, 1.5),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.one, self.two = nn.Linear(6, 4), nn.Linear(4, 8)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x)))


@define
class Setting:
    """A network whose slots note which files were read, and may be made to wait before they are."""

    folder: Path
    net: AdaptedNetwork = field(factory=lambda: AdaptedNetwork(Net(), tuple(SHAPES)))
    read: list[str] = field(factory=list)
    gate: threading.Event = field(factory=threading.Event)

    def slots(self, count: int | None) -> TeacherSlots:
        sources = {name: Source(self.folder / f"{name}.safetensors", scale) for name, (_, _, scale) in BANK.items()}
        self.gate.set()
        return TeacherSlots(self.net, sources, self.factors, torch.device("cpu"), count)

    def factors(self, source: Source) -> Factors:
        self.gate.wait(30)
        self.read.append(source.path.stem)
        deltas = read_lora(source.path, SHAPES).deltas
        return {name: (delta.a, delta.b, delta.scale * source.scale) for name, delta in deltas.items()}

    def output(self, names: Sequence[str | None], x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), self.net.rows(names):
            return self.net.network(x)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    for number, (name, (ranks, dtype, _)) in enumerate(BANK.items()):
        generator = torch.Generator().manual_seed(number)
        tensors = {}
        for module, rank in ranks.items():
            inputs, outputs = SHAPES[module]
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator).to(dtype)
            tensors[f"{module}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator).to(dtype)
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return Setting(tmp_path)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "clora-teachers"]


def plainly(folder: Path, name: str | None, x: torch.Tensor) -> torch.Tensor:
    """The network with W + scale B A in float64, the factors straight from the file."""
    net = Net().double()
    if name is not None:
        tensors = load_file(folder / f"{name}.safetensors")
        for module in BANK[name][0]:
            a, b = (tensors[f"{module}.lora_{part}.weight"].double() for part in "AB")
            net.get_submodule(module).weight.data += BANK[name][2] * b @ a
    with torch.no_grad():
        return net(x.double())


@pytest.mark.parametrize("count", [1, 2, None])
def test_every_teacher_is_itself_whatever_lay_in_its_slot_before(setting: Setting, count: int | None) -> None:
    slots = setting.slots(count)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    for name in ["wide", "narrow", "other", None, "last", "wide", "other", "narrow"]:
        torch.testing.assert_close(
            setting.output([name] * 3, x).double(), plainly(setting.folder, name, x), atol=1e-4, rtol=1e-4
        )
    slots.rest()
    assert len(setting.read) == (4 if count is None else 7)


def test_the_numbers_stay_in_the_files_type_and_share_one_buffer(setting: Setting) -> None:
    slots = setting.slots(None)
    slots.need(list(BANK))
    for name, (ranks, dtype, _) in BANK.items():
        adapter = setting.net.adapters[name]
        assert adapter.flat.dtype == dtype
        assert set(adapter.factors) == set(ranks)
        storages = {part.untyped_storage().data_ptr() for a, b, _ in adapter.factors.values() for part in (a, b)}
        assert storages == {adapter.flat.untyped_storage().data_ptr()}


def test_the_one_unused_for_longest_leaves(setting: Setting) -> None:
    slots = setting.slots(2)
    for name in ("wide", "narrow", "wide", "other"):  # narrow was used before wide
        slots.need([name])
    assert set(setting.net.adapters) == {"wide", "other"}
    assert all("narrow" not in linear.factors for linear in setting.net.linears.values())
    assert setting.read == ["wide", "narrow", "other"]


def test_one_batch_may_mix_as_many_as_there_are_slots(setting: Setting) -> None:
    setting.slots(2)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    y = setting.output(["wide", None, "other"], x)
    for row, name in enumerate(["wide", None, "other"]):
        expected = plainly(setting.folder, name, x[row : row + 1])
        torch.testing.assert_close(y[row : row + 1].double(), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(CloraError, match=r"3 teachers are needed at once.*teacher\.slots is 2"):
        setting.output(["wide", "narrow", "other"], x)


def test_a_teacher_in_use_is_never_evicted(setting: Setting) -> None:
    slots = setting.slots(2)
    with slots.held(["wide"]):
        for name in ("narrow", "other", "last"):
            slots.need([name])
        slots.ahead(["narrow", "other"])
        assert "wide" in setting.net.adapters
        with pytest.raises(CloraError, match="3 teachers are needed at once"):
            slots.need(["narrow", "other"])
    slots.need(["narrow", "other"])
    assert "wide" not in setting.net.adapters


def test_what_is_wanted_is_read_before_it_is_needed(setting: Setting) -> None:
    slots = setting.slots(2)
    slots.need(["wide"])
    slots.ahead(["wide", "narrow"])
    slots.loader.rest()  # the thread ends by itself when nothing waits
    assert setting.read == ["wide", "narrow"]
    assert "narrow" not in setting.net.adapters  # not on the network before somebody needs it
    slots.take_stall()
    slots.need(["narrow"])
    assert setting.read == ["wide", "narrow"]


def test_the_wanted_wait_for_a_slot_that_the_wanted_do_not_hold(setting: Setting) -> None:
    slots = setting.slots(2)
    slots.need(["wide", "narrow"])
    slots.ahead(["wide", "narrow", "other"])  # no room: both are wanted
    slots.loader.rest()
    assert setting.read == ["wide", "narrow"]
    slots.ahead(["narrow", "other"])
    slots.loader.rest()
    assert setting.read == ["wide", "narrow", "other"]
    assert "wide" not in setting.net.adapters


def test_the_needed_go_before_the_wanted(setting: Setting) -> None:
    slots = setting.slots(4)
    setting.gate.clear()
    slots.ahead(["wide", "narrow", "other"])
    threading.Timer(0.05, setting.gate.set).start()
    slots.need(["other"])
    slots.loader.rest()
    assert setting.read.index("other") <= 1  # one may have been under way
    assert sorted(setting.read) == ["narrow", "other", "wide"]


def test_waiting_is_counted_and_taken_once(setting: Setting) -> None:
    slots = setting.slots(2)
    setting.gate.clear()
    threading.Timer(0.05, setting.gate.set).start()
    slots.need(["wide"])
    assert slots.take_stall() >= 0.04
    slots.need(["wide"])
    assert slots.take_stall() == 0.0


def test_a_file_that_vanished_is_told_by_its_name_when_it_is_needed(setting: Setting) -> None:
    slots = setting.slots(2)
    (setting.folder / "narrow.safetensors").unlink()
    slots.ahead(["wide", "narrow"])  # nobody needs it yet
    slots.need(["wide"])
    with pytest.raises(CloraError, match=r"narrow\.safetensors"):
        slots.need(["narrow"])
    slots.need(["other"])  # its slot is free again
    assert set(setting.net.adapters) == {"wide", "other"}


def test_an_unforeseen_error_names_the_file_and_the_teacher(setting: Setting) -> None:
    slots = setting.slots(2)
    slots.loader.read = lambda source: {}["no such key"]
    with pytest.raises(CloraError, match=r"wide\.safetensors: the teacher wide cannot be loaded") as caught:
        slots.need(["wide"])
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_unknown_teacher_is_refused_with_the_nearest(setting: Setting) -> None:
    with pytest.raises(CloraError, match="no teacher 'narow'; did you mean 'narrow'"):
        setting.slots(2).need(["narow"])
    with pytest.raises(KeyError, match="no adapter named 'narow'"):
        setting.output(["narow"], torch.zeros(1, 6))


def test_no_thread_and_nothing_that_waits_is_left_after_an_interruption(setting: Setting) -> None:
    slots = setting.slots(4)
    setting.gate.clear()

    def interrupted() -> None:
        with slots.session():
            slots.ahead(["wide", "narrow", "other"])
            assert len(loader_threads()) == 1
            threading.Timer(0.05, setting.gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not loader_threads()
    assert len(setting.read) <= 1  # the one that was under way
    slots.need(["other"])  # and it still works
    slots.rest()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_the_teachers_come_in_one_copy_and_computation_waits_for_it(setting: Setting) -> None:
    device = torch.device("cuda")
    net = AdaptedNetwork(Net().to(device), tuple(SHAPES))
    sources = {name: Source(setting.folder / f"{name}.safetensors", scale) for name, (_, _, scale) in BANK.items()}
    setting.gate.set()
    slots = TeacherSlots(net, sources, setting.factors, device, 2)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    for name, after in [("wide", "narrow"), ("narrow", "other"), ("other", "last"), ("last", "wide")] * 3:
        slots.ahead([name, after])
        with torch.no_grad(), net.rows([name] * 3):
            y = net.network(x.to(device))
        torch.testing.assert_close(y.cpu().double(), plainly(setting.folder, name, x), atol=1e-3, rtol=1e-3)
    assert slots.take_stall() >= 0
