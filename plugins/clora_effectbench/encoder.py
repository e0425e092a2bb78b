"""Pictures to vectors by an image encoder of transformers: CLIP's image features, DINOv2's class token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.api import (
    CloraError,
    DiffusersFolder,
    hub_download,
    hub_reason,
    quoted,
    read_map,
    reason,
    shown,
    weights_problems,
)

if TYPE_CHECKING:
    from pathlib import Path

    import torch

#: what a model of transformers must have beside its weights
_FILES = ("config.json", "preprocessor_config.json")


def encoder_problems(model: str, revision: str | None) -> Iterable[str]:
    """Every problem with a model's folder, or with its small files on the Hub, as one sentence; no weights are loaded.

    Of a Hub id the weights are not looked at; they are had when they are first needed.
    """
    folder = DiffusersFolder(model).folder
    if folder is not None and not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "no folder and no Hub id"
        yield f"model: '{shown(model)}' is {kind}; a Hub id looks like facebook/dinov2-base"
        return
    if folder is not None and revision is not None:
        yield f"revision: {quoted(revision)} is for a Hub id, but `model` is the folder {shown(folder)}"
    for name in _FILES:
        try:
            _check_json(hub_download(model, revision, name) if folder is None else folder / name)
        except CloraError as error:
            yield str(error)
    if folder is not None:
        yield from weights_problems(folder)


def _check_json(path: Path) -> None:
    if not path.exists():
        raise CloraError(f"{shown(path)}: there is no such file, so this is no image encoder of transformers")
    tree = read_map(path)
    if path.name == _FILES[0] and not isinstance(tree.get("model_type"), str):
        raise CloraError(f"{shown(path)}: names no model_type, so this is no model of transformers")


@frozen
class ImageEncoder:
    """An image encoder in memory with its own way of reading pictures."""

    name: str
    model: Any
    processor: Any
    pooler: bool  # whether the layer behind `pooler_output` has weights of its own in the file, or needs none
    batch_size: int

    @classmethod
    def load(cls, name: str, revision: str | None, device: str, batch_size: int) -> ImageEncoder:
        """From safetensors, in float32, running no code that lies beside them; CloraError where it cannot be had."""
        import torch
        from transformers import AutoImageProcessor, AutoModel, __version__

        new = int(__version__.split(".")[0]) >= 5
        folder = DiffusersFolder(name).folder
        where = name if folder is None else str(folder)
        how: dict[str, Any] = {"trust_remote_code": False, "local_files_only": folder is not None}
        if folder is None:  # both parts of one commit, also where the branch moves on between them
            how["revision"] = hub_download(name, revision, _FILES[0]).parent.name
        # Pillow resizes alike on every machine; the other way needs torchvision and gives other digits.
        pictures = {"backend": "pil"} if new else {"use_fast": False}
        weights = {"dtype" if new else "torch_dtype": torch.float32, "use_safetensors": True}
        try:
            processor = AutoImageProcessor.from_pretrained(where, **how, **pictures)
            model, found = AutoModel.from_pretrained(where, **how, **weights, output_loading_info=True)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
            raise CloraError(f"{name} cannot be loaded as an image encoder: {hub_reason(error, name)}") from error
        lost = sorted(found["missing_keys"])
        other = [key for key in lost if "pooler" not in key.split(".")]
        if other:  # transformers would draw them at random
            raise CloraError(f"{name}: its weights lack {len(other)} tensors of a {type(model).__name__}: {other[0]}")
        chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        return cls(name, model.to(chosen).eval().requires_grad_(False), processor, not lost, batch_size)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures [N, 3, H, W] in [-1, 1] -> vectors [N, D] on the CPU. Raises CloraError where the model cannot."""
        import torch

        try:
            vectors = torch.cat([self._batch(part) for part in pictures.split(self.batch_size)])
        except torch.cuda.OutOfMemoryError:
            raise CloraError(f"{self.name} needs more memory than the GPU has left; set `device: cpu`") from None
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            what = f"{type(self.model).__name__} gives no vector for a picture"
            raise CloraError(
                f"{self.name} is no image encoder that can be used here: {what}: {reason(error)}"
            ) from error
        if vectors.ndim != 2 or not vectors.isfinite().all():
            raise CloraError(f"{self.name} gives vectors {list(vectors.shape)} that are no finite [N, D]")
        return vectors

    def _batch(self, pictures: torch.Tensor) -> torch.Tensor:
        import torch
        from PIL import Image

        bytes_ = ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        images = [Image.fromarray(picture) for picture in bytes_]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return self._features(pixels.to(self.model.device)).float().cpu()

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        """The model's own image features; else its pooled vector, or the class token where nothing trained pools."""
        import torch

        if hasattr(self.model, "get_image_features"):
            out = self.model.get_image_features(pixel_values=pixels)
            return out if isinstance(out, torch.Tensor) else out["pooler_output"]
        out = self.model(pixel_values=pixels)
        if self.pooler and "pooler_output" in out:
            return out["pooler_output"].flatten(1)
        return out["last_hidden_state"][:, 0]
