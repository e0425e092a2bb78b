"""clora from Python: recipes that are carried out, and finished runs that make pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clora.cli.recipes import plan_of_run
from clora.config.load import load_recipe
from clora.errors import CloraError, hint, quoted, shown
from clora.files.pictures import from_image, read_picture, to_image
from clora.inference.edit_sampler import Editor
from clora.planning.plan import make_plan
from clora.planning.report_files import report_files
from clora.plugin_system.discovery import discover
from clora.runs.job import make_job, run_folder
from clora.runs.pipeline import Pipeline
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir
from clora.training.distributed import Distributed

if TYPE_CHECKING:
    from PIL.Image import Image

    from clora.planning.plan import Plan


def run(
    recipe: str | Path,
    settings: Mapping[str, object] | None = None,
    *,
    world: str | Path | None = None,
    on_top: Sequence[str | Path] = (),
    runs: str | Path = "runs",
    quiet: bool = False,
) -> OpenRun:
    """Carry a recipe out as `clora run` does, or go on where it was stopped, and open the run.

    `settings` are those of `--set`, such as {"train.steps": 50}; `world` stands under it as by `--world`; `on_top` are
    recipes laid on top as by `--with`. A recipe may be one of clora's: "clora:quickstart.yaml".
    Raises RecipeError with every mistake of the recipe, and CloraError as the command does.
    """
    sets = [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
    catalogue = discover()
    plan = make_plan(load_recipe(recipe, on_top, sets, catalogue, world=world))
    folder = run_folder(plan, Path(runs))
    Pipeline(make_job(plan, catalogue, folder), catalogue, Distributed.current(), Progress(on=not quiet)).run()
    return OpenRun(folder, plan)


def open_run(folder: str | Path) -> OpenRun:
    """A finished run. Raises CloraError where the folder is none, or its files are not as the run wrote them."""
    found = RunDir(Path(folder))
    plan, _ = plan_of_run(found)
    return OpenRun(found, plan)


class OpenRun:
    """A finished run: its numbers, its files, and its LoRA on the model, which is loaded with the first picture."""

    def __init__(self, folder: RunDir, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self._editor: Editor | None = None

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects that the LoRA has."""
        return tuple(self.plan.prompts)

    @property
    def values(self) -> dict[str, float]:
        """The evaluation's numbers by name. Raises CloraError where the run has not been evaluated."""
        return dict(self.folder.read_results().values)

    @property
    def lora(self) -> Path:
        """The exported LoRA, as the run wrote it. Raises CloraError where there is none or it has changed."""
        return self.folder.check_lora()

    @property
    def reports(self) -> tuple[Path, ...]:
        """What the recipe's reporters have written, such as a page to look at."""
        return tuple(self.folder.path / name for name in report_files(self.plan.recipe.reporters))

    def sample(
        self,
        effect: str | Sequence[str] | None,
        image: str | Path | Image,
        *,
        instruction: str | None = None,
        seed: int = 0,
        passes: bool = False,
    ) -> Image:
        """A picture with an effect, as `clora sample` makes it; several effects chain, `passes` one after the other.

        With `effect=None` an instruction of your own is followed. Raises CloraError for an effect that the run has not,
        for both or neither of effect and instruction, and for a file that is no picture.
        """
        effects = [effect] if isinstance(effect, str) else list(effect or ())
        if bool(effects) == (instruction is not None):
            raise CloraError("give either an effect (or several, to chain them) or an instruction")
        for name in effects:
            if name not in self.plan.prompts:
                raise CloraError(f"{shown(self.folder.path)} has no effect {quoted(name)}{hint(name, self.effects)}")
        picture = read_picture(Path(image)) if isinstance(image, (str, Path)) else from_image(image)
        if self._editor is None:
            self._editor = Editor(self.plan, self.folder)
        return to_image(self._editor.edit(effects, instruction, picture, seed, passes=passes))
