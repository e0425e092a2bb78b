"""Every effect and every general edit does something of its own, always the same, within range."""

from __future__ import annotations

import pytest
import torch
from clora_emoji import atlas, words
from clora_emoji.effects import EFFECTS, prompts, training_subjects
from clora_emoji.general import GENERAL

NAMES = atlas.select("test", atlas.TEST_CATEGORIES)
# A picture whose mean squared error to its own truth is under a quarter of this, 0.0225, is nearer to that truth than
# to any other effect's (triangle inequality on the square roots); plain teachers come out about there.
DISTANCE = 0.09


@pytest.fixture(scope="module")
def source() -> torch.Tensor:
    return atlas.picture("noto", NAMES)


@pytest.mark.parametrize("name", GENERAL)
def test_general_edits_keep_shape_and_range(name, source):
    edit = GENERAL[name]
    made = edit.apply(source)
    assert made.shape == source.shape
    assert made.abs().max() <= 1
    assert torch.equal(made, edit.apply(source))
    assert torch.equal(made[3], edit.apply(source[3]))
    assert torch.equal(made, source) == (name == "identity")


def test_phrasings_belong_to_one_edit_each():
    phrasings = [phrase for edit in GENERAL.values() for phrase in edit.phrasings]
    assert len(phrasings) == len(set(phrasings))
    assert all(len(edit.phrasings) >= 2 for edit in GENERAL.values())


FIXED = [name for name, effect in EFFECTS.items() if effect.draw is None]


@pytest.mark.parametrize("name", FIXED)
def test_effects_keep_shape_and_range(name, source):
    effect = EFFECTS[name]
    before = source.clone()
    made = effect.apply(source, NAMES)
    assert made.shape == source.shape
    assert made.abs().max() <= 1
    assert torch.equal(source, before)
    assert torch.equal(made, effect.apply(source, NAMES))
    torch.testing.assert_close(made[3], effect.apply(source[3], NAMES[3:4]), atol=1e-5, rtol=0)


def test_effects_are_far_from_one_another_and_from_the_source(source):
    made = {"source": source} | {name: EFFECTS[name].apply(source, NAMES) for name in FIXED}
    flat = torch.stack([value.flatten() for value in made.values()])
    distance = torch.cdist(flat, flat).square() / flat.shape[1]
    distance.fill_diagonal_(9)
    names = list(made)
    row, column = divmod(int(distance.argmin()), len(names))
    assert distance.min() > DISTANCE, (names[row], names[column], distance.min().item())


def test_captions_tell_effects_apart_and_prompts_do_not():
    assert len(EFFECTS) >= 50
    captions = [effect.caption for effect in EFFECTS.values()]
    assert len(set(captions)) == len(captions)
    # Ten words at most, so that two captions with their triggers fit one chained instruction of 32 tokens.
    assert all(6 <= len(caption.split()) <= 10 for caption in captions)
    vague = {value for key, value in vars(prompts).items() if key.isupper()}
    assert {effect.teacher_prompt for effect in EFFECTS.values()} == vague
    for prompt in vague:
        assert 3 <= len(prompt.split()) <= 6
        assert sum(effect.teacher_prompt == prompt for effect in EFFECTS.values()) >= 4


def test_two_chained_captions_fit_the_text_encoder():
    longest = max((effect.caption for effect in EFFECTS.values()), key=lambda caption: len(words.tokenise(caption)))
    words.encode([f"apply <a_x>{longest} to the input image, then apply <b_y>{longest}"])


def test_pairs_come_from_the_train_split():
    train = set(atlas.select("train"))
    for name, effect in EFFECTS.items():
        subjects = training_subjects(name)
        assert set(subjects) <= train
        assert len(subjects) == min(effect.pairs, len(train))
    assert len(training_subjects("bird_style")) == len(train)
    assert training_subjects("sepia") != training_subjects("halftone")
