"""Small files of a model on the Hugging Face Hub, by the ordinary client and its cache, with plain reasons."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from clora.errors import CloraError, shown
from clora.toolkit.library_errors import library_reason
from clora.toolkit.model_files import SMALL


@cache
def hub_commit(model: str, revision: str | None) -> str:
    """The commit that a revision (None: the main branch) is now; one process keeps to it. Raises CloraError."""
    return hub_download(model, revision, "model_index.json").parent.name


@cache
def hub_file(model: str, revision: str | None, name: str) -> Path:
    """A small file of a model at that commit, downloaded once. Raises CloraError with the reason where it cannot be."""
    *folders, leaf = name.split("/")
    path = hub_download(model, hub_commit(model, revision), leaf, subfolder="/".join(folders) or None)
    return path


def hub_cached(model: str, revision: str | None, name: str) -> Path | None:
    """A small file of a model where the Hub's cache on this disk has it, else None; no network is asked."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(model, name, revision=revision)
    except (OSError, ValueError):  # no name that the Hub has; asking it for the file tells so
        return None
    return Path(found) if isinstance(found, str) else None


def hub_folder(model: str, revision: str | None, name: str, *, weights: bool = True) -> Path:
    """A folder of a model at that commit, downloaded once, with or without its weights.

    Raises CloraError with the reason where it cannot be.
    """
    from huggingface_hub import snapshot_download

    commit = hub_commit(model, revision)
    endings = (*SMALL, ".safetensors") if weights else SMALL
    try:
        root = snapshot_download(model, revision=commit, allow_patterns=[f"{name}/*{ending}" for ending in endings])
    except (OSError, ValueError) as error:
        raise CloraError(f"{shown(model)}: {name} cannot be had from the Hub: {hub_reason(error, model)}") from error
    return Path(root) / name


def hub_download(model: str, revision: str | None, name: str, subfolder: str | None = None) -> Path:
    """A small file of a model, by the Hub's cache: its folder is named after the commit. Raises CloraError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, subfolder=subfolder, revision=revision))
    except (OSError, ValueError, EntryNotFoundError) as error:
        file = name if subfolder is None else f"{subfolder}/{name}"
        raise CloraError(f"{shown(model)}: {file} cannot be had from the Hub: {hub_reason(error, model)}") from error


def hub_reason(error: Exception, model: str) -> str:
    """Why the Hub gave nothing, in words; the error's own first line, without tokens, where the reason is another."""
    from huggingface_hub import errors

    causes = (error, error.__cause__, error.__context__)
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return "it is gated; accept its licence on huggingface.co and log in with `hf auth login`"
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return "it has no such revision"
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return "there is no such model, or it is private and you are not logged in"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes) or _offline(error):
        return (
            "it is not on this disk, and the Hub was not reached (offline, or HF_HUB_OFFLINE is set); download it "
            f"where there is a network with `hf download {shown(model)} --local-dir FOLDER` and give `model: FOLDER`"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return "there is no such file in it"
    return library_reason(error)


def _offline(error: Exception) -> bool:
    from huggingface_hub import errors

    return isinstance(error, errors.LocalEntryNotFoundError) or "couldn't connect" in str(error).lower()
