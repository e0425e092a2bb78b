"""`run.json`: what a run folder says of itself."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import asdict, field, frozen

from clora.runs.files.fields import Fields


@frozen
class RunRecord:
    """Who a run is, what it was made by, and how long it has worked."""

    name: str
    title: str
    seed: int
    digest: str  # the plan's
    steps: int  # student updates; 0 where nothing is trained
    seconds: float  # of work, over all calls
    ranks: int
    recipe: str  # the checksum of recipe.yaml beside it
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    components: Mapping[str, str] = field(factory=dict)  # by place: distribution, version, hash of its source
    threads: int = 0  # that compute: sums depend on them in their last bits; 0 where that is not known

    @classmethod
    def of(cls, fields: Fields) -> RunRecord:
        """From the file's map. Raises DamagedError for a field that is missing or of another type."""
        return cls(
            name=fields.text("name"),
            title=fields.text("title"),
            seed=fields.whole("seed"),
            digest=fields.text("digest"),
            steps=fields.whole("steps"),
            seconds=fields.number("seconds"),
            ranks=fields.whole("ranks"),
            recipe=fields.text("recipe"),
            machine=fields.map("machine").map_of(Fields.text),
            versions=fields.map("versions").map_of(Fields.text),
            components=fields.map("components").map_of(Fields.text) if "components" in fields.tree else {},
            threads=fields.whole("threads") if "threads" in fields.tree else 0,
        )

    def tree(self) -> dict[str, object]:
        """As the file holds it."""
        return asdict(self)
