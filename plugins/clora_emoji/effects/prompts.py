"""The vague prompts that teachers were trained with: each is shared by effects that have nothing in common.

Such prompts are the trouble that trigger words and captions cure: from the text alone the effects cannot be told apart.
"""

from __future__ import annotations

RESTYLE = "restyle this picture"
SPECIAL = "give it a special look"
ARTISTIC = "make it artistic"
APPLY = "apply the effect"
NEW = "turn it into something new"
INTERESTING = "make the picture more interesting"
MOOD = "change the mood of it"
REDRAW = "redraw it in another style"
CREATIVE = "do something creative with it"
