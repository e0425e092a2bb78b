"""What torch offers around a group of linears: checkpoints, saved tensors, autocast, compilation; and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clora_triton.groups import Linear, lora_linears
from clora_triton.op import lora_linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

#: (rows, tokens, the adapter of each segment): one adapter of few rows, one that is merged, a mix
LAYOUTS = {
    "few rows": (4, 3, [(4, 0)]),
    "many rows": (4, 90, [(4, 0)]),
    "a mix": (6, 7, [(2, 0), (0, 1), (1, -1), (3, 1)]),
}
WIDTHS = (24, 20, 24)


class Setting:
    """Three linears with two adapters each, all factors learning."""

    def __init__(self, layout: str) -> None:
        rows, tokens, plan = LAYOUTS[layout]
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int, grad: bool = True) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).requires_grad_(grad)

        self.x = randn(rows, tokens, 20)
        self.factors: list[torch.Tensor] = []
        self.linears: list[Linear] = []
        for width in WIDTHS:
            pairs = [(randn(rank, 20), randn(width, rank), 2.0 / rank) for rank in (3, 5)]
            segments: Any = [(count, *(pairs[i] if i >= 0 else (None, None, 0.0))) for count, i in plan]
            self.linears.append((randn(width, 20, grad=False), randn(width, grad=False), segments))
            self.factors += [factor for i in sorted({i for _, i in plan if i >= 0}) for factor in pairs[i][:2]]

    def gradients(self, ys: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of a loss whose gradient differs from place to place."""
        loss = sum((y.float() * torch.arange(y.numel()).view(y.shape).sin()).sum() for y in ys)
        return list(torch.autograd.grad(loss, [self.x, *self.factors], allow_unused=True))  # pyright: ignore

    def __call__(self, x: torch.Tensor | None = None) -> list[torch.Tensor]:
        return lora_linears(self.x if x is None else x, self.linears)

    def separately(self, x: torch.Tensor | None = None) -> list[torch.Tensor]:
        return [lora_linear(self.x if x is None else x, *rest) for rest in self.linears]


def same(found: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    for mine, its in zip(found, right, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_linears_one_by_one(layout: str) -> None:
    setting = Setting(layout)
    same(setting(), setting.separately())
    same(setting.gradients(setting()), setting.gradients(setting.separately()))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpointing_has_the_same_bits(layout: str, reentrant: bool) -> None:
    setting = Setting(layout)

    def grads(ys: Any) -> list[torch.Tensor]:
        sum(y.square().sum() for y in ys).backward()
        wanted = [setting.x, *setting.factors]
        found = [t.grad.clone() for t in wanted if t.grad is not None]
        for t in wanted:
            t.grad = None
        return found

    plain = grads(setting())
    again = grads(checkpoint(lambda x: tuple(setting(x)), setting.x, use_reentrant=reentrant))
    assert len(plain) == 1 + len(setting.factors)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_kept_goes_through_the_hooks_of_saved_tensors(layout: str) -> None:
    setting = Setting(layout)
    plain = setting.gradients(setting())
    packed: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> int:
        packed.append(tensor.detach().clone())
        return len(packed) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, packed.__getitem__):
        ys = setting()
    assert packed
    assert all(torch.equal(one, other) for one, other in zip(plain, setting.gradients(ys), strict=True))


def test_x_is_kept_once() -> None:
    kept: list[tuple[int, int]] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append((tensor.data_ptr(), tensor.numel()))
        return tensor

    setting = Setting("a mix")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        setting()
    known = {tensor.data_ptr() for linear in setting.linears for tensor in linear[:2] if tensor is not None}
    known |= {factor.data_ptr() for factor in setting.factors} | {setting.x.data_ptr()}
    beyond = sum(size for at, size in set(kept) if at not in known)
    assert beyond == setting.x.shape[0] * setting.x.shape[1] * 3 * 5  # s alone, [vectors, three ranks]


def test_a_tensor_changed_before_the_backward_pass_is_noticed() -> None:
    setting = Setting("many rows")
    ys = setting()
    with torch.no_grad():
        setting.factors[1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sum(y.sum() for y in ys).backward()  # pyright: ignore


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_may_be_written_into(layout: str) -> None:
    setting = Setting(layout)
    right = setting.gradients([y * 2 for y in setting.separately()])
    same(setting.gradients([y.mul_(2) for y in setting()]), right)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_output_that_nobody_uses_has_no_share(layout: str) -> None:
    setting = Setting(layout)
    found, right = setting.gradients(setting()[::2]), setting.gradients(setting.separately()[::2])
    for mine, its in zip(found, right, strict=True):
        if its is None:
            assert mine is None or not mine.any()
        else:
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_what_needs_a_gradient_gets_one(layout: str) -> None:
    setting = Setting(layout)
    right = setting.gradients(setting.separately())
    learning = 1, 4  # of the first linear B, of a later one A or B
    for tensor in (setting.x, *setting.factors):
        tensor.requires_grad_(False)
    for i in learning:
        setting.factors[i].requires_grad_()
    ys = setting()
    used = [y for y in ys if y.requires_grad]
    loss = sum((y * torch.arange(y.numel()).view(y.shape).sin()).sum() for y in used)
    loss.backward()  # pyright: ignore
    for i, factor in enumerate(setting.factors):
        if i in learning:
            torch.testing.assert_close(factor.grad, right[1 + i], rtol=1e-4, atol=1e-4)
        else:
            assert factor.grad is None
    assert setting.x.grad is None


def test_a_trained_base_has_its_gradients_too() -> None:
    for layout in LAYOUTS:
        setting = Setting(layout)
        bases = [tensor.requires_grad_() for weight, bias, _ in setting.linears for tensor in (weight, bias)]
        found, right = (
            torch.autograd.grad(sum(y.square().sum() for y in ys), bases)  # pyright: ignore
            for ys in (setting(), setting.separately())
        )
        for mine, its in zip(found, right, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_autocast_casts_the_base_and_leaves_the_masters(layout: str) -> None:
    setting = Setting(layout)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ys = setting()
        found = setting.gradients(ys)  # within autocast, as some training loops do it
    assert {y.dtype for y in ys} == {torch.bfloat16}
    assert {t.dtype for t in found} == {torch.float32}
    exact = setting.gradients(setting.separately())
    for mine, its in zip(found, exact, strict=True):
        assert (mine - its).norm() < 0.03 * its.norm()


def test_without_gradients_nothing_is_kept() -> None:
    setting = Setting("a mix")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            ys = setting()
            same(ys, setting.separately())
        assert not any(y.requires_grad for y in ys)


def test_a_compiled_graph_is_whole_and_the_same() -> None:
    torch._dynamo.reset()
    setting = Setting("a mix")
    compiled = torch.compile(lambda x: lora_linears(x, setting.linears), backend="aot_eager", fullgraph=True)
    found = compiled(setting.x)
    same(found, setting())
    same(setting.gradients(found), setting.gradients(setting()))


class Reads(TorchDispatchMode):
    """Counts the products that read a tensor's storage."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.at, self.count = tensor.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.count += any(t.untyped_storage().data_ptr() == self.at for t in args if isinstance(t, torch.Tensor))
        return func(*args, **(kwargs or {}))


def test_x_is_read_once_for_all_factors() -> None:
    counts: list[int] = []
    for way in ("together", "apart"):
        setting = Setting("a mix")
        with Reads(setting.x) as reads:
            setting.gradients(setting() if way == "together" else setting.separately())
        counts.append(reads.count)
    # the base's three products, then the two segments that have adapters and rows: forward and dA, once or three times
    assert counts == [3 + 2 + 2, 3 + 6 + 6]


def changed(index: int, **parts: Any) -> tuple[torch.Tensor, list[Linear]]:
    x = torch.zeros(4, 3, 8)
    base = {
        "weight": torch.zeros(6, 8),
        "bias": torch.zeros(6),
        "segments": [(4, torch.zeros(2, 8), torch.zeros(6, 2), 1.0)],
    }
    each = [base if i != index else base | parts for i in range(3)]
    return x, [(one["weight"], one["bias"], one["segments"]) for one in each]


A, B = torch.zeros(2, 8), torch.zeros(6, 2)
WRONG = {
    "another segmentation": (
        changed(1, segments=[(1, A, B, 1.0), (3, None, None, 0.0)]),
        ValueError,
        r"linear 1: expected linear 0's row counts \[4\], got \[1, 3\]",
    ),
    "another width": (changed(2, weight=torch.zeros(6, 7)), ValueError, r"got \(4, 3, 8\) and \(6, 7\)"),
    "another type": (changed(1, weight=torch.zeros(6, 8).half()), TypeError, "torch.float32, got torch.float16"),
    "A alone": (changed(0, segments=[(4, A, None, 1.0)]), ValueError, "segment 0: .*got A without B"),
    "a gap": (
        (lambda x, linears: (x, [(w, b, [(3, A, B, 1.0)]) for w, b, _ in linears]))(*changed(-1)),
        ValueError,
        "leave a gap: expected x's 4 rows in all, got 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_says_what_was_expected_and_what_came(case: str) -> None:
    (x, linears), kind, message = WRONG[case]
    with pytest.raises(kind, match=message):
        lora_linears(x, linears)


def test_an_unknown_kernel_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"expected one of auto, triton, addmm.*got 'turbo'"):
        lora_linears(*changed(-1), kernel="turbo")
