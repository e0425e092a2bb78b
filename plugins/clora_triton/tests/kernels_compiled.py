"""Every kernel compiled for a GPU that need not be there, from the launches themselves; run by test_triton_kernels.py.

Nothing is launched: the tensors are meta tensors. What is looked at is what the compiler made for an H200 (sm_90) and
an A100 (sm_80): products on tensor cores, copies that overlap them, no registers in memory, shared memory that
fits.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from attrs import frozen
from clora_triton import configs, launching
from clora_triton.backward import backward_s_and_db, da
from clora_triton.call import Dropout
from clora_triton.dropout import written
from clora_triton.expand import expand_add, expand_kernel
from clora_triton.fused import fused_dx, fused_linear
from clora_triton.shrink import shrink
from kernel_cases import CASES, Case
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

QWEN = Case((3072, 3072, 3072), (0, 1, 2), (128, 128, 128), 3072, 3072)
SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes a program may take (CUDA programming guide, compute capabilities)


@frozen
class NoGpu:
    """A driver that knows what to compile for and can launch nothing."""

    target: GPUTarget

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch  # Triton keeps what it has compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0


@frozen
class Compiled:
    """A kernel that a launch would have run."""

    name: str
    ptx: str
    cubin: bytes
    shared: int

    def stack_bytes(self, folder: Path) -> int:
        """Bytes of local memory per thread: registers that found no place."""
        file = folder / f"{self.name}.cubin"
        file.write_bytes(self.cubin)
        tool = triton.knobs.nvidia.cuobjdump.path
        done = subprocess.run([tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True)
        return int(done.stdout.split("STACK:")[1].split()[0])


@pytest.fixture
def compile_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Compiled]]:
    """`compile_for(90)` makes launches compile for sm_90 and gives the list that they append to."""
    compiled: list[Compiled] = []

    def getitem(kernel: JITFunction, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            made = kernel.run(*args, grid=grid, warmup=True, **kwargs)
            name = kernel.__name__ + ("_ds" if kwargs.get("DS") else "")
            compiled.append(Compiled(name, made.asm["ptx"], made.asm["cubin"], made.metadata.shared))

        return launch

    def start(capability: int) -> list[Compiled]:
        triton.runtime.driver.set_active(NoGpu(GPUTarget("cuda", capability, 32)))
        monkeypatch.setattr(JITFunction, "__getitem__", getitem)
        monkeypatch.setattr(launching, "check_place", lambda name, tensor: None)
        monkeypatch.setattr(configs, "_device", lambda device: (132, SHARED[capability]))
        return compiled

    return start


def launch_all(case: Case, dtype: torch.dtype, factors: torch.dtype, share: float = 0.0) -> None:
    """Every launch function once, as forward and backward would call it; with a share, those that know a dropout."""

    def empty(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(*shape, dtype=kind, device="meta")

    a = [empty(rank, case.inner, kind=factors) for rank in case.ranks]
    b = [empty(case.width, rank, kind=factors) for rank in case.ranks]
    x, dy, weight = empty(case.m, case.inner), empty(case.m, case.width), empty(case.width, case.inner)
    rest = (case.which, case.rows)
    scales = [1.0 + index for index in range(len(a))]
    if share:
        dropout = Dropout([share] * len(a), torch.empty((), dtype=torch.int64, device="meta"))
        s = shrink(x, a, *rest, dropout=dropout)
        expand_add(x, s, [factor.T for factor in a], None, *rest, dropout=dropout)
        fused_dx(dy, weight, s, a, *rest, dropout=dropout)
        da(s, x, *rest, case.ranks, dropout=dropout)
        written(dropout, 0, slice(0, case.m), case.inner)
        return
    s = shrink(x, a, *rest)
    expand_add(dy, s, b, scales, *rest)
    fused_linear(x, weight, empty(case.width), s, b, scales, *rest)
    ds, _ = backward_s_and_db(dy, s, b, scales, *rest)
    fused_dx(dy, weight, ds, a, *rest)
    da(ds, x, *rest, case.ranks)


NAMES = ["shrink_kernel", "expand_kernel", "fused_kernel", "backward_kernel_ds", "reduce_kernel"]
NAMES += ["fused_kernel", "backward_kernel", "reduce_kernel"]


@pytest.mark.parametrize(
    ("capability", "factors"), [(90, torch.bfloat16), (90, torch.float32), (80, torch.bfloat16)], ids=str
)
def test_real_shapes_use_the_hardware(
    capability: int, factors: torch.dtype, compile_for: Callable[[int], list[Compiled]], tmp_path: Path
) -> None:
    compiled = compile_for(capability)
    launch_all(QWEN, torch.bfloat16, factors)
    assert [kernel.name for kernel in compiled] == NAMES
    product = {90: "wgmma.mma_async", 80: "mma.sync"}[capability]
    for kernel in compiled:
        assert kernel.shared <= SHARED[capability], kernel.name
        if kernel.name != "reduce_kernel":
            assert product in kernel.ptx, kernel.name
        if kernel.name not in ("reduce_kernel", "expand_kernel"):  # an expand is too short to overlap anything
            assert "cp.async" in kernel.ptx, kernel.name
        if capability == 90:
            assert kernel.stack_bytes(tmp_path) == 0, f"{kernel.name} keeps registers in memory"


@pytest.mark.parametrize(("capability", "factors"), [(90, torch.float32), (80, torch.bfloat16)], ids=str)
def test_dropout_leaves_the_hardware_in_use(
    capability: int, factors: torch.dtype, compile_for: Callable[[int], list[Compiled]], tmp_path: Path
) -> None:
    compiled = compile_for(capability)
    launch_all(QWEN, torch.bfloat16, factors, share=0.1)
    names = ["shrink_kernel", "expand_kernel", "fused_kernel", "backward_kernel", "reduce_kernel", "keep_kernel"]
    assert [kernel.name for kernel in compiled] == names
    product = {90: "wgmma.mma_async", 80: "mma.sync"}[capability]
    for kernel in compiled[:4]:
        assert kernel.shared <= SHARED[capability], kernel.name
        assert product in kernel.ptx, kernel.name
        assert "cp.async" in kernel.ptx or kernel.name == "expand_kernel", kernel.name
        if capability == 90:  # the fused kernel's accumulator leaves Philox two registers too few
            assert kernel.stack_bytes(tmp_path) <= 8, f"{kernel.name} keeps registers in memory"


def test_described_operands_come_by_the_copy_engine(
    compile_for: Callable[[int], list[Compiled]], tmp_path: Path
) -> None:
    compiled = compile_for(90)
    described = [config for config in configs.CONFIGS["fused"] if config.descriptors]
    x, weight = (torch.empty(n, 3072, dtype=torch.bfloat16, device="meta") for n in (QWEN.m, 12288))
    b = [torch.empty(12288, 128, dtype=torch.bfloat16, device="meta")]
    a = [torch.empty(128, 3072, dtype=torch.bfloat16, device="meta")]
    dy, s = (torch.empty(QWEN.m, n, dtype=torch.bfloat16, device="meta") for n in (12288, 128))
    fused_linear(x, weight, None, s, b, [1.0], [0], [QWEN.m], config=described[0])
    fused_dx(dy, weight, s, a, [0], [QWEN.m], config=described[0])
    assert len(compiled) == 2
    for kernel in compiled:
        assert "cp.async.bulk.tensor" in kernel.ptx
        assert "wgmma.mma_async" in kernel.ptx
        assert kernel.shared <= configs.shared_bytes("fused", described[0], 2)
        assert kernel.stack_bytes(tmp_path) == 0


@pytest.mark.parametrize(
    ("case", "dtype", "share"),
    [
        (CASES[0], torch.bfloat16, 0.0),  # sizes and strides of 1, which Triton makes constants
        (CASES[2], torch.float16, 0.0),
        (CASES[-2], torch.bfloat16, 0.0),  # no adapters
        (CASES[2], torch.float32, 0.0),
        (CASES[2], torch.float16, 0.5),
    ],
    ids=str,
)
def test_odd_shapes_compile(
    case: Case, dtype: torch.dtype, share: float, compile_for: Callable[[int], list[Compiled]]
) -> None:
    compiled = compile_for(80)
    launch_all(case, dtype, dtype, share)
    assert compiled
    assert all(kernel.shared <= SHARED[80] for kernel in compiled)


def test_values_that_change_in_training_compile_nothing_anew(compile_for: Callable[[int], list[Compiled]]) -> None:
    compile_for(80)
    case = CASES[2]

    def compilations() -> int:
        return sum(len(caches[0]) for caches in expand_kernel.device_caches.values())

    y, s = (torch.empty(case.m, n, dtype=torch.bfloat16, device="meta") for n in (case.width, max(case.ranks)))
    b = [torch.empty(case.width, rank, dtype=torch.bfloat16, device="meta") for rank in case.ranks]
    expand_add(y, s, b, [0.5, 2.0], case.which, case.rows)
    first = compilations()
    assert first > 0
    for scales, which in (([1.0, 1.0], case.which), ([0.0, -3.0], case.which), ([0.5, 2.0], (1, 0, 0, -1))):
        expand_add(y, s, [torch.empty_like(f) for f in b], scales, which, case.rows)
    assert compilations() == first
    dropped = Dropout([0.1, 0.5], torch.empty((), dtype=torch.int64, device="meta"))
    expand_add(y, s, b, None, case.which, case.rows, dropout=dropped)
    second = compilations()
    assert second > first
    for shares in ([0.9, 0.25], [0.0, 0.125]):
        expand_add(y, s, b, None, case.which, case.rows, dropout=Dropout(shares, torch.empty_like(dropped.seed)))
    assert compilations() == second
