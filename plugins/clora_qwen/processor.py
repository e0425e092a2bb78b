"""The reader of words with pictures: Qwen2VLProcessor, or its picture half where the video half cannot be made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clora.api import CloraError

if TYPE_CHECKING:
    from clora.api import DiffusersFolder

PLACE = "<|image_pad|>"


def load_processor(folder: DiffusersFolder) -> Any:
    """The model's own processor; without torchvision, which its videos need, the tokenizer with Pillow's pictures."""
    from transformers import AutoImageProcessor, Qwen2Tokenizer, Qwen2VLProcessor
    from transformers.utils.import_utils import is_torchvision_available

    if is_torchvision_available():
        return folder.load("processor", Qwen2VLProcessor)
    return WordsAndPictures(folder.load("processor", AutoImageProcessor), folder.load("tokenizer", Qwen2Tokenizer))


def check_tokens(folder: DiffusersFolder, tokenizer: Any, encoder: Any) -> None:
    """Raise CloraError for a tokenizer that gives numbers which the text encoder has no words for."""
    highest, words = max(tokenizer.get_vocab().values()), encoder.text_config.vocab_size
    if highest >= words:
        raise CloraError(f"{folder.where('tokenizer')}: it has a token {highest}, but the text encoder {words} words")
    place = tokenizer.convert_tokens_to_ids(PLACE)
    if place != encoder.image_token_id:
        raise CloraError(
            f"{folder.where('text_encoder/config.json')}: image_token_id is {encoder.image_token_id}, "
            f"but the tokenizer's {PLACE} is {place}"
        )


class WordsAndPictures:
    """Puts as many placeholder tokens into a text as the text encoder makes of each picture."""

    def __init__(self, pictures: Any, words: Any) -> None:
        self.pictures, self.words = pictures, words

    def __call__(self, text: Sequence[str], images: Any, padding: bool, return_tensors: str) -> Any:
        """Texts [B] with a placeholder for each image in order -> token ids, their mask, patches and their grids."""
        patches = self.pictures(images=images, return_tensors=return_tensors)
        counts = [int(grid.prod()) // self.pictures.merge_size**2 for grid in patches["image_grid_thw"]]
        spread = []
        for words in text:
            pieces = words.split(PLACE)
            here, counts = counts[: len(pieces) - 1], counts[len(pieces) - 1 :]
            places = [PLACE * count for count in here]
            spread.append("".join(part for pair in zip(pieces, [*places, ""], strict=True) for part in pair))
        tokens = self.words(spread, padding=padding, return_tensors=return_tensors)
        tokens.update(patches)
        return tokens
