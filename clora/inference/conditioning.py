"""What the network is conditioned on: words and source pictures, each encoded once.

What was encoded is kept in memory up to so many bytes and, where a `store` is given, on disk by its content, so that a
backbone whose encoders were dropped need not load them again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn.functional import pad

from clora.contracts.values import Conditions
from clora.inference.lru_cache import LruCache
from clora.runs.run_dir import digest_of, digest_tensor

if TYPE_CHECKING:
    from clora.contracts.data import Dataset
    from clora.contracts.loaded_backbone import LoadedBackbone
    from clora.runs.cache_shards import Record, Shards

#: bytes of encoded words and pictures kept on the device; beyond it what was used longest ago goes
KEPT_BYTES = 1 << 30

#: (prompt, name of the source picture)
Condition = tuple[str, str]
T = TypeVar("T", str, Condition)


class Conditioning:
    """Encodes words and pictures of a dataset through a backbone, and keeps what it has encoded.

    `encoding` is entered around every use of an encoder that a batch could not do without: it may make room.
    """

    def __init__(
        self,
        backbone: LoadedBackbone,
        dataset: Dataset,
        device: torch.device,
        store: Shards | None = None,
        encoding: Callable[[], AbstractContextManager[None]] = nullcontext,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.backbone = backbone
        self.dataset = dataset
        self.device = device
        self.store = store
        self.encoding = encoding
        self.pictures: dict[str, torch.Tensor] = {}  # given by hand, beside the dataset's own
        self._kept = LruCache(kept_bytes)
        self._digests: dict[str, str] = {}

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Pictures by name, [B, 3, H, W] in [-1, 1]: those given by hand, else the dataset's."""
        given = [self.pictures.get(name) for name in names]
        if all(picture is None for picture in given):
            return self.dataset.images(names)
        found = [self.dataset.images([name])[0] if p is None else p for p, name in zip(given, names, strict=True)]
        return torch.stack(found)

    def digest(self, name: str) -> str:
        """A hash of a picture's numbers and size."""
        if name not in self._digests:
            picture = self.images([name])
            self._digests[name] = f"{digest_tensor(picture)}-{'x'.join(map(str, picture.shape[-2:]))}"
        return self._digests[name]

    def conditions(self, prompts: Sequence[str], sources: Sequence[str]) -> Conditions:
        """The conditions of rows given by prompt and picture name; what was encoded before is not encoded again."""
        latents = self.latents(sources)
        words = self._records(list(zip(prompts, sources, strict=True)), self._words_key, self.encode_words)
        texts = [record["text"] for record in words]
        lengths = torch.tensor([[text.shape[0]] for text in texts])
        longest = int(lengths.max())
        pooled = [record["pooled"] for record in words if "pooled" in record]
        return Conditions(
            torch.stack([pad(text, (0, 0, 0, longest - text.shape[0])) for text in texts]),
            (torch.arange(longest) < lengths).to(self.device),
            latents,
            torch.stack(pooled) if pooled else None,
        )

    def latents(self, names: Sequence[str]) -> torch.Tensor:
        """Latents [B, C, h, w] of pictures by name."""
        records = self._records(list(names), self._source_key, self.encode_sources)
        return torch.stack([record["latents"] for record in records])

    def missing(self, conditions: Iterable[Condition]) -> tuple[list[str], list[Condition]]:
        """The pictures and the conditions that the store lacks; all of them where there is none."""
        wanted = list(dict.fromkeys(conditions))
        sources = list(dict.fromkeys(source for _, source in wanted))
        held = () if self.store is None else self.store
        return (
            [source for source in sources if self._source_key(source) not in held],
            [condition for condition in wanted if self._words_key(condition) not in held],
        )

    def keys(self, conditions: Iterable[Condition]) -> list[str]:
        """The store's keys of conditions and of their pictures."""
        wanted = list(dict.fromkeys(conditions))
        return [*map(self._source_key, dict.fromkeys(source for _, source in wanted)), *map(self._words_key, wanted)]

    @torch.no_grad()
    def encode_words(self, conditions: Sequence[Condition]) -> list[Record]:
        """Encode now: for every condition `text` [L, D] without padding, and `pooled` [P] where the model has one."""
        names = list(dict.fromkeys(source for _, source in conditions))
        images = self.images(names)[[names.index(source) for _, source in conditions]]
        words = self.backbone.encode_prompts([prompt for prompt, _ in conditions], images)
        texts = [text[: int(mask.sum())] for text, mask in zip(words.text, words.mask, strict=True)]
        if words.pooled is None:
            return [{"text": text} for text in texts]
        return [{"text": text, "pooled": pooled} for text, pooled in zip(texts, words.pooled, strict=True)]

    @torch.no_grad()
    def encode_sources(self, names: Sequence[str]) -> list[Record]:
        """Encode now: for every picture `latents` [C, h, w]."""
        return [{"latents": latents} for latents in self.backbone.encode_images(self.images(names))]

    def store_records(self, wanted: Sequence[T], records: Sequence[Record]) -> None:
        """Keep what was encoded for some pictures or conditions on disk, as one file."""
        if self.store is not None:
            keys = [self._source_key(one) if isinstance(one, str) else self._words_key(one) for one in wanted]
            self.store.write(dict(zip(keys, records, strict=True)))

    def _records(
        self, wanted: Sequence[T], key: Callable[[T], str], encode: Callable[[Sequence[T]], Sequence[Record]]
    ) -> list[Record]:
        """From memory, else from the store, else encoded; on the device."""
        found: dict[T, Record] = {}
        missing: list[T] = []
        for one in dict.fromkeys(wanted):
            record = self._kept.get(one)
            if record is None and self.store is not None:
                stored = self.store.read(key(one))
                record = None if stored is None else self._keep(one, stored)
            if record is None:
                missing.append(one)
            else:
                found[one] = record
        if missing:
            with self.encoding():
                made = encode(missing)
            for one, record in zip(missing, made, strict=True):
                # a copy: a view would hold its whole batch in memory
                found[one] = self._keep(one, {name: tensor.clone() for name, tensor in record.items()})
        return [found[one] for one in wanted]

    def _keep(self, one: Hashable, record: Record) -> Record:
        here = {name: tensor.to(self.device) for name, tensor in record.items()}
        self._kept.add(one, here)
        return here

    def _source_key(self, name: str) -> str:
        return digest_of(["source", self.digest(name)])

    def _words_key(self, condition: Condition) -> str:
        prompt, source = condition
        return digest_of(["words", prompt, self.digest(source)])
