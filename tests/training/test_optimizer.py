"""One optimizer over one flat tensor does what PyTorch's does over many; rates, clipping and the average by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clora.adapters.adapter import Adapter
from clora.config.schema import Train
from clora.diffusion.rng import StepRng
from clora.training.distributed import Distributed
from clora.training.optimizer import MovingAverage, TrainableAdapter, learning_rate

SHAPES = {"a": (6, 5), "b": (5, 7)}


def adapter() -> Adapter:
    made = Adapter.fresh(SHAPES, 2, 2.0, StepRng(0))
    made.flat.copy_(StepRng(0).normal("start", made.flat))
    return made


def trained(**keys) -> TrainableAdapter:
    return TrainableAdapter(adapter(), 1e-2, Train(**keys), Distributed())


def gradients(step: int, scale: float = 1.0) -> list[torch.Tensor]:
    """One gradient for every factor of SHAPES, A before B."""
    shapes = [shape for inputs, outputs in SHAPES.values() for shape in ((2, inputs), (outputs, 2))]
    return [scale * StepRng(step).normal(str(i), torch.empty(shape)) for i, shape in enumerate(shapes)]


def give(adapter: Adapter, grads: list[torch.Tensor]) -> None:
    parts = [part for a, b, _ in adapter.factors.values() for part in (a, b)]
    torch.autograd.backward([(part * grad).sum() for part, grad in zip(parts, grads, strict=True)])


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (Train(steps=4), [1.0, 1.0, 1.0, 1.0]),
        (Train(steps=6, warmup_steps=4), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        (Train(steps=4, warmup_steps=1), [1.0, 1.0, 1.0, 1.0]),
        # three of six steps fall: cos at 3/4, 2/4 and 1/4 of a half turn from the end
        (
            Train(steps=6, decay=0.5),
            [1.0, 1.0, 1.0] + [0.5 * (1 - math.cos(math.pi * left / 4)) for left in (3, 2, 1)],
        ),
        (Train(steps=2, decay=1.0, warmup_steps=2), [0.5 * 0.75, 0.25]),
    ],
)
def test_the_learning_rate_rises_holds_and_falls(train, expected):
    rates = [learning_rate(3e-4, step, train) for step in range(train.steps)]
    np.testing.assert_allclose(rates, 3e-4 * np.array(expected))
    assert min(rates) > 0


@pytest.mark.parametrize("keys", [{}, {"betas": (0.9, 0.999), "weight_decay": 0.1}, {"warmup_steps": 3, "steps": 5}])
def test_one_flat_adamw_equals_adamw_over_separate_tensors(keys):
    flat = trained(**keys)
    separate = [part.detach().clone().requires_grad_() for a, b, _ in flat.adapter.factors.values() for part in (a, b)]
    train = Train(**keys)
    plain = torch.optim.AdamW(separate, lr=1e-2, betas=train.betas, weight_decay=train.weight_decay)
    for step in range(5):
        give(flat.adapter, gradients(step))
        flat.update(step)
        for part, grad in zip(separate, gradients(step), strict=True):
            part.grad = grad
        plain.param_groups[0]["lr"] = learning_rate(1e-2, step, train)
        plain.step()
    together = torch.cat([part.detach().flatten() for part in separate])
    torch.testing.assert_close(flat.adapter.flat, together, rtol=1e-6, atol=1e-7)


def test_adamw_is_adamw():
    """Three steps by the formulas in float64, with the public code's betas 0.9 and 0.999 and weight decay 0.01."""
    ours, w, m, v = trained(), adapter().flat.double().numpy(), 0.0, 0.0
    for step in range(3):
        give(ours.adapter, gradients(step))
        ours.update(step)
        g = torch.cat([grad.flatten() for grad in gradients(step)]).double().numpy()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        w = w - 1e-2 * 0.01 * w - 1e-2 * m_hat / (np.sqrt(v_hat) + 1e-8)
    np.testing.assert_allclose(ours.adapter.flat.numpy(), w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_clipping_is_clip_grad_norm(scale):
    """Seen before the optimizer, because Adam's step hardly depends on the gradient's size."""
    ours = trained(grad_clip=2.0)
    seen = []
    ours.optimizer.register_step_pre_hook(lambda *_: seen.append(ours.adapter.flat_grad.clone()))
    give(ours.adapter, gradients(0, scale))
    norm = ours.update(0)
    parts = [torch.nn.Parameter(torch.zeros_like(grad)) for grad in gradients(0)]
    for part, grad in zip(parts, gradients(0, scale), strict=True):
        part.grad = grad
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(parts, 2.0)), rel=1e-5)
    torch.testing.assert_close(seen[0], torch.cat([part.grad.flatten() for part in parts]), rtol=1e-5, atol=1e-6)


def test_gradients_are_used_once():
    ours = trained()
    give(ours.adapter, gradients(0))
    ours.update(0)
    assert not ours.adapter.flat_grad.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    ours = trained()
    give(ours.adapter, gradients(0))
    ours.update(0)
    before = {key: value.clone() for key, value in ours.state().items()}
    give(ours.adapter, gradients(1))
    ours.adapter.flat_grad[3] = bad
    assert not math.isfinite(ours.update(1))
    assert all(torch.equal(value, before[key]) for key, value in ours.state().items())


def test_a_restored_state_goes_on_exactly():
    whole, first, second = trained(), trained(), trained()
    for step in range(4):
        give(whole.adapter, gradients(step))
        whole.update(step)
    for step in range(2):
        give(first.adapter, gradients(step))
        first.update(step)
    second.adapter.flat.zero_()
    second.restore({key: value.clone() for key, value in first.state().items()})
    for step in range(2, 4):
        give(second.adapter, gradients(step))
        second.update(step)
    assert torch.equal(second.adapter.flat, whole.adapter.flat)
    assert second.adapter.factors["a"][0].data_ptr() == second.adapter.flat.data_ptr()


def test_a_state_from_before_the_first_update_can_be_restored():
    first, second = trained(), trained()
    second.restore({key: value.clone() for key, value in first.state().items()})
    for each in (first, second):
        give(each.adapter, gradients(0))
        each.update(0)
    assert torch.equal(first.adapter.flat, second.adapter.flat)


def test_the_moving_average_is_its_formula():
    """m <- d m + (1 - d) w with d = min(decay, (1 + n) / (10 + n)) after update n."""
    source = adapter()
    average = MovingAverage(source, 0.5)
    expected = source.flat.double().numpy()
    assert torch.equal(average.adapter.flat, source.flat)
    for n in range(1, 12):
        source.flat.copy_(StepRng(n).normal("w", source.flat))
        average.update(source, n)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * source.flat.double().numpy()
    np.testing.assert_allclose(average.adapter.flat.numpy(), expected, atol=1e-5)
    assert average.adapter.factors["a"][0].data_ptr() == average.adapter.flat.data_ptr()


def test_an_average_without_decay_is_the_adapter_itself():
    source = adapter()
    average = MovingAverage(source, 0.0)
    source.flat.fill_(2.0)
    average.update(source, 1)
    assert torch.equal(average.adapter.flat, source.flat)


def test_an_optimizer_in_cpu_memory_is_the_same_to_the_bit():
    here, there = trained(), trained(offload_optimizer=True)
    for step in range(5):
        for one in (here, there):
            give(one.adapter, gradients(step, 20.0 if step == 2 else 1.0))  # one of them is clipped
        assert here.update(step) == there.update(step)
        assert torch.equal(here.adapter.flat, there.adapter.flat)
        assert not there.adapter.flat_grad.any()
    assert there.master.data_ptr() != there.adapter.flat.data_ptr()


def test_an_optimizer_in_cpu_memory_resumes_exactly():
    first, second = trained(offload_optimizer=True), trained(offload_optimizer=True)
    give(first.adapter, gradients(0))
    first.update(0)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for one in (first, second):
        give(one.adapter, gradients(1))
        one.update(1)
    assert torch.equal(first.adapter.flat, second.adapter.flat)


def test_gradients_that_are_not_finite_leave_the_copy_alone():
    one = trained(offload_optimizer=True)
    before = one.adapter.flat.clone()
    give(one.adapter, gradients(0, math.inf))
    assert not math.isfinite(one.update(0))
    assert torch.equal(one.adapter.flat, before)
