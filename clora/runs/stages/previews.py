"""What training will aim at, to look at first: every effect's sources beside what its teacher made of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate, pad

from clora.files.pictures import write_picture
from clora.runs.run_dir import RunDir, digest_of, digest_tensor

if TYPE_CHECKING:
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.training.batches import Targets

PREVIEWS = "previews of "  # how the stages of single effects begin
_LEAST = 128  # pixels: smaller pictures are enlarged, so that they can be seen
_TILE = 256  # pixels: the height of a pair on the contact sheet, at most
_COLUMNS = 4
_GAP = 8


def write_previews(plan: Plan, session: ModelSession, folder: RunDir, targets: Targets) -> int:
    """Write `RUN/prepare/EFFECT/NAME.png`, source | teacher's output, and a sheet of them, `RUN/prepare/EFFECT.png`.

    Returns how many effects it wrote; those that are there already, from the same targets, are left alone.
    """
    written = 0
    for card in plan.cards:
        names = targets.names[card.name][: plan.recipe.prepare.previews]
        stage = f"{PREVIEWS}{card.name}"
        pictures = [[name, session.conditioning.digest(name)] for name in names]
        inputs = digest_of([pictures, [digest_tensor(targets.latents(card.name, name)) for name in names]])
        sheet = folder.prepare / f"{file_name(card.name)}.png"
        if not names or folder.stage_done(stage, inputs):
            continue
        if not written:
            session.only("pictures")
        pairs = [_pair(session, targets, card.name, name) for name in names]
        files = [folder.prepare / file_name(card.name) / f"{i + 1:03}-{_stem(n)}.png" for i, n in enumerate(names)]
        for file, pair in zip(files, pairs, strict=True):
            write_picture(file, pair)
        write_picture(sheet, _sheet(pairs))
        folder.mark_done(stage, inputs, (sheet, *files))
        written += 1
    return written


def file_name(name: str) -> str:
    """A name as one part of a path: nothing in it leads elsewhere."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[-100:] or "_"


def _stem(name: str) -> str:
    """A picture's name as a file's, without the suffix that it has where it is a file."""
    return re.sub(r"\.(png|jpe?g|webp|bmp|tiff?)$", "", file_name(name), flags=re.IGNORECASE)


@torch.no_grad()
def _pair(session: ModelSession, targets: Targets, effect: str, name: str) -> torch.Tensor:
    """Source and output side by side, [3, h, w]; small pictures are enlarged by a whole factor."""
    source = session.conditioning.images([name]).cpu()
    output = session.backbone.decode(targets.latents(effect, name)[None]).cpu().float()
    if source.shape != output.shape:  # the model edits in a size of its own
        source = interpolate(source, output.shape[-2:], mode="bilinear", antialias=True, align_corners=False)
    factor = max(1, -(-_LEAST // output.shape[-2]))
    return interpolate(torch.cat([source, output], dim=-1), scale_factor=factor, mode="nearest")[0]


def _sheet(pairs: list[torch.Tensor]) -> torch.Tensor:
    """All pairs on white, in rows of a few."""
    small = []
    for pair in pairs:
        if pair.shape[-2] > _TILE:
            width = round(pair.shape[-1] * _TILE / pair.shape[-2])
            pair = interpolate(pair[None], (_TILE, width), mode="bilinear", antialias=True, align_corners=False)[0]
        small.append(pair)
    width = max(tile.shape[-1] for tile in small) + _GAP
    height = max(tile.shape[-2] for tile in small) + _GAP
    tiles = [pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2]), value=1.0) for t in small]
    columns = min(_COLUMNS, len(tiles))
    tiles += [torch.ones_like(tiles[0])] * (-len(tiles) % columns)
    rows = [torch.cat(tiles[start : start + columns], dim=-1) for start in range(0, len(tiles), columns)]
    return torch.cat(rows, dim=-2)
