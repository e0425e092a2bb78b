"""What a component must do beyond its signature, as checks that an author runs: `problems_of("losses", Mine())`.

They say what a person would otherwise learn in a run of hours: the same draws give the same result, a gradient reaches
who is trained, nothing that is handed in is changed, numbers have bounds, and a recipe that is only looked at brings
nothing heavy into memory.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from attrs import evolve

from clora.config.fields import Key, keys_of
from clora.config.key_docs import sentence_of
from clora.contracts.method import KeepsState, SharesTrajectory, TrainsModules, UsesSimulation
from clora.contracts.values import EffectCard, Forward, GeneralItem, LossTerm, Row, Simulated, StepContext
from clora.diffusion.rng import StepRng
from clora.planning.teacher_schedule import route_problem
from clora.planning.texts import prompts_of
from clora.plugin_system.guard import ComponentError, Owners, sentences
from clora.plugin_system.required_members import PROTOCOLS, likely_misspelt, misfits_of
from clora.runs.stages.measuring import measured_problem
from clora.testing import drive, example_step
from clora.testing.exporters import exporter_problems
from clora.testing.mergers import merger_problems
from clora.testing.observers import observer_problems
from clora.testing.reports import reporter_problems
from clora.training.answers import simulated_problem, term_problem, trajectory_problem
from clora.training.owned import state_problem

if TYPE_CHECKING:
    import torch

    from clora.contracts.evaluation import Evaluation

#: packages that only computing needs
HEAVY = ("torch", "diffusers", "peft", "transformers", "accelerate", "numpy")
EFFECTS = ("clay", "ink", "wool")
ROLES = ("student", "critic", "teacher", "teacher_unconditional")


def problems_of(
    kind: str, part: Any, *, phase: str = "student", checks_imports: bool = True, computes: bool = True
) -> list[str]:
    """Everything that is wrong with a component of a recipe's section (`losses`, `router`, ...), a sentence each.

    `phase` is whom a loss trains. Unless `computes`, a component that needs a GPU or weights is looked at from outside
    alone, as backbones, datasets, banks and captioners always are: what they give depends on their files.
    """
    if kind not in PROTOCOLS:
        raise ValueError(f"{kind!r} is no section of components; they are {', '.join(PROTOCOLS)}")
    found = list(misfits_of(kind, part))
    if found:
        return found
    found += [*_outside(type(part)), *likely_misspelt(part)]
    if checks_imports:
        found += _imports(type(part))
    if not computes:
        return found
    inside: Mapping[str, Callable[[Any], Iterator[str]]] = {
        "losses": lambda loss: _loss(loss, phase),
        "simulations": _simulation,
        "router": _router,
        "prompts": _prompts,
        "metrics": _metric,
        "kernels": _kernel,
        "exporters": exporter_problems,
        "observers": observer_problems,
        "merge": merger_problems,
        "reporters": reporter_problems,
    }
    try:
        every = chain(
            _state(part) if isinstance(part, KeepsState) else (), inside.get(kind, lambda part: iter(()))(part)
        )
        for problem in every:
            found.append(problem)  # one by one: what was found stays where the component raises later
    except ComponentError as error:
        found.append(str(error))
    return found


def _outside(cls: type) -> Iterator[str]:
    """Frozen, with a sentence, and bounds on every number."""
    if cls.__setattr__ is object.__setattr__:
        yield f"{cls.__name__} can be changed after it is made; use attrs' `frozen`"
    if not sentence_of(cls) or sentence_of(cls).startswith(f"{cls.__name__}("):
        yield f"{cls.__name__} has no docstring: `clora plugins` and editors have nothing to show"
    for key in keys_of(cls):
        if _is_number(key) and key.attribute.validator is None:
            yield f"{key.name} has no bounds; give it validator=between(low, high)"


def _is_number(key: Key) -> bool:
    return any(part in (int, float) for part in (key.type, *getattr(key.type, "__args__", ())))


def _imports(cls: type) -> Iterator[str]:
    """What importing the component's module brings into memory."""
    module = cls.__module__
    if module in ("__main__", "builtins") or getattr(sys.modules.get(module), "__file__", None) is None:
        return
    program = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout.strip():
        heavy = ", ".join(done.stdout.split())
        yield f"importing {module} imports {heavy}; import them where they compute, so that recipes are checked at once"


def _step_context(rows: Sequence[Row], phase: Any = "student") -> StepContext:
    import torch

    targets = torch.randn(len(rows), 3, 4, 4, generator=torch.Generator().manual_seed(len(rows)))
    return example_step(rows, targets, phase=phase, steps=4)


class _Network:
    """An answer of every role with a parameter of its own, so that a gradient shows whom it reaches."""

    def __init__(self) -> None:
        import torch

        self.factors = {role: torch.full((), 0.5 + 0.1 * i, requires_grad=True) for i, role in enumerate(ROLES)}
        self.asked = 0

    def __call__(self, forward: Forward) -> torch.Tensor:
        self.asked += 1
        return self.factors[forward.role] * forward.x_sigma + 0.1 * forward.sigma.view(-1, 1, 1, 1)

    def reached(self) -> list[str]:
        """The roles whose parameter has a gradient other than 0."""
        return [role for role, factor in self.factors.items() if factor.grad is not None and factor.grad.abs() > 0]


def _outcome(step: StepContext, network: _Network) -> Simulated:
    import torch

    sigma = torch.full((len(step.rows),), 0.5)
    x0 = network.factors["student"] * step.targets if step.phase == "student" else 0.5 * step.targets
    return Simulated(step.rows, step.targets, sigma, x0)


def _loss(loss: Any, phase: str) -> Iterator[str]:
    """One term a step, of one and of several rows; repeatable; with a gradient for whom it trains, and only there."""
    import torch

    awaited = _awaited(loss)
    for count in (1, 3):
        step = _with_modules(loss, _step_context(_rows(loss, count), phase))
        before = step.targets.clone()
        terms = []
        for _ in range(2):
            network = _Network()
            outcomes = {} if awaited is None else {awaited: _outcome(step, network)}
            with Owners().calling("losses"):
                terms.append(drive(loss(step), network, outcomes))
            problem = term_problem(terms[-1])
            if problem is not None:
                yield f"of {count} rows it {problem}"
                return
            if not terms[-1].loss.requires_grad:
                yield f"its loss of {count} rows has no gradient: ask for a forward with grad=True"
                return
            terms[-1].loss.backward()
            if network.reached() != [phase]:
                reached = ", ".join(network.reached()) or "nobody"
                yield f"its gradient of {count} rows reaches {reached}; expected {phase} alone"
            yield from _own(terms[-1], step, network)
        if not torch.equal(terms[0].loss, terms[1].loss):
            yield "the same step gave two losses: draw from step.rng, which depend on seed, step and rank alone"
        if not torch.equal(before, step.targets):
            yield "it changed step.targets, which other components read"


def _with_modules(loss: object, step: StepContext) -> StepContext:
    """The step with the loss's own modules, where it has any."""
    import torch

    if not isinstance(loss, TrainsModules):
        return step
    with Owners().calling("losses"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return evolve(step, modules=loss.modules(tuple(step.targets.shape[1:])))


def _own(term: LossTerm, step: StepContext, network: _Network) -> Iterator[str]:
    """What a loss's modules minimise reaches them and nobody else."""
    import torch

    parameters = [one for name in sorted(step.modules) for one in step.modules[name].parameters()]
    if not parameters:
        return
    if term.own is None:
        yield "it has modules and its term has no `own`: nothing trains them"
        return
    try:
        found = torch.autograd.grad(term.own, [*parameters, *network.factors.values()], allow_unused=True)
    except RuntimeError:
        yield "its `own` shares the graph of its loss: compute it of detached states"
        return
    if not any(each is not None and bool(each.abs().sum() > 0) for each in found[: len(parameters)]):
        yield "its `own` has no gradient to its modules"
    if any(each is not None for each in found[len(parameters) :]):
        yield "its `own` reaches a role's forward: compute it of detached states"


def _state(part: KeepsState) -> Iterator[str]:
    """A state of tensors that is taken back as it was given."""
    import torch

    with Owners().calling("state"):
        given = part.state()
        problem = state_problem(given)
        if problem is not None:
            yield problem
            return
        kept = {key: value.clone() for key, value in given.items()}
        part.restore(kept)
        again = part.state()
    if again.keys() != kept.keys() or not all(torch.equal(again[key], kept[key]) for key in kept):
        yield "its state() after restore() is not what was restored"


def _awaited(loss: object) -> str | None:
    """The simulation that a loss reads; None where it reads none."""
    return loss.simulation if isinstance(loss, UsesSimulation) else None


def _rollout_of(simulation: object) -> Callable[[StepContext], Any] | None:
    """The rollout of a simulation that can share one."""
    return simulation.rollout if isinstance(simulation, SharesTrajectory) else None


def _rows(loss: Any, count: int) -> list[Row]:
    """So many rows of the streams that a loss reads."""
    streams = [loss.streams[i % len(loss.streams)] for i in range(count)]
    return [Row("effect", EFFECTS[i]) if stream == "effect" else Row("general") for i, stream in enumerate(streams)]


def _simulation(simulation: Any) -> Iterator[str]:
    """An outcome for every row in both phases, the student's with a gradient; repeatable; a rollout that serves."""
    import torch

    for steps in (1, 4, 50):
        found = sentences("check_schedule", lambda n=steps: simulation.check_schedule(_step_of(n).schedule))
        yield from (told for told in found if told.startswith("its check_schedule"))
    rollout = _rollout_of(simulation)
    for phase in ("student", "critic"):
        step = _step_context([Row("effect", effect) for effect in EFFECTS], phase)
        latent = tuple(step.targets.shape[1:])
        made = []
        for _ in range(2):
            network = _Network()
            with Owners().calling("simulations"):
                made.append(drive(simulation.simulate(step), network))
            problem = simulated_problem(made[-1], step.rows, latent)
            if problem is not None:
                yield f"in the {phase}'s phase it {problem}"
                return
        if phase == "student" and not made[0].x0.requires_grad:
            yield "its x0 has no gradient in the student's phase: ask for the last forward with grad=True"
        if not torch.equal(made[0].x0, made[1].x0):
            yield "the same step gave two outcomes: draw from step.rng"
        if rollout is not None:
            path = drive(rollout(step), _Network())
            problem = trajectory_problem(path, len(step.rows), latent)
            if problem is not None:
                yield f"its rollout {problem}"
                return
            alone, shared = _Network(), _Network()
            drive(simulation.simulate(step), alone)
            drive(simulation.simulate(evolve(step, trajectory=path)), shared)
            if shared.asked > alone.asked:
                yield f"with a trajectory it asks for {shared.asked} forwards, and for {alone.asked} without"


def _step_of(steps: int) -> StepContext:
    import torch

    return example_step([Row("general")], torch.zeros(1, 1, 2, 2), steps=steps)


def _router(router: Any) -> Iterator[str]:
    """A route for any number of rows and effects, the same whenever and in whatever order it is asked for."""
    for rows in (1, 3, 12):
        for effects in (EFFECTS[:1], EFFECTS):
            asked = {step: StepRng(0).at(step) for step in (7, 0, 3)}
            made = {}
            for step, rng in asked.items():
                with Owners().calling("router"):
                    made[step] = router.route(rng, rows, effects)
                problem = route_problem(made[step], rows, effects)
                if problem is not None:
                    yield f"for {rows} rows of {len(effects)} effects it {problem}"
                    return
            if any(router.route(asked[step], rows, effects) != made[step] for step in sorted(asked)):
                yield f"step by step it gives other routes than when asked out of turn ({rows} rows): draw from `rng`"
                return


def _prompts(strategy: Any) -> Iterator[str]:
    """Words for effects and instructions, the same each time."""
    from pathlib import Path

    cards = [EffectCard(name, Path(f"{name}.safetensors"), "make it artistic", f"all {name}") for name in EFFECTS]
    for about in (*cards, GeneralItem("cat.png", "make it night")):
        if prompts_of(strategy, about, Owners()) != prompts_of(strategy, about, Owners()):
            yield "it gives other words each time: a run that is gone on with would train other prompts"
            return


def _metric(metric: Any) -> Iterator[str]:
    """Findings that are numbers, the same each time, from pictures that stay as they are."""
    evaluation = _evaluation()
    before = [pictures.student.clone() for pictures in evaluation.effects]
    with Owners().calling("metrics"):
        found, again = metric.measure(evaluation), metric.measure(evaluation)
    problem = measured_problem(found)
    if problem is not None:
        yield f"it {problem}"
        return
    if dict(found.values) != dict(again.values):
        yield "the same pictures gave two findings"
    if any(not pictures.student.equal(old) for pictures, old in zip(evaluation.effects, before, strict=True)):
        yield "it changed the pictures, which other metrics and the report read"


def _evaluation() -> Evaluation:
    """Three effects of four pictures each, with truths and teachers."""
    import torch

    from clora.contracts.evaluation import EffectPictures, Evaluation

    draw = torch.Generator().manual_seed(0)
    source = torch.rand(4, 3, 16, 16, generator=draw) * 2 - 1
    truths = {"clay": -source, "ink": source.flip(-1), "wool": 0.5 * source}
    names = ("a", "b", "c", "d")
    effects = [
        EffectPictures(effect, names, source, 0.9 * truth, 0.95 * truth, truths) for effect, truth in truths.items()
    ]
    return Evaluation(effects, None)


def _kernel(kernel: Any) -> Iterator[str]:
    """x W^T + b + scale (x A^T) B^T by segments, against float64, with gradients of x, A and B."""
    import torch

    draw = torch.Generator().manual_seed(0)
    x, weight, bias, a, b = (torch.randn(*shape, generator=draw) for shape in ((5, 3, 8), (6, 8), (6,), (2, 8), (6, 2)))
    trained = [tensor.requires_grad_() for tensor in (x, a, b)]
    with Owners().calling("kernels"):
        y = kernel(x, weight, bias, [(2, None, None, 1.0), (3, a, b, 0.5)])
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, a, b)]
    low = torch.cat([torch.zeros(2, 3, 6, dtype=torch.float64), 0.5 * (wide[0][2:] @ wide[1].T) @ wide[2].T])
    expected = wide[0] @ weight.double().T + bias.double() + low
    if not isinstance(y, torch.Tensor) or y.shape != expected.shape:
        yield f"expected {list(expected.shape)}, got {list(getattr(y, 'shape', ()))}"
        return
    if not torch.allclose(y.double(), expected, rtol=1e-4, atol=1e-4):
        yield "its result is not x W^T + b + scale (x A^T) B^T"
    ours = torch.autograd.grad(y.square().sum(), trained, allow_unused=True)
    theirs = torch.autograd.grad(expected.square().sum(), wide)
    for name, mine, right in zip(("x", "A", "B"), ours, theirs, strict=True):
        if mine is None or not torch.allclose(mine.double(), right, rtol=1e-3, atol=1e-3):
            yield f"its gradient of {name} is not that of the equation"
