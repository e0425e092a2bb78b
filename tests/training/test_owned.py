"""Modules and running state of components: trained as plain AdamW would, resumed to the last bit, told when wrong."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve, field, frozen
from torch import nn

from clora.adapters.adapter import Adapter
from clora.config.schema import Recipe, Train
from clora.contracts.step import LossTerm
from clora.contracts.values import Row, StepReport
from clora.diffusion.rng import StepRng
from clora.plugin_system.guard import ComponentError, Owners
from clora.testing import example_step
from clora.training.answers import term_problem
from clora.training.checkpoint import Checkpoints, State
from clora.training.distributed import Distributed
from clora.training.objective import NonFiniteLossError
from clora.training.optimizer import TrainableAdapter
from clora.training.owned import OwnedParts
from clora.training.teacher_lookahead import LookAhead
from clora.training.trainer import Trainer

LATENT = (2, 3, 3)
ROWS = (Row("effect", "ink"), Row("general"), Row("effect", "ink"))


@frozen
class Judged:
    """mean D(v) for the student, mean (D(v) - 1)^2 for its own D, a linear map; counts how often it is asked."""

    streams: tuple = ("effect",)
    weight: float = 1.0
    modules_lr: float = 0.05
    made: object = None
    told: object = None
    counted: torch.Tensor = field(factory=lambda: torch.zeros(()), eq=False)
    heard: list = field(factory=list, eq=False)

    def modules(self, latent, width):
        return {"judge": nn.Linear(latent[0], 1)} if self.made is None else self.made

    def __call__(self, step):
        self.counted.add_(1)
        velocity = yield step.forward("student", step.targets, torch.ones(len(step.rows)), grad=True)
        judge = step.modules["judge"]
        own = (judge(velocity.detach().movedim(1, -1)) - 1).square().mean()
        return LossTerm(judge(velocity.movedim(1, -1)).mean(), own=own)

    def state(self):
        return {"counted": self.counted} if self.told is None else self.told

    def restore(self, state):
        self.counted.copy_(state["counted"])

    def learn(self, report):
        self.heard.append((report.step, dict(report.losses), report.seconds, report.forward_equivalents))


class OneLinear:
    """v = (1 + w) x with w the student's only number: an evaluator with a gradient to it."""

    def __init__(self) -> None:
        self.student = TrainableAdapter(
            Adapter.fresh({"mix": (1, 1)}, 1, 1.0, StepRng(0)), 0.01, Train(), Distributed()
        )
        self.row_forwards = 0.0

    def __call__(self, forwards):
        a, b, _ = self.student.adapter.factors["mix"]
        return [(1 + (b @ a)[0, 0]) * forward.x_sigma for forward in forwards]


class Setting:
    """A trainer of one loss that owns a module."""

    def __init__(self, loss: Judged, steps: int = 10) -> None:
        self.recipe = Recipe(
            None, None, None, SimpleNamespace(), None, losses={"gan": loss}, train=Train(steps=steps, grad_clip=0.3)
        )
        owners = Owners({"losses.gan": "judged of clora-judged 1.0"})
        self.owned = OwnedParts.of(self.recipe, LATENT, torch.device("cpu"), Distributed(), owners)
        self.evaluator = OneLinear()
        self.student = self.evaluator.student
        self.trainer = Trainer(
            self.recipe,
            self,
            self.evaluator,
            self.student,
            None,
            owners=owners,
            owned=self.owned,  # pyright: ignore
        )
        self.state = State(self.student, None, None, owned=self.owned)

    def context(self, rng, phase, schedule):
        return example_step(ROWS, rng.normal("targets", torch.empty(len(ROWS), *LATENT)), phase=phase, rng=rng)

    def run(self, updates: range) -> list[dict[str, float]]:
        return [self.trainer.cycle(update, StepRng(0)) for update in updates]


def test_modules_take_the_steps_of_plain_adamw_on_their_own_loss_by_the_rows_share():
    setting = Setting(Judged())
    judge = setting.owned.modules("losses.gan")["judge"]
    ours = nn.Linear(LATENT[0], 1).double()
    ours.load_state_dict({key: value.double() for key, value in judge.state_dict().items()})
    optimizer = torch.optim.AdamW(ours.parameters(), 0.05, (0.0, 0.99), weight_decay=0.0)
    for update in range(4):
        a, b, _ = setting.student.adapter.factors["mix"]
        scale = 1 + float((b @ a).detach())
        setting.run(range(update, update + 1))
        targets = StepRng(0).at(update).normal("targets", torch.empty(len(ROWS), *LATENT)).double()[[0, 2]]
        optimizer.zero_grad()
        (2 / 3 * (ours((scale * targets).movedim(1, -1)) - 1).square().mean()).backward()
        nn.utils.clip_grad_norm_(ours.parameters(), 0.3)
        optimizer.step()
    for mine, theirs in zip(judge.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-6)


def test_the_students_loss_leaves_no_gradient_in_the_modules_and_moves_the_student():
    setting = Setting(Judged())
    before = setting.student.adapter.flat.clone()
    logs = setting.run(range(2))[-1]
    assert not torch.equal(setting.student.adapter.flat, before)
    assert logs["gan.modules.grad_norm"] > 0
    assert all(parameter.grad is None for parameter in setting.owned.modules("losses.gan")["judge"].parameters())


def test_modules_are_drawn_from_the_seed_and_leave_torchs_random_numbers_alone():
    before = torch.get_rng_state()
    first = Setting(Judged()).owned.tensors()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    second = Setting(Judged()).owned.tensors()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_modules_and_state_resume_to_the_last_bit(tmp_path):
    whole, stopped, resumed = (Setting(Judged()) for _ in range(3))
    whole.run(range(6))
    stopped.run(range(3))
    checkpoints = Checkpoints(tmp_path / "checkpoints", "digest", keep=2)
    checkpoints.save(3, stopped.state)
    assert checkpoints.resume(resumed.state) == 3
    resumed.run(range(3, 6))
    ours, theirs = resumed.state.tensors(), whole.state.tensors()
    assert ours.keys() == theirs.keys()
    assert float(ours["parts.losses.gan/counted"]) == 6
    assert any(key.startswith("modules.losses.gan/moments.state.0.exp_avg") for key in ours)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_is_computed_untouched_changes_nothing_that_is_owned():
    setting = Setting(Judged())
    setting.run(range(2))
    before = {key: value.clone() for key, value in setting.owned.tensors().items()}
    with setting.owned.untouched():
        setting.run(range(2, 4))
        assert float(setting.owned.tensors()["parts.losses.gan/counted"]) == 4
    after = setting.owned.tensors()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_component_learns_from_every_report_averaged_over_the_ranks_that_have_a_value():
    loss = Judged()
    setting = Setting(loss)

    class Two(Distributed):
        def averaged(self, values: Mapping[str, float]) -> dict[str, float]:
            return {key: value + 1 for key, value in values.items()}

    setting.owned.learn(StepReport(1, {"gan": 2.0}, 0.1, 3.0, 1e-3))
    evolve(setting.owned, ranks=Two()).learn(StepReport(2, {"gan": 2.0}, 0.1, 3.0, 1e-3))
    assert loss.heard == [(1, {"gan": 2.0}, 0.1, 3.0), (2, {"gan": 3.0}, 1.1, 4.0)]


def test_a_router_that_learns_is_not_asked_for_the_next_cycle():
    asked: list[tuple[str, ...]] = []

    class Router:
        def route(self, rng, rows, effects):
            from clora.contracts.values import Route

            return Route((Row("effect", effects[rng.step % 2]),))

    class Learning(Router):
        def learn(self, report):
            pass

    class Slots:
        def __init__(self):
            self.needed = 0

        def take_stall(self):
            return 0.0

        def ahead(self, names):
            asked.append(tuple(names))

    for router in (Router(), Learning()):
        recipe = Recipe(None, None, None, router, None, train=Train(steps=4))
        slots = Slots()
        plan = SimpleNamespace(recipe=recipe, mix=("ink", "wax"), owners=Owners())
        ahead = LookAhead(plan, slots, StepRng(0))  # pyright: ignore[reportArgumentType]
        slots.needed = 1
        ahead.begin(0)
    assert asked == [("ink", "wax"), ("ink",)]


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ([nn.Linear(2, 1)], "its modules() gave list .*; expected a mapping of names to torch modules"),
        ({"judge": 3}, "its modules() gave dict .*; expected a mapping of names to torch modules"),
        ({"judge": nn.Identity()}, "its modules() have no parameters to train"),
    ],
)
def test_modules_that_are_none_are_told_by_plugin(made, sentence):
    with pytest.raises(
        ComponentError, match=r"losses.gan \(judged of clora-judged 1.0\): " + sentence.replace("()", r"\(\)")
    ):
        Setting(Judged(made=made))


@pytest.mark.parametrize("told", [[1], {"counted": 3.0}, {1: torch.zeros(1)}])
def test_a_state_that_is_no_tensors_is_told_by_plugin(told):
    with pytest.raises(ComponentError, match=r"losses.gan \(judged of clora-judged 1.0\): its state\(\) "):
        Setting(Judged(told=told)).owned.tensors()


def test_what_raises_while_it_learns_is_told_by_plugin():
    class Refuses(Judged):
        def learn(self, report):
            raise ValueError("no")

    with pytest.raises(ComponentError, match=r"losses.gan \(judged of clora-judged 1.0\): ValueError: no"):
        Setting(Refuses()).owned.learn(StepReport(1, {}, 0.1, 3.0, 1e-3))


@pytest.mark.parametrize("own", [1.0, torch.zeros(()), torch.zeros(2, requires_grad=True)])
def test_an_own_loss_without_a_gradient_to_modules_is_refused(own):
    problem = term_problem(LossTerm(torch.zeros((), requires_grad=True), own=own))
    assert problem is not None
    assert problem.startswith("returned a LossTerm whose own is ")


def test_a_loss_that_is_not_finite_leaves_the_modules_as_they_were():
    class Infinite(Judged):
        def __call__(self, step):
            term = yield from super().__call__(step)
            return evolve(term, loss=term.loss * float("inf"))

    setting = Setting(Infinite())
    before = {key: value.clone() for key, value in setting.owned.tensors().items() if key.startswith("modules.")}
    with pytest.raises(NonFiniteLossError, match="the term gan is not a finite number"):
        setting.run(range(1))
    after = setting.owned.tensors()
    assert before
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_an_own_loss_on_the_students_graph_is_told_by_plugin():
    @frozen
    class Leaks(Judged):
        def __call__(self, step):
            velocity = yield step.forward("student", step.targets, torch.ones(len(step.rows)), grad=True)
            judged = step.modules["judge"](velocity.movedim(1, -1))
            return LossTerm(judged.square().mean(), own=(judged.square() - 1).mean())

    with pytest.raises(ComponentError, match=r"losses.gan \(judged of clora-judged 1.0\): RuntimeError"):
        Setting(Leaks()).run(range(1))
