"""Generators in lockstep: what is packed into which call, and who gets which answer."""

from __future__ import annotations

import pytest
import torch

from clora.contracts.step import Await, Forward, Simulated
from clora.contracts.values import Conditions
from clora.errors import CloraError
from clora.plugin_system.guard import ComponentError, Owners
from clora.testing import drive
from clora.training.forward_scheduler import Guard, run_together


def forward(number: float, grad: bool = False) -> Forward:
    """A forward that can be told by its one number."""
    x = torch.full((1, 1, 1, 1), float(number))
    return Forward("student", ("student",), x, torch.ones(1), Conditions(x[0], x[0] > 0, x), grad)


def number(forward: Forward) -> float:
    return forward.x_sigma.item()


class Recorder:
    """Answers a forward with ten times its number and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []

    def __call__(self, forwards):
        self.calls.append([number(forward) for forward in forwards])
        return [10 * forward.x_sigma for forward in forwards]


def outcome(value: float) -> Simulated:
    x = torch.full((1, 1, 1, 1), value)
    return Simulated((0,), x, torch.ones(1), x)


def asks(*questions):
    """A generator that asks these questions one after the other and returns all answers as numbers."""
    answers = []
    for question in questions:
        answer = yield question
        answers.append(answer.x0.item() if isinstance(question, Await) else [v.item() for v in answer])
    return answers


def simulates(value: float, *questions):
    yield from asks(*questions)
    return outcome(value)


def test_forwards_of_several_generators_go_into_one_call():
    record = Recorder()
    _, results = run_together({}, {"a": asks((forward(1), forward(2))), "b": asks((forward(3),))}, record)
    assert record.calls == [[1, 2, 3]]
    assert results == {"a": [[10, 20]], "b": [[30]]}


def test_what_needs_no_gradient_goes_first_so_that_the_rest_can_meet():
    """Three generators reach their forward with gradient after 0, 1 and 3 others; it is one call for all."""
    record = Recorder()
    losses = {
        "short": asks((forward(1, grad=True),)),
        "middle": asks((forward(2),), (forward(3, grad=True),)),
        "long": asks((forward(4),), (forward(5),), (forward(6),), (forward(7, grad=True),)),
    }
    _, results = run_together({}, losses, record)
    assert record.calls == [[2, 4], [5], [6], [1, 3, 7]]
    assert results["long"] == [[40], [50], [60], [70]]


def test_a_question_with_any_gradient_waits_as_a_whole():
    record = Recorder()
    run_together({}, {"mixed": asks((forward(1), forward(2, grad=True))), "plain": asks((forward(3),))}, record)
    assert record.calls == [[3], [1, 2]]


def test_an_awaited_simulation_is_delivered_when_it_is_there():
    record = Recorder()
    simulations = {"backward": simulates(0.5, (forward(1),), (forward(2, grad=True),))}
    losses = {
        "dmd": asks(Await("backward"), (forward(3),)),
        "anchor": asks((forward(4, grad=True),)),
    }
    outcomes, results = run_together(simulations, losses, record)
    assert record.calls == [[1], [2, 4], [3]]
    assert results == {"dmd": [0.5, [30]], "anchor": [[40]]}
    assert outcomes["backward"].x0.item() == 0.5


def test_the_scores_of_all_dmd_terms_share_a_call():
    record = Recorder()
    simulations = {"one": simulates(1.0, (forward(1, grad=True),)), "two": simulates(2.0, (forward(2, grad=True),))}
    losses = {
        "a": asks(Await("one"), (forward(3), forward(4))),
        "b": asks(Await("two"), (forward(5), forward(6))),
    }
    _, results = run_together(simulations, losses, record)
    assert record.calls == [[1, 2], [3, 4, 5, 6]]
    assert results == {"a": [1.0, [30, 40]], "b": [2.0, [50, 60]]}


def test_one_simulation_may_serve_several_losses():
    simulations = {"backward": simulates(0.5, (forward(1),))}
    losses = {"a": asks(Await("backward")), "b": asks(Await("backward"), Await("backward"))}
    assert run_together(simulations, losses, Recorder())[1] == {"a": [0.5], "b": [0.5, 0.5]}


def test_what_is_ready_is_not_simulated():
    record = Recorder()
    outcomes, results = run_together({}, {"a": asks(Await("backward"))}, record, {"backward": outcome(7.0)})
    assert record.calls == []
    assert results == {"a": [7.0]}
    assert outcomes["backward"].x0.item() == 7.0


def test_a_simulation_that_asks_nothing_is_delivered_too():
    assert run_together({"s": simulates(3.0)}, {"a": asks(Await("s"))}, Recorder())[1] == {"a": [3.0]}


def test_a_loss_that_asks_nothing_returns_its_result():
    assert run_together({}, {"a": asks(), "b": asks((forward(1),))}, Recorder())[1] == {"a": [], "b": [[10]]}


def test_one_forward_is_answered_by_its_velocity_and_a_dict_by_a_dict():
    def single():
        velocity = yield forward(1)
        both = yield {"a": forward(2), "b": forward(3)}
        return [velocity.item(), {name: v.item() for name, v in both.items()}]

    record = Recorder()
    assert run_together({}, {"one": single()}, record)[1] == {"one": [10, {"a": 20, "b": 30}]}
    assert record.calls == [[1], [2, 3]]
    assert drive(single(), lambda f: 10 * f.x_sigma) == [10, {"a": 20, "b": 30}]


def test_awaiting_a_simulation_that_nobody_gives_is_an_error():
    losses = {"dmd": asks((forward(1),), Await("bakward"))}
    with pytest.raises(ComponentError, match=r"^losses.dmd: awaits the simulation 'bakward', which never comes$"):
        run_together({"backward": simulates(1.0, (forward(2),))}, losses, Recorder())


def test_what_a_component_raises_is_told_by_its_place_owner_and_line():
    def broken():
        yield (forward(1),)
        raise ZeroDivisionError("no rows")

    guard = Guard(Owners({"critic.losses.a": "opd of clora-opd 0.2.0, r.yaml:9:3"}), section="critic.losses")
    sentence = (
        r"^critic\.losses\.a \(opd of clora-opd 0\.2\.0, r\.yaml:9:3\): ZeroDivisionError: no rows "
        r"at test_forward_scheduler\.py:\d+$"
    )
    with pytest.raises(ComponentError, match=sentence) as told:
        run_together({}, {"a": broken()}, Recorder(), guard=guard)
    assert isinstance(told.value.__cause__, ZeroDivisionError)


def test_an_error_that_is_meant_for_a_person_passes_as_it_is():
    def broken():
        yield (forward(1),)
        raise CloraError("the file has gone")

    with pytest.raises(CloraError, match=r"^the file has gone$"):
        run_together({}, {"a": broken()}, Recorder())


def test_one_that_never_ends_is_stopped_by_its_name():
    def endless():
        while True:
            yield ()

    with pytest.raises(ComponentError, match=r"^losses.a: yielded 25,000 times in one step; it never comes to an end$"):
        run_together({}, {"a": endless()}, Recorder())
