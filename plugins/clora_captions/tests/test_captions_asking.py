"""Who is asked, with which pictures, and what becomes of the answers; a captioner that answers from a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from attrs import evolve, field, frozen
from clora_captions.asking import Captioning, chosen

from clora.api import read_captions
from clora.contracts.values import EffectCard
from clora.errors import CloraError

Answer = Callable[[str, Sequence[tuple[Path, Path]]], str]


@frozen
class Prompts:
    """A prompt strategy as far as captions need it."""

    on: bool = True

    def caption_request(self, card: EffectCard, pairs: int) -> str | None:
        return f"describe {card.teacher_prompt} by {pairs}" if self.on else None


@frozen
class Model:
    answer: Answer
    asked: list[tuple[str, tuple[str, ...]]] = field(factory=list)
    called: str = "model-1"

    def name(self) -> str:
        return self.called

    def caption(self, request: str, pairs: Sequence[tuple[Path, Path]]) -> str:
        self.asked.append((request, tuple(picture.name for pair in pairs for picture in pair)))
        return self.answer(request, pairs)


class Nothing:
    """A dataset without pairs."""


class Paired:
    def __init__(self, pairs) -> None:
        self.found = pairs

    def pairs(self, effect: str):
        if effect not in self.found:
            raise ValueError(f"no effect {effect}")
        return self.found[effect]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for effect in ("ink", "wool", "glass", "fog", "snow"):
        for i in range(4):
            (tmp_path / f"{effect}{i}.png").write_bytes(f"{effect} {i}".encode())
    return tmp_path


def card(folder: Path, name: str, caption: str = "", count: int = 1, prompt: str = "do it") -> EffectCard:
    pairs = tuple((folder / f"{name}{2 * i}.png", folder / f"{name}{2 * i + 1}.png") for i in range(count))
    return EffectCard(name, folder / "x.safetensors", prompt, caption, pairs=pairs)


def good(request: str, pairs) -> str:
    return f"a caption for {pairs[0][0].stem}"


def captioning(folder: Path, answer: Answer = good, dataset=None) -> Captioning:
    return Captioning(Prompts(), dataset or Nothing(), Model(answer), folder / "captions.yaml")  # pyright: ignore[reportArgumentType]


def asked(made: Captioning, cards: Sequence[EffectCard], again: Sequence[str] = ()):
    """Sort and ask; the outcome and what was told on the way."""
    merged = [evolve(c, caption=c.caption or _captions(made).get(c.name, "")) for c in cards]
    sorted_ = made.sort(merged, again)
    told: list[str] = []
    outcome = made.ask(sorted_.wanted, told.append, lambda effect, caption: told.append(f"{effect} = {caption}"))
    return sorted_, outcome, told


def _captions(made: Captioning) -> dict[str, str]:
    return {name: entry.caption for name, entry in read_captions(made.file).items()}


def test_each_effect_is_asked_about_once_until_something_changes(folder):
    made = captioning(folder)
    cards = [card(folder, "ink", count=2), card(folder, "wool")]
    _, outcome, told = asked(made, cards)
    assert outcome.made == ("ink", "wool")
    assert [request for request, _ in made.captioner.asked] == ["describe do it by 2", "describe do it by 1"]
    assert told[0] == "caption 1/2: ink, 2 pairs"
    assert "wool = a caption for wool0" in told
    entry = read_captions(made.file)["wool"]
    assert (entry.caption, entry.by, entry.edited) == ("a caption for wool0", "model-1", False)

    sorted_, outcome, _ = asked(made, cards)
    assert (outcome.made, dict(sorted_.kept)) == ((), {"ink": "nothing has changed", "wool": "nothing has changed"})
    (folder / "wool1.png").write_bytes(b"another picture")
    assert asked(made, cards)[1].made == ("wool",)
    cards[0] = evolve(cards[0], teacher_prompt="do it well")
    assert asked(made, cards)[1].made == ("ink",)
    other = evolve(made, captioner=Model(good, called="model-2"))
    assert asked(other, cards)[1].made == ("ink", "wool")
    assert asked(other, cards, ["ink"])[1].made == ("ink",)


def test_what_a_person_wrote_stays_unless_it_is_asked_for_again(folder):
    made = captioning(folder)
    cards = [card(folder, "ink"), card(folder, "wool"), card(folder, "glass", caption="in the manifest")]
    asked(made, cards)
    made.file.write_text(made.file.read_text().replace("for ink0", "by hand"))
    changed = [evolve(c, teacher_prompt="do it well") for c in cards]
    sorted_, outcome, _ = asked(made, changed)
    assert outcome.made == ("wool",)
    kept = dict(sorted_.kept)
    assert kept["ink"] == "a person wrote it; what it describes has changed, `--again ink`"
    assert kept["glass"] == "its caption stands in the bank's manifest"
    assert read_captions(made.file)["ink"].caption == "a caption by hand"
    assert asked(made, changed, ["ink"])[1].made == ("ink",)
    assert read_captions(made.file)["ink"].caption == "a caption for ink0"
    with pytest.raises(CloraError, match="captions of glass stand in the bank's manifest; remove them"):
        made.sort(changed, ["glass"])
    with pytest.raises(CloraError, match="no effect 'inc'; did you mean 'ink'"):
        made.sort(changed, ["inc"])


def test_a_manifests_caption_wins_over_the_files_and_is_not_asked_about(folder):
    made = captioning(folder)
    made.file.write_text("ink: the file's own\n")
    sorted_ = made.sort([card(folder, "ink", caption="the manifest's")])
    assert sorted_.kept == (("ink", "its caption stands in the bank's manifest"),)


def test_pairs_come_from_the_card_and_else_from_the_dataset(folder):
    from_dataset = [(folder / "snow0.png", folder / "snow1.png")]
    made = captioning(folder, dataset=Paired({"wool": from_dataset, "ink": from_dataset, "fog": []}))
    sorted_, _, _ = asked(made, [card(folder, "ink"), card(folder, "wool", count=0), card(folder, "fog", count=0)])
    assert [pictures for _, pictures in made.captioner.asked] == [("ink0.png", "ink1.png"), ("snow0.png", "snow1.png")]
    assert [effect for effect, why in sorted_.failed if "no before/after pictures" in why] == ["fog"]
    (failed,) = made.sort([card(folder, "glass", count=0)]).failed
    assert failed == ("glass", "no effect glass")
    assert "no before/after" in captioning(folder).sort([card(folder, "glass", count=0)]).failed[0][1]
    # one that has a caption wants none
    made.file.write_text("glass: by hand and for good\n")
    assert made.sort([card(folder, "glass", "by hand and for good", count=0)]).kept == (("glass", "it has a caption"),)
    gone = evolve(card(folder, "snow"), pairs=((folder / "gone.png", folder / "snow0.png"),))
    assert "gone.png cannot be read: No such file" in made.sort([gone]).failed[0][1]


def test_two_pairs_are_drawn_by_name_whatever_the_folder_and_the_order(folder):
    pairs = [(folder / f"b{i}.png", folder / f"a{i}.png") for i in range(30)]
    first = chosen("ink", pairs)
    assert len(first) == 2
    assert chosen("ink", pairs[::-1]) == first
    moved = [(Path("/elsewhere") / b.name, Path("/elsewhere") / a.name) for b, a in pairs]
    assert [b.name for b, _ in chosen("ink", moved)] == [b.name for b, _ in first]
    drawn = {chosen(f"effect{i}", pairs)[0] for i in range(40)}
    assert len(drawn) > 10


def test_nonsense_is_asked_again_with_the_reason_and_told_in_the_end(folder):
    answers = iter(["", "I'm sorry, I cannot", "drawn in black ink"])
    made = captioning(folder, lambda request, pairs: next(answers))
    _, outcome, told = asked(made, [card(folder, "ink")])
    assert outcome.made == ("ink",)
    requests = [request for request, _ in made.captioner.asked]
    assert requests[0] == "describe do it by 1"
    assert requests[1].startswith("describe do it by 1\n\nAn earlier answer could not be used: it is empty.")
    assert "it refuses" in requests[2]
    assert "ink: an answer is empty" in told

    made = captioning(folder, lambda request, pairs: "{}" if "wool0.png" in pairs[0][0].name else "a fine one")
    _, outcome, _ = asked(made, [card(folder, "wool"), card(folder, "glass")])
    assert outcome.made == ("glass",)
    assert outcome.failed == (
        ("wool", "3 answers of model-1 were no captions; the last is JSON or code, not an instruction"),
    )
    assert len(made.captioner.asked) == 4


def test_effects_that_fail_alike_in_a_row_end_the_asking_and_what_is_done_stays(folder):
    def fails(request, pairs):
        if pairs[0][0].name == "ink0.png":
            return "drawn in black ink"
        raise CloraError("the key is refused")

    made = captioning(folder, fails)
    names = ("wool", "ink", "glass", "fog", "snow")
    _, outcome, told = asked(made, [*(card(folder, n) for n in names), evolve(card(folder, "ink"), name="ink2")])
    assert outcome.made == ("ink",)
    assert dict(outcome.failed)["snow"] == "the key is refused"
    assert dict(outcome.failed)["ink2"] == "not asked, since those before it failed alike"
    assert told.count("glass: the key is refused") == 1
    assert [*read_captions(made.file)] == ["ink"]


def test_ctrl_c_keeps_what_is_done(folder):
    def stops(request, pairs):
        if pairs[0][0].name == "wool0.png":
            raise KeyboardInterrupt
        return "drawn in black ink"

    made = captioning(folder, stops)
    with pytest.raises(KeyboardInterrupt):
        asked(made, [card(folder, "ink"), card(folder, "wool")])
    assert [*read_captions(made.file)] == ["ink"]


def test_what_is_written_while_the_model_thinks_is_kept(folder):
    made = captioning(folder)

    def meanwhile(request, pairs):
        made.file.write_text("wool: written by hand\n" if "wool" in pairs[0][0].name else "ink: written by hand\n")
        return "drawn in black ink"

    made = evolve(made, captioner=Model(meanwhile))
    _, outcome, _ = asked(made, [card(folder, "ink")])
    assert outcome.made == ()
    assert "has another caption for it than when the asking began" in outcome.failed[0][1]
    assert read_captions(made.file)["ink"].caption == "written by hand"


def test_prompts_that_read_no_captions_are_told(folder):
    made = evolve(captioning(folder), prompts=Prompts(on=False))
    with pytest.raises(CloraError, match="captions are turned off"):
        made.sort([card(folder, "ink")])


@pytest.mark.parametrize("steering", ["\0", "\x1b[2J", "\u202e", "\u2028", "\ud800", "\r\n"])
def test_what_steers_a_terminal_is_never_written_to_the_file(folder, steering):
    asked = captioning(folder, lambda request, pairs: f"make it{steering} of wool {steering}")
    asked = evolve(asked, captioner=Model(asked.captioner.answer, called=f"model{steering}{'x' * 500}"))
    sorted_ = asked.sort([card(folder, "ink")])
    assert asked.ask(sorted_.wanted, str, lambda effect, caption: None).made == ("ink",)
    text = (folder / "captions.yaml").read_text()
    entry = read_captions(folder / "captions.yaml")["ink"]
    assert all(line.isprintable() for line in (*text.splitlines(), entry.caption, entry.by))
    assert len(entry.by) <= 100
    assert not entry.edited
