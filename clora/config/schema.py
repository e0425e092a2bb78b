"""The typed recipe: one attrs class a section, whose fields are the YAML keys and whose validators are the bounds.

Every number has two bounds. A bound that is no limit of the method keeps out what nobody means: counts that no machine
sees the end of, and factors whose product with a weight float32 cannot hold.
Sections that hold a component (`{use: NAME, ...}`) are typed by the component's own class, found through the plugins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from attrs import asdict, field, frozen
from attrs.validators import deep_iterable, optional

from clora.config.names import is_folder_name, is_one_line
from clora.contracts.bounds import MOST_SEED, Between, between
from clora.diffusion.flow import MOST_STEPS, SHIFT

#: no linear of the model families is wider; the plan refuses a rank above all linears of the recipe's own backbone
RANK = between(1, 16_384)
#: levels of a schedule: a thousand is what base models are trained with
STEPS = between(1, MOST_STEPS)
#: AdamW moves every weight by about the rate: above 1 nothing is left of a weight, below 1e-10 float32 rounds it away
RATE = between(1e-10, 1.0)
#: from 0 on and less than 1: a mean that forgets nothing never settles, and AdamW divides by 1 - beta
BETAS = deep_iterable(between(0.0, 1.0, below=True))
#: rows of one pass through a network
ROWS = between(1, 4096)
#: pictures of one kind
PICTURES = 1_000_000
#: student updates
UPDATES = 1_000_000


def _share() -> Between:
    return between(0.0, 1.0)


@frozen
class Student:
    """The adapter that is trained, and the few-step sampler it is trained for (paper: rank 128, 8 steps, shift 3).

    `shift: null` takes the one that belongs to the number of tokens, by the backbone's own rule; where it has none, the
    paper's. 1 leaves the levels evenly spaced.
    """

    rank: int = field(default=128, validator=RANK)  # 1 to 16,384
    #: 0.001 to 16,384; the LoRA's strength is alpha / rank, which the plan keeps between 0.001 and 1000
    alpha: float = field(default=128.0, validator=between(0.001, 16_384.0))
    steps: int = field(default=8, validator=STEPS)  # 1 to 1000
    shift: float | None = field(default=None, validator=optional(SHIFT))  # 0.01 to 100
    #: decay of the moving average that is exported instead of the last weights; null turns it off, as in the paper.
    #: Up to 0.999999, the average of a million updates; one of 1 would not move
    ema: float | None = field(default=None, validator=optional(between(0.0, 0.999999)))


@frozen
class Lag:
    """How often the critic is compared with a copy that is fitted further while the student stands still."""

    every: int = field(default=50, validator=between(1, UPDATES))  # student updates between two comparisons
    updates: int = field(default=10, validator=between(1, 1000))  # of the copy
    batches: int = field(default=4, validator=between(1, 1000))  # held out, on which both are compared


@frozen
class Critic:
    """The adapter that follows the student's distribution; absent where no loss asks for it."""

    #: null: the student's rank, as in the paper; the strength alpha / rank is the student's always
    rank: int | None = field(default=None, validator=optional(RANK))
    updates: int = field(default=5, validator=between(1, 1000))  # for each update of the student
    lr: float = field(default=1e-4, validator=RATE)  # 1e-10 to 1
    #: the student's x_g, made before its update, serves the critic's first update too; false: a fresh rollout of the
    #: updated student, as the public code makes (independent schedule)
    reuse_rollout: bool = True
    #: simulations with a critic of their own, trained by the critic's losses and asked by the student's that read them;
    #: the other simulations share one, as in the paper
    own: tuple[str, ...] = ()
    lag: Lag | None = None  # null: the critic's lag is not measured; `{}` measures it, at a cost that `validate` tells
    losses: dict[str, Any] = field(factory=dict)  # the critic's terms, by names of the recipe's own


@frozen
class Teacher:
    """How teachers and the base are sampled when their outputs are made (paper: 40 steps, guidance 4)."""

    steps: int = field(default=40, validator=STEPS)  # 1 to 1000
    #: 0 to 100: 1 asks for no unguided evaluation; beyond 100 latents leave the range that a VAE decodes
    guidance_scale: float = field(default=4.0, validator=between(0.0, 100.0))
    #: 0.01 to 100; null: the noise levels of the model's own scheduler
    shift: float | None = field(default=3.0, validator=optional(SHIFT))
    #: how many teachers are on the device at once, the next ones loaded while a step runs; null: all of them
    slots: int | None = field(default=None, validator=optional(between(1, 10_000)))

    def sampling(self) -> dict[str, Any]:
        """What decides a teacher's pictures: every key but where its weights wait."""
        return asdict(self, filter=lambda attribute, value: attribute.name != "slots")


@frozen
class Prepare:
    """What is made before training: the teachers' outputs, and pictures of them to look at."""

    batch_size: int = field(default=8, validator=ROWS)  # pictures at a time; what is made is kept after each batch
    previews: int = field(default=8, validator=between(0, 1000))  # pictures per effect below RUN/prepare; 0 for none
    #: at most so many per effect, up to a million; null: all
    train_images: int | None = field(default=None, validator=optional(between(1, PICTURES)))
    #: at most so many of the general stream, up to a million; null: all
    general_images: int | None = field(default=None, validator=optional(between(1, PICTURES)))


@frozen
class Train:
    """The training loop (paper: 5,000 student updates, lr 1e-4, clip 10; its code: AdamW as torch has it)."""

    steps: int = field(default=5000, validator=between(0, UPDATES))  # up to a million; 0 exports what it starts from
    batch_size: int = field(default=1, validator=ROWS)  # 1 to 4096 rows of a process
    lr: float = field(default=1e-4, validator=RATE)  # 1e-10 to 1
    #: AdamW's, each at least 0, less than 1; an `optimizer` of the recipe has its own
    betas: tuple[float, float] = field(default=(0.9, 0.999), validator=BETAS)
    #: AdamW's too: the share that an update takes off a weight is lr times this, so neither may be more than 1
    weight_decay: float = field(default=0.01, validator=between(0.0, 1.0))
    #: the largest norm that a gradient keeps; a million is as good as no clipping
    grad_clip: float = field(default=10.0, validator=between(1e-6, 1e6))
    #: student updates over which the learning rate rises linearly
    warmup_steps: int = field(default=0, validator=between(0, UPDATES))
    #: share of the run, at its end, over which both learning rates fall to zero along a cosine; 0 keeps them constant
    decay: float = field(default=0.0, validator=_share())
    #: independent: a rollout for every update; shared: one for all updates of a cycle
    schedule: Literal["independent", "shared"] = "independent"
    pack: bool = True  # run what can share a batch in one forward; false: one by one, in less memory
    #: the optimizer's state waits in CPU memory and it works there: of AdamW half of the adapters' memory, a copy to
    #: and fro an update
    offload_optimizer: bool = False
    #: several processes share one base instead of holding one each: less memory, a gather before every block
    shard_base: bool = False
    checkpoint_every: int = field(default=100, validator=between(1, UPDATES))  # the last update is always saved
    keep_checkpoints: int = field(default=2, validator=between(1, 1000))  # the newest so many


@frozen
class WarmStart:
    """A start that knows the effects (not the paper's): one adapter is trained by these losses, then copied.

    Student and critic begin as that adapter instead of as the bare base, whose fake score knows no effect. It stays in
    the run's folder: flow matching on the teachers' outputs alone is the all-in-one baseline's student. Runs beside one
    another that differ only in what comes after it train it once.
    """

    losses: dict[str, Any] = field(factory=dict)  # the terms that train the adapter, by names of the recipe's own
    router: Any = None  # null: the recipe's own
    updates: int = field(default=120, validator=between(0, UPDATES))  # of train.batch_size rows each; 0: no warm start
    lr: float | None = field(default=None, validator=optional(RATE))  # null: train.lr
    #: null: train.betas; regression likes momentum, which a critic's chase of its student does not
    betas: tuple[float, float] | None = field(default=None, validator=optional(BETAS))
    #: share of these updates, at their end, over which the rate falls to zero
    decay: float = field(default=0.5, validator=_share())
    critic: bool = True  # false: the critic begins as the bare base


@frozen
class Serve:
    """What is exported and evaluated: the trained student, or the baselines that need no training of their own."""

    #: what is exported and evaluated: the trained student, each effect's own teacher, or the merged bank
    adapter: Literal["student", "teachers", "merge"] = "student"
    sampler: Literal["few_step", "teacher"] = "few_step"  # few_step: the student's steps; teacher: the teachers' own
    prompts: Literal["student", "teacher"] = "student"  # which of the two sides' prompts call an effect
    #: a recipe whose student is added on top at serving time (an acceleration LoRA)
    plus: str | None = None
    #: the world under that recipe; null: the one that this recipe stands on
    plus_world: str | None = None
    merge: Any = None  # how the bank becomes one LoRA where `adapter` is merge


@frozen
class Export:
    """How the result is stored; float32 keeps what was trained, bfloat16 is half the size and what most tools load."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the tensors in the LoRA file


@frozen
class Evaluate:
    """How many test pictures are made."""

    images: int = field(default=100, validator=between(1, PICTURES))  # per effect, or all that there are
    #: at most so many of the general stream; 0 for none
    general_images: int = field(default=100, validator=between(0, PICTURES))
    batch_size: int = field(default=64, validator=ROWS)  # 1 to 4096
    teacher: bool = True  # also sample each effect's own teacher, for the report's grid and the reference row


@frozen
class Start:
    """A finished run that this one goes on from, to add effects to its LoRA (paper: Table 5); see `clora extend`."""

    run: Path  # the folder of the finished run
    teachers: dict[str, Any] = field(factory=dict)  # banks beside the recipe's own, with the added effects
    #: share of the effect stream's rows that go to the effects the finished LoRA has
    replay: float = field(default=0.5, validator=_share())


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
    seed: int = field(default=0, validator=between(0, MOST_SEED))  # below 2^32, as NumPy takes it
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: this process's own GPU where there is one
    effects: tuple[str, ...] | None = None  # which of the bank's effects; null means all
    simulations: dict[str, Any] = field(factory=dict)
    losses: dict[str, Any] = field(factory=dict)
    metrics: dict[str, Any] = field(factory=dict)
    exporters: dict[str, Any] = field(factory=dict)
    reporters: dict[str, Any] = field(factory=dict)  # who tell of the finished run; they decide nothing of it
    kernels: Any = None
    optimizer: Any = None  # null: AdamW with train.betas and train.weight_decay
    captioner: Any = None
    observers: dict[str, Any] = field(factory=dict)
    student: Student = Student()
    critic: Critic | None = None
    start: Start | None = None
    warm_start: WarmStart | None = None
    teacher: Teacher = Teacher()
    prepare: Prepare = Prepare()
    train: Train = Train()
    serve: Serve = Serve()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
