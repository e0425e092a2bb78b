"""One Protocol for every kind of component: what the training loop calls, with the shapes.

A component is a frozen attrs object made from its YAML keys. Whatever costs time or memory happens in the calls below,
never in the constructor, so that `clora validate` can build every component without loading a model.
"""

from __future__ import annotations

from clora.protocols.backbones import (
    Backbone,
    FitsMemory,
    Footprint,
    HasWeightFiles,
    KnowsFootprint,
    Publication,
    Publishes,
    Tokenizes,
    Workflow,
    trained_shapes,
)
from clora.protocols.data import (
    Captioner,
    ChecksDataset,
    ChecksEvaluation,
    CountsTokens,
    Dataset,
    HasPairs,
    Metric,
    TokensUsed,
    Truth,
)
from clora.protocols.loaded import Explains, Guides, KnowsSchedule, LoadedBackbone, LoadsInParts, LoraKernel, Part
from clora.protocols.method import (
    ChecksCards,
    KeepsCaptions,
    ListsLoraFiles,
    Loss,
    PromptStrategy,
    RequestsCaptions,
    Router,
    SharesTrajectory,
    SimulationSchedule,
    Teachers,
    UsesCritic,
    UsesSimulation,
)
from clora.protocols.parts import Checked, Component, RunInfo

__all__ = [
    "Backbone",
    "Captioner",
    "Checked",
    "ChecksCards",
    "ChecksDataset",
    "ChecksEvaluation",
    "Component",
    "CountsTokens",
    "Dataset",
    "Explains",
    "FitsMemory",
    "Footprint",
    "Guides",
    "HasPairs",
    "HasWeightFiles",
    "KeepsCaptions",
    "KnowsFootprint",
    "KnowsSchedule",
    "ListsLoraFiles",
    "LoadedBackbone",
    "LoadsInParts",
    "LoraKernel",
    "Loss",
    "Metric",
    "Part",
    "PromptStrategy",
    "Publication",
    "Publishes",
    "RequestsCaptions",
    "Router",
    "RunInfo",
    "SharesTrajectory",
    "SimulationSchedule",
    "Teachers",
    "Tokenizes",
    "TokensUsed",
    "Truth",
    "UsesCritic",
    "UsesSimulation",
    "Workflow",
    "trained_shapes",
]
