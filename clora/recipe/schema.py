"""The typed recipe: one attrs class a section, whose fields are the YAML keys and whose validators are the bounds.

Sections that hold a component (`{use: NAME, ...}`) are typed by the component's own class, found through the plugins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from attrs import asdict, field, frozen
from attrs.validators import and_, ge, gt, le, optional

from clora.recipe.names import is_folder_name, is_one_line


def _unit():
    return and_(ge(0.0), le(1.0))


@frozen
class Student:
    """The adapter that is trained, and the few-step sampler it is trained for (paper: rank 128, 8 steps, shift 3)."""

    rank: int = field(default=128, validator=ge(1))
    alpha: float = field(default=128.0, validator=gt(0.0))
    steps: int = field(default=8, validator=ge(1))
    shift: float = field(default=3.0, validator=gt(0.0))
    #: decay of the moving average that is exported instead of the last weights; null turns it off, as in the paper
    ema: float | None = field(default=None, validator=optional(_unit()))


@frozen
class Critic:
    """The adapter that follows the student's distribution; absent where no loss asks for it."""

    updates: int = field(default=5, validator=ge(1))
    lr: float = field(default=1e-4, validator=gt(0.0))
    losses: dict[str, Any] = field(factory=dict)


@frozen
class Teacher:
    """How teachers and the base are sampled when their outputs are made (paper: 40 steps, guidance 4)."""

    steps: int = field(default=40, validator=ge(1))
    guidance_scale: float = field(default=4.0, validator=ge(0.0))
    #: null: the noise levels of the model's own scheduler
    shift: float | None = field(default=3.0, validator=optional(gt(0.0)))
    #: how many teachers are on the device at once, the next ones loaded while a step runs; null: all of them
    slots: int | None = field(default=None, validator=optional(ge(1)))

    def sampling(self) -> dict[str, Any]:
        """What decides a teacher's pictures: every key but where its weights wait."""
        return asdict(self, filter=lambda attribute, value: attribute.name != "slots")


@frozen
class Prepare:
    """What is made before training: the teachers' outputs, and pictures of them to look at."""

    batch_size: int = field(default=8, validator=ge(1))  # pictures at a time; what is made is kept after each batch
    previews: int = field(default=8, validator=ge(0))  # pictures per effect below RUN/prepare; 0 for none
    train_images: int | None = field(default=None, validator=optional(ge(1)))  # at most so many per effect; null: all
    general_images: int | None = field(default=None, validator=optional(ge(1)))  # of the general stream; null: all


@frozen
class Train:
    """The training loop (paper: 5,000 student updates, AdamW 1e-4, betas 0, 0.999, clip 10)."""

    steps: int = field(default=5000, validator=ge(0))
    batch_size: int = field(default=1, validator=ge(1))
    lr: float = field(default=1e-4, validator=gt(0.0))
    betas: tuple[float, float] = (0.0, 0.999)
    weight_decay: float = field(default=0.0, validator=ge(0.0))
    grad_clip: float = field(default=10.0, validator=gt(0.0))
    warmup_steps: int = field(default=0, validator=ge(0))
    #: share of the run, at its end, over which both learning rates fall to zero along a cosine; 0 keeps them constant
    decay: float = field(default=0.0, validator=_unit())
    schedule: Literal["independent", "shared"] = "independent"
    pack: bool = True
    #: AdamW's moments wait in CPU memory and it works there: half of the adapters' memory, a copy to and fro an update
    offload_optimizer: bool = False
    #: several processes share one base instead of holding one each: less memory, a gather before every block
    shard_base: bool = False
    checkpoint_every: int = field(default=100, validator=ge(1))
    keep_checkpoints: int = field(default=2, validator=ge(1))


@frozen
class Merge:
    """Teachers merged without training, through PEFT's add_weighted_adapter."""

    method: Literal["svd", "ties_svd", "dare_ties_svd", "linear", "cat"] = "svd"
    rank: int = field(default=128, validator=ge(1))
    density: float = field(default=0.2, validator=_unit())
    weight: float = field(default=1.0, validator=gt(0.0))


@frozen
class Serve:
    """What is exported and evaluated: the trained student, or the baselines that need no training of their own."""

    adapter: Literal["student", "teachers", "merge"] = "student"
    sampler: Literal["few_step", "teacher"] = "few_step"
    prompts: Literal["student", "teacher"] = "student"
    #: a recipe whose student is added on top at serving time (an acceleration LoRA)
    plus: str | None = None
    merge: Merge = Merge()


@frozen
class Export:
    """How the result is stored; float32 keeps what was trained, bfloat16 is half the size and what most tools load."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


@frozen
class Evaluate:
    """How many test pictures are made."""

    images: int = field(default=100, validator=ge(1))  # per effect
    general_images: int = field(default=100, validator=ge(0))
    batch_size: int = field(default=64, validator=ge(1))
    teacher: bool = True  # also sample each effect's own teacher, for the report's grid and the reference row


@frozen
class Start:
    """A finished run that this one goes on from, to add effects to its LoRA (paper: Table 5); see `clora extend`."""

    run: Path
    teachers: dict[str, Any] = field(factory=dict)  # banks beside the recipe's own, with the added effects
    #: share of the effect stream's rows that go to the effects the finished LoRA has
    replay: float = field(default=0.5, validator=_unit())


@frozen
class Recipe:
    """A whole run. `None` in a component section means that the section was not given or was removed by null."""

    backbone: Any
    dataset: Any
    teachers: Any
    router: Any
    prompts: Any
    name: str = field(default="", validator=is_folder_name)  # the run's folder is NAME-HASH; if empty, the file's name
    title: str = field(default="", validator=is_one_line)  # of at most 200 characters
    seed: int = field(default=0, validator=ge(0))
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: this process's own GPU where there is one
    effects: tuple[str, ...] | None = None  # which of the bank's effects; null means all
    simulations: dict[str, Any] = field(factory=dict)
    losses: dict[str, Any] = field(factory=dict)
    metrics: dict[str, Any] = field(factory=dict)
    kernels: Any = None
    captioner: Any = None
    student: Student = Student()
    critic: Critic | None = None
    start: Start | None = None
    teacher: Teacher = Teacher()
    prepare: Prepare = Prepare()
    train: Train = Train()
    serve: Serve = Serve()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
