"""The way in: a recipe's file, the files and values laid on top, and the plugins' classes -> a typed Recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from attrs import frozen

from clora.config.checks import cross_checks
from clora.config.layers import layered, names_of
from clora.config.names import folder_name_problem
from clora.config.package_files import is_package_file, recipe_file
from clora.config.problems import Problem, RecipeError
from clora.config.recipe_structure import Finds, OtherRecipe, Provides, RecipeStructurer
from clora.config.resolved import Branch, as_annotated_yaml, as_yaml, digest, resolve, values_in
from clora.config.scalars import as_int
from clora.config.schema import Recipe
from clora.config.tree import SOURCE, Entry, Keys, Mark, Text, mark_at
from clora.config.worlds import real
from clora.config.yaml_parser import MAX_BYTES, MAX_VALUES
from clora.errors import CloraError, quoted, shown
from clora.plugin_system.guard import Owners

__all__ = ["Finds", "LoadedRecipe", "Provides", "load_recipe"]

#: recipes that add one another at serving time, the first one included
MAX_PLUS = 4


@frozen
class LoadedRecipe:
    """A typed recipe with all that is known of where its values came from."""

    recipe: Recipe
    file: Path
    tree: Branch
    digest: str
    written: Keys
    #: the recipe that `serve.plus` names, with this one's seed; None where it names none or was not to be read
    plus: LoadedRecipe | None = None
    owners: Owners = attrs.field(factory=Owners)
    #: the world that stands under it; None where the recipe is complete without one
    world: Path | None = None
    doubts: tuple[Problem, ...] = ()
    code: Mapping[str, str] = attrs.field(factory=dict)  # by a component's place: distribution, version, hash of source

    @property
    def origins(self) -> Mapping[str, Mark | None]:
        """Every value's dotted path with the place that gave it; None where it is the default."""
        return {".".join(path): leaf.origin for path, leaf in self.tree.leaves()}

    def mark_of(self, path: str) -> Mark:
        """The place of the value at a dotted path, or of the innermost section around it that was written."""
        return mark_at(self.written, tuple(path.split(".")) if path else ())

    def having(self, recipe: Recipe, code: Mapping[str, str]) -> LoadedRecipe:
        """The same with other values in its typed recipe, such as a number where the file has null.

        `code` is of what it depends on beside its components.
        """
        tree = resolve(recipe, self.written)
        assert isinstance(tree, Branch)
        code = {**self.code, **code}
        return attrs.evolve(self, recipe=recipe, tree=tree, code=code, digest=digest(tree, code))

    def resolved_yaml(self) -> str:
        """The recipe with every value in it; loads again to the same digest."""
        return as_yaml(self.tree)

    def show(self) -> str:
        """The same YAML with each value's origin as a comment, files relative to the recipe's own folder."""
        folder = self.file.parent
        return as_annotated_yaml(self.tree, lambda leaf: leaf.origin.shown_from(folder) if leaf.origin else "default")


def load_recipe(
    path: str | Path,
    with_files: Sequence[str | Path] = (),
    sets: Sequence[str] = (),
    catalogue: Finds | None = None,
    *,
    world: str | Path | None = None,
    named_by: Mark | None = None,
    plus: bool = True,
) -> LoadedRecipe:
    """The recipe of a file with other files and `key=value` texts laid on top; the installed plugins by default.

    `world` stands under it instead of the one that it names; a file may be one of a package, `clora:quickstart.yaml`.
    `named_by` is the place that names the file, where that is not a person; unless `plus` the recipe that it adds at
    serving time is not read. Raises RecipeError with every mistake, those of the recipe that it adds too.
    """
    if catalogue is None:
        from clora.plugin_system.discovery import discover

        catalogue = discover()
    reader = _Reader(catalogue, follows=plus)
    file, *on_top = (_file(each) for each in (path, *with_files))
    under = None if world is None else _file(world)
    loaded = reader.load(file, on_top, sets, under, named_by, ())
    if loaded is None:
        raise RecipeError(reader.problems)
    return loaded


def _file(path: str | Path) -> Path:
    """A file that the command line names."""
    if not is_package_file(str(path)):
        return Path(path)
    try:
        return recipe_file(str(path), Path())
    except CloraError as error:
        raise RecipeError([Problem(Mark(shown(path, SOURCE), Path.cwd()), error)]) from None


class _Reader:
    """Loads a recipe and those that it adds at serving time, and collects the mistakes of all of them."""

    def __init__(self, catalogue: Finds, follows: bool) -> None:
        self.catalogue = catalogue
        self.follows = follows
        self.problems: list[Problem] = []

    def load(
        self,
        file: Path,
        with_files: Sequence[Path],
        sets: Sequence[str],
        world: Path | None,
        named_by: Mark | None,
        above: tuple[Path, ...],
    ) -> LoadedRecipe | None:
        """The recipe, or None once its problems are recorded; `above` are the recipes that add this one."""
        try:
            layers = layered(file, with_files, sets, named_by, world)
        except RecipeError as error:
            self.problems.extend(error.problems)
            return None
        before = len(self.problems)
        written = _without_idle_warm_start(layers.tree)
        structurer = RecipeStructurer(self.catalogue)
        recipe = structurer.recipe(written)
        self.problems += [*layers.problems, *structurer.problems, *cross_checks(structurer.parts(written))]
        plus = None
        if structurer.plus is not None and self.follows:
            seed = () if recipe is None else (f"seed={recipe.seed}",)
            plus = self.added(structurer.plus, seed, structurer.plus_world or layers.world, (*above, real(file)))
        if recipe is None or len(self.problems) > before:
            return None
        if not recipe.name:
            problem = folder_name_problem(file.stem)
            if problem is not None:
                message = f"the run is named by the file, but {quoted(file.stem)} {problem}; give it another by `name:`"
                self.problems.append(Problem(written.mark, message))
                return None
            recipe = attrs.evolve(recipe, name=file.stem)
        if structurer.plus is not None and structurer.plus_world is None and layers.world is not None:
            # The run's folder keeps the recipe without its world, and what is added must be of the same base.
            recipe = attrs.evolve(recipe, serve=attrs.evolve(recipe.serve, plus_world=str(layers.world)))
        tree = resolve(recipe, written)
        assert isinstance(tree, Branch)
        self.problems += _too_much(tree, written.mark)
        if len(self.problems) > before:
            return None
        owners = Owners(structurer.owners)
        code = structurer.code
        return LoadedRecipe(
            recipe,
            file.absolute(),
            tree,
            digest(tree, code),
            written,
            plus,
            owners,
            code=code,
            world=layers.world,
            doubts=layers.doubts,
        )

    def added(
        self, other: OtherRecipe, sets: Sequence[str], world: Path | None, above: tuple[Path, ...]
    ) -> LoadedRecipe | None:
        """The recipe that `serve.plus` names, in the world of the one that adds it."""
        if real(other.file) in above:
            way = names_of((*above[above.index(real(other.file)) :], other.file))
            self.problems.append(Problem(other.mark, f"serve.plus: recipes add one another in a circle: {way}"))
            return None
        if len(above) >= MAX_PLUS:
            way = names_of((*above, other.file))
            message = f"serve.plus: more than {MAX_PLUS} recipes add one another: {way}"
            self.problems.append(Problem(other.mark, message))
            return None
        return self.load(other.file, (), sets, world, other.mark, above)


def _without_idle_warm_start(tree: Keys) -> Keys:
    """The tree with null for a warm start of no updates, which is how a world says that its runs have none."""
    warm = tree.get("warm_start")
    updates = warm.get("updates") if isinstance(warm, Keys) else None
    if updates is None or as_int(updates) != 0:
        return tree
    nothing = Entry(tree.entries["warm_start"].key, Text("null", True, updates.mark))
    return Keys({**tree.entries, "warm_start": nothing}, tree.mark)


def _too_much(tree: Branch, mark: Mark) -> list[Problem]:
    """A recipe that could not be read again once every value is written down, as each run does."""
    size, values = len(as_yaml(tree).encode()), values_in(tree)
    if size > MAX_BYTES:
        return [Problem(mark, f"has {size:,} bytes with every value written out; at most {MAX_BYTES:,} are read again")]
    if values > MAX_VALUES:
        return [Problem(mark, f"has {values:,} values with every default; at most {MAX_VALUES:,} are read again")]
    return []
