"""Which critic judges what: one for all simulations, and one more for each under `critic.own`.

A shared critic models the mixture of what it is trained on. A fake score that TS-DMD can use is of p(y_hat), one for
BS-DMD of p(x_g): where each has a critic of its own, neither is pulled towards the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from clora.contracts.method import UsesCritic, UsesSimulation
from clora.errors import hint, quoted

if TYPE_CHECKING:
    from clora.config.schema import Critic, Recipe

#: mistakes that are told of one list
MOST_TOLD = 10
#: the adapter of the critic that simulations share
SHARED = "critic"


def own_critic(simulation: str) -> str:
    """The adapter of a simulation's own critic; no effect's name has a slash."""
    return f"{SHARED}/{simulation}"


def own_critics(critic: Critic | None) -> tuple[str, ...]:
    """The adapters beside the shared one, each once."""
    return () if critic is None else tuple(own_critic(name) for name in dict.fromkeys(critic.own))


def critic_of(critic: Critic | None, loss: Any) -> str:
    """The adapter that a loss asks for in the role of the critic, or trains: its simulation's."""
    if critic is not None and isinstance(loss, UsesSimulation) and loss.simulation in critic.own:
        return own_critic(loss.simulation)
    return SHARED


def critic_problems(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """(place, sentence) of critics that nothing would train."""
    critic = recipe.critic
    if critic is None or not critic.own:
        return
    trained = {critic_of(critic, loss) for loss in critic.losses.values()}
    for name in islice(dict.fromkeys(critic.own), MOST_TOLD):
        if name not in recipe.simulations:
            yield "critic.own", f"there is no simulation {quoted(name)}{hint(name, recipe.simulations)}"
        elif critic.losses and own_critic(name) not in trained:
            yield (
                "critic.own",
                f"no loss under critic.losses trains the critic of {quoted(name)}; add one with `simulation: {name}`",
            )
    if critic.losses and SHARED not in trained:
        yield "critic.own", "no loss is left for the critic that the others share; leave one simulation out of it"


def critic_notes(recipe: Recipe) -> Iterable[str]:
    """What is allowed and probably not meant: a critic that costs its updates and is never asked."""
    critic = recipe.critic
    asking = [loss for loss in recipe.losses.values() if isinstance(loss, UsesCritic) and loss.needs_critic()]
    asked = {critic_of(critic, loss) for loss in asking}
    for name in dict.fromkeys(critic.own if critic else ()):
        if own_critic(name) not in asked:
            yield f"critic.own: no loss asks the critic of {name}, which is trained all the same"
