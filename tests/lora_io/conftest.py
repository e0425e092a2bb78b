"""One known delta, written in every layout that is in use.

It is w1 kron w2 with w1 of rank 1, so that it is a plain LoRA, a Kronecker product and a Hadamard product at once:
w1 kron w2 = (w1 kron ones) * (ones kron w2). As DoRA it stands beside a known base.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attrs import frozen
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]

#: module: (shape of w1, shape of w2, rank, alpha); ranks and strengths differ on purpose
KNOWN = {
    "transformer_blocks.0.attn.to_q": ((2, 2), (2, 3), 2, 1.0),
    "transformer_blocks.0.attn.to_out.0": ((2, 1), (3, 4), 3, 6.0),
    "transformer_blocks.1.img_mlp.net.0.proj": ((2, 2), (4, 3), 2, 1.0),
    "transformer_blocks.1.txt_mod.1": ((3, 2), (4, 3), 2, 1.0),
}


@frozen
class Known:
    """One linear: w1 = u1 v1, w2 = b2 a2, delta = alpha / rank * w1 kron w2, all float64; `base` is its weight."""

    u1: torch.Tensor
    v1: torch.Tensor
    b2: torch.Tensor
    a2: torch.Tensor
    base: torch.Tensor
    rank: int
    alpha: float

    @property
    def a(self) -> torch.Tensor:
        return torch.kron(self.v1, self.a2)

    @property
    def b(self) -> torch.Tensor:
        return torch.kron(self.u1, self.b2)

    @property
    def delta(self) -> torch.Tensor:
        return self.alpha / self.rank * torch.kron(self.u1 @ self.v1, self.b2 @ self.a2)


def known_linears() -> dict[str, Known]:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return {
        module: Known(
            draw(o1, 1), draw(1, i1), draw(o2, rank), draw(rank, i2), draw(o1 * o2, i1 * i2), rank, alpha
        )
        for module, ((o1, i1), (o2, i2), rank, alpha) in KNOWN.items()
    }  # fmt: skip


def save(path: Path, name: str, parts: Callable[[Known], Tensors], metadata: dict[str, str] | None = None) -> None:
    """Every linear's parts in float32 under `name`, in which {M} is the linear and {F} its flat name."""
    tensors: Tensors = {}
    for module, linear in known_linears().items():
        for part, tensor in parts(linear).items():
            tensors[name.format(M=module, F=module.replace(".", "_")) + part] = tensor.float().contiguous()
    save_file(tensors, path, metadata)


def plain(a: str, b: str, *, alpha: bool = False, folded: bool = False) -> Callable[[Known], Tensors]:
    """A and B under two names, with alpha beside them, or folded half into A and half into B, or neither."""

    def parts(linear: Known) -> Tensors:
        half = (linear.alpha / linear.rank) ** 0.5 if folded else 1.0
        tensors = {a: linear.a * half, b: linear.b * half}
        return tensors | ({".alpha": torch.tensor(linear.alpha)} if alpha else {})

    return parts


def lora_config(prefix: str = "", **more: object) -> str:
    of_one = "transformer_blocks.0.attn.to_out.0"
    config = {"r": 2, "lora_alpha": 1, "rank_pattern": {of_one: 3}, "alpha_pattern": {f"^{of_one}": 6}, **more}
    return json.dumps({prefix + key: value for key, value in config.items()})


AB = (".lora_A.weight", ".lora_B.weight")
DOWN_UP = (".lora_down.weight", ".lora_up.weight")


def a_diffusers(path: Path) -> None:
    save(path, "transformer.{M}", plain(*AB), {"lora_adapter_metadata": lora_config("transformer.")})


def a_without_metadata(path: Path) -> None:
    save(path, "transformer.{M}", plain(*AB, folded=True))


def b_comfyui(path: Path) -> None:
    save(path, "diffusion_model.{M}", plain(*AB, folded=True))


def c_comfyui_with_alpha(path: Path) -> None:
    save(path, "diffusion_model.{M}", plain(*AB, alpha=True))


def d_kohya(path: Path) -> None:
    save(path, "lora_unet_{F}", plain(*DOWN_UP, alpha=True))


def e_lightx2v(path: Path) -> None:
    save(path, "{M}", plain(*DOWN_UP, alpha=True))


def f_diffsynth(path: Path) -> None:
    save(path, "{M}", plain(".lora_A.default.weight", ".lora_B.default.weight", folded=True))


def g_peft(path: Path) -> None:
    save(path, "base_model.model.{M}", plain(*AB))
    path.with_name("adapter_config.json").write_text(lora_config(peft_type="LORA"))


def g_peft_of_a_pipeline(path: Path) -> None:
    save(path, "model.base_model.model.{M}", plain(*AB))
    path.with_name("adapter_config.json").write_text(lora_config())


def g_collectionlora(path: Path) -> None:
    names = (".lora_A.default.weight", ".lora_B.default.weight")
    save(path, "generator.model.base_model.model.{M}", plain(*names))
    path.with_name("adapter_config.json").write_text(lora_config())


def h_old_diffusers(path: Path) -> None:
    save(path, "transformer.{M}", plain(".lora.down.weight", ".lora.up.weight", alpha=True))


def lokr(w1: Tensors, w2: Tensors, alpha: float) -> Tensors:
    return {f".lokr_{part}": tensor for part, tensor in (w1 | w2).items()} | {".alpha": torch.tensor(alpha)}


def i_lycoris(path: Path) -> None:
    """The second factor decomposed: alpha counts, divided by its rank."""
    save(path, "lycoris_{F}", lambda k: lokr({"w1": k.u1 @ k.v1}, {"w2_a": k.b2, "w2_b": k.a2}, k.alpha))


def i_first_decomposed(path: Path) -> None:
    save(path, "lora_unet_{F}", lambda k: lokr({"w1_a": k.u1, "w1_b": k.v1}, {"w2": k.b2 @ k.a2 / k.rank}, k.alpha))


def i_whole(path: Path) -> None:
    """Neither factor decomposed: alpha says nothing (ai-toolkit writes one all the same)."""
    save(
        path,
        "diffusion_model.{M}",
        lambda k: lokr({"w1": k.u1 @ k.v1}, {"w2": k.b2 @ k.a2 * (k.alpha / k.rank)}, 1e10),
    )


def i_both_with_core(path: Path) -> None:
    """Both decomposed and a core between the second one's halves; the second one's rank divides."""

    def parts(k: Known) -> Tensors:
        core = torch.eye(k.rank, dtype=torch.float64) + torch.ones(k.rank, k.rank).triu(1)
        second = {"w2_a": k.b2.T, "t2": core, "w2_b": torch.linalg.solve(core, k.a2)}
        return lokr({"w1_a": k.u1, "w1_b": k.v1}, second, k.alpha)

    save(path, "diffusion_model.{M}", parts)


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float64)


def hadamard(k: Known) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """w1 kron ones, padded with zeros to the rank as [out, r] [r, in], and ones kron w2."""
    left = torch.nn.functional.pad(torch.kron(k.u1, ones(k.b2.shape[0], 1)), (0, k.rank - 1))
    right = torch.nn.functional.pad(torch.kron(k.v1, ones(1, k.a2.shape[1])), (0, 0, 0, k.rank - 1))
    return left, right, torch.kron(ones(k.u1.shape[0], 1), k.b2), torch.kron(ones(1, k.v1.shape[1]), k.a2)


def j_lycoris(path: Path) -> None:
    names = (".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b")
    save(
        path,
        "lycoris_{F}",
        lambda k: dict(zip(names, hadamard(k), strict=True)) | {".alpha": torch.tensor(k.alpha)},
    )


def j_with_cores(path: Path) -> None:
    """No alpha, the strength in the first core."""

    def parts(k: Known) -> Tensors:
        left1, right1, left2, right2 = hadamard(k)
        core = torch.eye(k.rank, dtype=torch.float64) + torch.ones(k.rank, k.rank).tril(-1)
        first = {"w1_a": left1.T, "t1": core * (k.alpha / k.rank), "w1_b": torch.linalg.solve(core, right1)}
        second = {"w2_a": left2.T, "t2": core, "w2_b": torch.linalg.solve(core, right2)}
        return {f".hada_{part}": tensor for part, tensor in (first | second).items()}

    save(path, "diffusion_model.{M}", parts)


def dora(a: str, b: str, magnitude: str, *, dim: int, keepdim: bool, scale: str) -> Callable[[Known], Tensors]:
    """A magnitude and a LoRA of full rank whose direction is the known one and whose length is not.

    m (W + C) / |W + C| = W + delta wherever W + C is W + delta with its rows (dim 1) or columns (dim 0) stretched.
    """

    def parts(k: Known) -> Tensors:
        new = k.base + k.delta
        inputs = new.shape[1]
        stretch = torch.linspace(0.5, 2.0, new.shape[1 - dim], dtype=torch.float64)
        change = new * (stretch[:, None] if dim == 1 else stretch) - k.base
        alpha = {"tensor": k.alpha, "config": k.alpha, "none": float(inputs)}[scale]
        length = new.norm(dim=dim, keepdim=keepdim)
        tensors = {a: torch.eye(inputs, dtype=torch.float64), b: change * inputs / alpha, magnitude: length}
        return tensors | ({".alpha": torch.tensor(alpha)} if scale == "tensor" else {})

    return parts


def k_kohya(path: Path) -> None:
    save(path, "lora_unet_{F}", dora(*DOWN_UP, ".dora_scale", dim=1, keepdim=True, scale="tensor"))


def k_by_column(path: Path) -> None:
    save(path, "lora_unet_{F}", dora(*DOWN_UP, ".dora_scale", dim=0, keepdim=True, scale="tensor"))


def k_ai_toolkit(path: Path) -> None:
    save(path, "diffusion_model.{M}", dora(*AB, ".magnitude", dim=1, keepdim=False, scale="none"))


def k_peft(path: Path) -> None:
    names = (".lora_A.default.weight", ".lora_B.default.weight", ".lora_magnitude_vector.default.weight")
    save(path, "base_model.model.{M}", dora(*names, dim=1, keepdim=False, scale="config"))
    path.with_name("adapter_config.json").write_text(lora_config(use_dora=True))


def k_lokr(path: Path) -> None:
    """DoRA over a LoKr, as LyCORIS writes it: the magnitude is that of base and delta, so that nothing is stretched."""

    def parts(k: Known) -> Tensors:
        factors = lokr({"w1": k.u1 @ k.v1}, {"w2_a": k.b2, "w2_b": k.a2}, k.alpha)
        return factors | {".dora_scale": (k.base + k.delta).norm(dim=1, keepdim=True)}

    save(path, "lycoris_{F}", parts)


LAYOUTS: dict[Callable[[Path], None], str] = {
    a_diffusers: "diffusers",
    a_without_metadata: "diffusers",
    b_comfyui: "comfyui",
    c_comfyui_with_alpha: "comfyui with alpha",
    d_kohya: "kohya",
    e_lightx2v: "lightx2v",
    f_diffsynth: "diffsynth",
    g_peft: "peft",
    g_peft_of_a_pipeline: "peft",
    g_collectionlora: "peft",
    h_old_diffusers: "old diffusers",
    i_lycoris: "lycoris lokr",
    i_first_decomposed: "kohya lokr",
    i_whole: "comfyui lokr",
    i_both_with_core: "comfyui lokr",
    j_lycoris: "lycoris loha",
    j_with_cores: "comfyui loha",
    k_kohya: "kohya dora",
    k_by_column: "kohya dora",
    k_ai_toolkit: "comfyui dora",
    k_peft: "peft dora",
    k_lokr: "lycoris lokr dora",
}


@pytest.fixture
def known() -> dict[str, Known]:
    return known_linears()


@pytest.fixture
def shapes() -> dict[str, tuple[int, int]]:
    return {module: (i1 * i2, o1 * o2) for module, ((o1, i1), (o2, i2), _, _) in KNOWN.items()}


@pytest.fixture(params=LAYOUTS, ids=lambda write: write.__name__)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A file in one layout, and the layout's name."""
    path = tmp_path / "effect.safetensors"
    request.param(path)
    return path, LAYOUTS[request.param]
