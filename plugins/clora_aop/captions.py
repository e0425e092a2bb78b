"""The request that has a vision-language model write an effect's caption."""

from __future__ import annotations


def caption_request(teacher_prompt: str, pair_count: int) -> str:
    """What to ask a vision-language model, beside `pair_count` before/after pairs, for an effect's caption.

    The five demands are the paper's (CollectionLoRA, AOP), the wording is ours; the paper shows two pairs. Raises
    ValueError for fewer than one pair or an empty prompt.
    """
    if pair_count < 1:
        raise ValueError(f"a caption needs at least one before/after pair, not {pair_count}")
    if not teacher_prompt.strip():
        raise ValueError("a caption needs the teacher's prompt to start from, and it is empty")
    pairs = "one pair" if pair_count == 1 else f"{pair_count} pairs"
    return (
        f"You see {pairs} of pictures. In each, the first picture went into an image editor and the second came out; "
        "the editor applied the same visual effect every time, on this instruction:\n\n"
        f"{teacher_prompt.strip()}\n\n"
        "Write a better instruction for the same effect.\n"
        "1. Say in detail what the effect changes: materials, colours, light, line, shapes, background. "
        "Anyone reading it should be able to picture the result without seeing it.\n"
        "2. Speak of the subject only in a general way (a person, a pet, an animal), never of what is special to "
        "these pictures, for the effect has to work on others.\n"
        "3. Mention a new viewpoint, framing or pose only where every pair shows it.\n"
        "4. Start from the instruction above: keep what it asks for and make it more exact; add nothing that the "
        "pictures do not show.\n"
        "5. Answer with the new instruction alone: no heading, no quotation marks, no remark."
    )
