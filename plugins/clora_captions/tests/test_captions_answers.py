"""Answers of models: tidied where that is safe, refused with a reason where they are no captions."""

from __future__ import annotations

import pytest
from clora_captions.answers import MAX_CHARACTERS, tidied, wrong_with


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("  redraw it\n\nin ink \t", "redraw it in ink"),
        ('"redraw it in ink."', "redraw it in ink."),
        ("“redraw it in ink”", "redraw it in ink"),
        ("<think>a cat\nand a dog</think>\nredraw it in ink", "redraw it in ink"),
        ('"red" and "blue"', '"red" and "blue"'),
        ("\ufeffredraw it\u200b in\x07 ink\ud800", "redraw it in ink"),
        ("", ""),
        ('"', '"'),
    ],
)
def test_an_answer_is_tidied(answer, caption):
    assert tidied(answer) == caption
    assert tidied(caption) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "Redraw the subject, whether a person, a pet or an animal, as a monochrome ink drawing.",
        "Turn the image a bit darker and let the left half of the picture glow",
        "Transform the input image into a scene made of 3 kinds of wool; the picture keeps its framing",
        "make it (very) blue",
        "Create a before dawn mood, and after that add fog",
        "将主体变成水墨画",
        "Make the person look sorry and unable to smile",
    ],
)
def test_a_caption_is_taken(caption):
    assert wrong_with(caption) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "is empty"),
        ("ink it", "is too short"),
        ("wool " * MAX_CHARACTERS, "is too long"),
        ('{"instruction": "redraw it in ink"}', "is JSON or code"),
        ("```\nredraw it in ink\n```", "is JSON or code"),
        ("# Instruction redraw it in ink", "has a heading"),
        ("**Instruction:** redraw it in ink", "has a heading"),
        ("- redraw it - in ink", "has a heading"),
        ("I'm sorry, but I can't help with that.", 'refuses: "I\'m sorry"'),
        ("I cannot see the pictures that you sent", "refuses"),
        ("As an AI language model I have no eyes", "refuses"),
        ("Unfortunately the pictures are blurred beyond use", "refuses"),
        ("In Image 1 a cat becomes an ink drawing", "mentions 'Image 1'"),
        ("Turn image #2 into an ink drawing", "mentions 'image #2'"),
        ("Make it like the second picture, in ink", "mentions 'second picture'"),
        ("As these images show, ink is everywhere", "mentions 'these images'"),
        ("As between Image A and the rest, add ink", "mentions 'Image A'"),
        ("Follow the before and after to add ink", "mentions 'before and after'"),
        ("Sure, redraw the subject in ink", "says 'Sure'"),
        ("Here is the instruction: redraw it in ink", "says 'Here is'"),
        ("New instruction: redraw it in ink", "says 'New instruction:'"),
        ("<think>it seems that the ink", "breaks off in its thoughts"),
        ("i" * 1500, f"is too short: '{'i' * 60}' (1,440 more characters)"),
        ("!" * 1500 + "caption: ink", f"says '{'!' * 60}' (1,448 more characters) before the instruction"),
    ],
)
def test_nonsense_is_refused_with_its_reason(answer, said):
    found = wrong_with(tidied(answer))
    assert found is not None
    assert found.startswith(said), found


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("<think>a</think>make it<THINK>b <think>c</Think> of wool", "make it of wool"),
        ("a </think> b", "a </think> b"),
        ("make it of wool <think>", "make it of wool <think>"),
        ("<think>" * 200_000 + "x" + "</think>" * 2 + " make it of wool", "</think> make it of wool"),
    ],
)
def test_thoughts_are_left_out_in_one_pass(answer, caption):
    assert tidied(answer) == caption


def test_thoughts_that_never_end_cost_one_pass():
    assert len(tidied("<think>" * 300_000)) == 2_100_000  # a search for each would take an hour
