"""What each noise level hides of a picture of 64 tokens and of one of 4,096, at shift 3 and at shift 1, as one picture.

    python benchmarks/noise_levels.py [--subject smiling-face-with-heart-eyes] [--edit flip] [--steps 8] [--seed 0]
        [--out docs/noise_levels.png]

At each level of both schedules: the edited picture of 32 x 32 noised; the same at 1024 x 1024 noised pixel by pixel, as
one sees it from afar; the best linear guess from the small noised one alone (a Gaussian fitted to the training
subjects); what the committed base predicts from it in one forward, with source and instruction. The numbers are root
mean squares against the edited picture, whose values lie in [-1, 1].
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from attrs import frozen
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import avg_pool2d, interpolate

from clora.api import Conditions, Schedule, add_noise, to_x0

ROOT = Path(__file__).parents[1]
CELL, GAP, LEFT, HEAD, LINE = 112, 8, 178, 34, 20
LARGE = 1024
INK, QUIET = (34, 34, 34), (110, 115, 122)


@frozen
class Cell:
    """A picture [3, H, W] in [-1, 1] and its distance to the one without noise."""

    picture: torch.Tensor
    error: float | None


@frozen
class LinearGuess:
    """E[x0 | x_sigma] of a Gaussian with the mean and the covariance of some pictures [N, 3, 32, 32]."""

    mean: torch.Tensor  # [3072]
    directions: torch.Tensor  # [K, 3072], orthonormal
    variances: torch.Tensor  # [K]

    @classmethod
    def fitted(cls, pictures: torch.Tensor) -> LinearGuess:
        """The Gaussian of the pictures, in float64."""
        flat = pictures.flatten(1).double()
        mean = flat.mean(0)
        _, scales, directions = torch.linalg.svd(flat - mean, full_matrices=False)
        return cls(mean, directions, scales.square() / (len(flat) - 1))

    def __call__(self, x_sigma: torch.Tensor, sigma: float) -> torch.Tensor:
        """m + (1 - s) C ((1 - s)^2 C + s^2 I)^-1 (x_s - (1 - s) m), [3, 32, 32]."""
        kept = 1 - sigma
        along = self.directions @ (x_sigma.flatten().double() - kept * self.mean)
        gain = kept * self.variances / (kept**2 * self.variances + sigma**2)
        return (self.mean + self.directions.T @ (gain * along)).reshape(x_sigma.shape).float()


def error(made: torch.Tensor, truth: torch.Tensor) -> float:
    """The root of the mean square difference."""
    return float((made - truth).square().mean().sqrt())


def rows_of(schedule: Schedule, subject: str, edit: str, seed: int) -> Mapping[str, list[Cell]]:
    """The rows of one schedule by name; the noise is the same at every level."""
    from clora_emoji import atlas
    from clora_emoji.backbone import EmojiBackbone
    from clora_emoji.general import GENERAL

    source = atlas.picture("noto", [subject])
    instruction = GENERAL[edit].phrasings[0]
    truth = GENERAL[edit].apply(source[0])
    guess = LinearGuess.fitted(
        torch.stack([GENERAL[edit].apply(x) for x in atlas.picture("noto", atlas.select("train"))])
    )
    base = EmojiBackbone().load(torch.device("cpu"))
    words, latents = base.encode_prompts([instruction], source), base.encode_images(source)
    conditions = Conditions(words.text, words.mask, latents)
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(source.shape, generator=random)
    large = interpolate(truth[None], (LARGE, LARGE), mode="bicubic").clamp(-1, 1)
    fine = torch.randn(large.shape, generator=random)
    names = ("64 tokens, noised", "4,096 tokens, noised", "64, best linear guess", f'base: "{instruction}"')
    rows: dict[str, list[Cell]] = {name: [] for name in names}
    for level in schedule.sigmas:
        sigma = torch.tensor([level])
        noised = add_noise(truth[None], noise, sigma)
        with torch.no_grad():
            velocity = base.velocity(base.encode_images(noised), sigma, conditions)
        predicted = base.decode(to_x0(base.encode_images(noised), velocity, sigma))[0]
        linear = guess(noised[0], level)
        seen = avg_pool2d(add_noise(large, fine, sigma), LARGE // 128)[0]
        made = (Cell(linear, error(linear, truth)), Cell(predicted, error(predicted, truth)))
        for name, cell in zip(names, (Cell(noised[0], None), Cell(seen, None), *made), strict=True):
            rows[name].append(cell)
    return rows


def to_image(picture: torch.Tensor) -> Image.Image:
    """[3, H, W] in [-1, 1] as a square of CELL pixels: small ones by their own squares, large ones averaged."""
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    how = Image.Resampling.NEAREST if picture.shape[-1] <= CELL else Image.Resampling.BOX
    return Image.fromarray(pixels).resize((CELL, CELL), how)


def drawn(parts: Sequence[tuple[Schedule, Mapping[str, list[Cell]]]]) -> Image.Image:
    """All rows of all schedules below one another, with levels above and distances below the cells."""
    columns = max(len(schedule) for schedule, _ in parts)
    heights = [HEAD + sum(CELL + _below(cells) for cells in rows.values()) + 2 * GAP for _, rows in parts]
    sheet = Image.new("RGB", (LEFT + columns * (CELL + GAP), sum(heights)), "white")
    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = 0
    for (schedule, rows), height in zip(parts, heights, strict=True):
        draw.text((GAP, top + 10), f"shift {schedule.shift:g}", INK, ImageFont.load_default(18))
        for i, level in enumerate(schedule.sigmas):
            draw.text((LEFT + i * (CELL + GAP) + CELL / 2, top + 20), f"{1000 * level:.0f}", INK, small, anchor="mm")
        y = top + HEAD
        for name, cells in rows.items():
            draw.text((GAP, y + CELL / 2), name, INK, small, anchor="lm")
            for i, cell in enumerate(cells):
                x = LEFT + i * (CELL + GAP)
                sheet.paste(to_image(cell.picture), (x, y))
                if cell.error is not None:
                    draw.text((x + CELL / 2, y + CELL + 9), f"{cell.error:.2f}", QUIET, small, anchor="mm")
            y += CELL + _below(cells)
        top += height
    return sheet


def _below(cells: Sequence[Cell]) -> int:
    """The space under a row: room for its numbers, where it has some."""
    return GAP if all(cell.error is None for cell in cells) else LINE


def main() -> None:
    """Draw the sheet, write it and print the distances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", default="smiling-face-with-heart-eyes")
    parser.add_argument("--edit", default="flip")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/noise_levels.png")
    args = parser.parse_args()
    schedules = [Schedule.shifted(args.steps, shift) for shift in (3.0, 1.0)]
    parts = [(schedule, rows_of(schedule, args.subject, args.edit, args.seed)) for schedule in schedules]
    for schedule, rows in parts:
        print(f"shift {schedule.shift:g}: " + " ".join(f"{1000 * level:.0f}" for level in schedule.sigmas))
        for name, cells in rows.items():
            told = [f"{cell.error:.3f}" for cell in cells if cell.error is not None]
            print(f"  {name}: {' '.join(told)}" if told else f"  {name}")
    drawn(parts).quantize(256, dither=Image.Dither.NONE).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
