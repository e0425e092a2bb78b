"""All that a plugin may import from clora; nothing else is public."""

from clora.evaluation import EffectPictures, Evaluation, GeneralPictures, Matrix, Measured
from clora.flow import Schedule, add_noise, guide, over, shift, to_noise, to_x0, unshift, velocity_target
from clora.hookspecs import hookimpl
from clora.protocols import (
    Backbone,
    Checked,
    Component,
    Dataset,
    LoadedBackbone,
    LoraKernel,
    Loss,
    Metric,
    PromptStrategy,
    Router,
    RunInfo,
    SharesTrajectory,
    SimulationSchedule,
    Teachers,
    Truth,
    UsesCritic,
    UsesSimulation,
)
from clora.seeding import Draws
from clora.values import (
    Asking,
    Await,
    Batch,
    Conditions,
    EffectCard,
    Forward,
    GeneralItem,
    LossTerm,
    Phase,
    Prompts,
    Role,
    RoleConditions,
    Route,
    Row,
    Scene,
    Simulated,
    Split,
    StepReport,
    Stream,
    Trajectory,
)

__all__ = [name for name in dir() if not name.startswith("_")]
