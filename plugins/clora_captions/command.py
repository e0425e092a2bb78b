"""`clora caption RECIPE`: have the recipe's captioner describe every effect that has no caption yet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clora.api import (
    CloraError,
    CountsTokens,
    KeepsCaptions,
    Progress,
    RequestsCaptions,
    add_recipe_arguments,
    cards_of,
    during,
    recipe_error,
    recipe_of,
    shown,
)
from clora_captions.asking import Captioning

if TYPE_CHECKING:
    from clora.api import Captioner, EffectCard, LoadedRecipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--again",
        action="append",
        default=[],
        metavar="EFFECT",
        help="ask about this effect again, even where its caption was edited",
    )


def run(args: argparse.Namespace) -> int:
    """Ask, and write every answer down as it comes; a stop keeps those that are there."""
    captioning, cards = _prepared(recipe_of(args))
    progress = Progress()
    sorted_ = captioning.sort(cards, args.again)
    for effect, why in sorted_.kept:
        progress.say(f"{effect}: kept, {why}")
    for effect, why in sorted_.failed:
        progress.say(f"{effect}: {why}")
    if sorted_.wanted and (missing := list(captioning.captioner.ready())):
        raise CloraError("\n".join(f"captioner: {sentence}" for sentence in missing))
    with during("", f"what was written to {shown(captioning.file)} stays"):
        outcome = captioning.ask(sorted_.wanted, progress.say, _show)
    print(f"{len(outcome.made)} written to {shown(captioning.file)}, {len(sorted_.kept)} kept", flush=True)
    _tell_cost(captioning, progress)
    if failed := [*sorted_.failed, *outcome.failed]:
        reasons = dict.fromkeys(why for _, why in failed)
        lines = [f"{', '.join(effect for effect, w in failed if w == why)}: {why}" for why in reasons]
        raise CloraError("\n".join([f"{len(failed)} of {len(cards)} effects got no caption:", *lines]))
    return 0


def _show(effect: str, caption: str) -> None:
    print(f"{effect}: {caption}", flush=True)


def _tell_cost(captioning: Captioning, progress: Progress) -> None:
    if isinstance(captioning.captioner, CountsTokens):
        used = captioning.captioner.tokens_used()
        if used.asked or used.answered:
            progress.say(f"{used.asked:,} tokens asked, {used.answered:,} answered by {captioning.captioner.name()}")


def _prepared(loaded: LoadedRecipe) -> tuple[Captioning, Sequence[EffectCard]]:
    """The parts of the recipe that captions need, checked. Raises RecipeError with every mistake in them."""
    recipe = loaded.recipe
    captioner: Captioner | None = recipe.captioner
    findings: list[tuple[str, str]] = []
    file = recipe.teachers.captions if isinstance(recipe.teachers, KeepsCaptions) else None
    if file is None:
        findings.append(("teachers", "say where captions are to lie, such as `captions: captions.yaml`"))
    if captioner is None:
        findings.append(("", "section 'captioner' is missing; write `captioner: {use: NAME}` (`clora plugins`)"))
    if not isinstance(recipe.prompts, RequestsCaptions):
        findings.append(("prompts", "this prompt strategy reads no captions"))
    cards, problems = cards_of(loaded, ("teachers", "dataset", "prompts", "captioner"))
    findings += problems
    if findings or file is None or captioner is None or not isinstance(recipe.prompts, RequestsCaptions):
        raise recipe_error(loaded, findings)
    return Captioning(recipe.prompts, recipe.dataset, captioner, file), cards
