"""All that a plugin may import from clora; nothing else is public."""

import typing as _typing

from clora.cli.recipe_commands import (
    cards_of as cards_of,
    recipe_error as recipe_error,
    recipe_of as recipe_of,
)
from clora.cli.recipes import add_recipe_arguments as add_recipe_arguments
from clora.contracts.backbone import (
    Backbone as Backbone,
    FitsMemory as FitsMemory,
    Footprint as Footprint,
    HasLocalWeights as HasLocalWeights,
    HasWeightFiles as HasWeightFiles,
    KnowsFootprint as KnowsFootprint,
    Publication as Publication,
    Publishes as Publishes,
    ShiftsByTokens as ShiftsByTokens,
    StatesFeatures as StatesFeatures,
    StatesLatents as StatesLatents,
    Tokenizes as Tokenizes,
    TokenShift as TokenShift,
)
from clora.contracts.bounds import MOST_SEED as MOST_SEED, between as between
from clora.contracts.command import Command as Command
from clora.contracts.component import Checked as Checked, Component as Component, Warns as Warns
from clora.contracts.convolution import Convolution as Convolution
from clora.contracts.data import (
    Captioner as Captioner,
    ChecksDataset as ChecksDataset,
    ChecksEvaluation as ChecksEvaluation,
    CountsTokens as CountsTokens,
    Dataset as Dataset,
    DrawsTruth as DrawsTruth,
    HasPairs as HasPairs,
    ListsPictures as ListsPictures,
    Metric as Metric,
    PictureRow as PictureRow,
    StatesSize as StatesSize,
    TokensUsed as TokensUsed,
    Truth as Truth,
)
from clora.contracts.evaluation import (
    Direction as Direction,
    EffectPictures as EffectPictures,
    Evaluation as Evaluation,
    GeneralPictures as GeneralPictures,
    Matrix as Matrix,
    Measured as Measured,
    PictureGrid as PictureGrid,
    Quantity as Quantity,
    Reference as Reference,
)
from clora.contracts.export import (
    EffectSamples as EffectSamples,
    Evaluated as Evaluated,
    ExportedEffect as ExportedEffect,
    ExportedLora as ExportedLora,
    ExportedSampler as ExportedSampler,
    Exporter as Exporter,
    FileContents as FileContents,
    Illustrates as Illustrates,
)
from clora.contracts.hookspecs import HOOK_VERSION as HOOK_VERSION, hookimpl as hookimpl
from clora.contracts.loaded_backbone import (
    Explains as Explains,
    GroupsLinears as GroupsLinears,
    Guides as Guides,
    HasFeatures as HasFeatures,
    JoinsMlp as JoinsMlp,
    KnowsSchedule as KnowsSchedule,
    LoadedBackbone as LoadedBackbone,
    LoadsInParts as LoadsInParts,
    LoraKernel as LoraKernel,
    Part as Part,
)
from clora.contracts.lora_layout import (
    LoraLayout as LoraLayout,
    LoraPart as LoraPart,
    TensorName as TensorName,
    WritesTensorNames as WritesTensorNames,
)
from clora.contracts.losses import CriticLoss as CriticLoss, StudentLoss as StudentLoss, streams_key as streams_key
from clora.contracts.merger import LoraFactors as LoraFactors, Merger as Merger
from clora.contracts.method import (
    Alarms as Alarms,
    ChecksCards as ChecksCards,
    ChecksSchedule as ChecksSchedule,
    KeepsCaptions as KeepsCaptions,
    KeepsState as KeepsState,
    Learns as Learns,
    ListsLoraFiles as ListsLoraFiles,
    Loss as Loss,
    PromptStrategy as PromptStrategy,
    RequestsCaptions as RequestsCaptions,
    Router as Router,
    SharesTrajectory as SharesTrajectory,
    SimulationSchedule as SimulationSchedule,
    Teachers as Teachers,
    TrainsModules as TrainsModules,
    UsesCritic as UsesCritic,
    UsesSimulation as UsesSimulation,
    WeighsOverTime as WeighsOverTime,
)
from clora.contracts.optimizer import Optimizer as Optimizer, WorksOn as WorksOn
from clora.contracts.report import (
    Composition as Composition,
    Cost as Cost,
    EffectReport as EffectReport,
    Reporter as Reporter,
    RunReport as RunReport,
)
from clora.contracts.run import (
    EffectEdits as EffectEdits,
    Observation as Observation,
    Observer as Observer,
    PlanFacts as PlanFacts,
    RequestsSamples as RequestsSamples,
    RunInfo as RunInfo,
    SampleRequest as SampleRequest,
)
from clora.contracts.step import (
    Await as Await,
    Forward as Forward,
    ForwardCoroutine as ForwardCoroutine,
    Inside as Inside,
    LossTerm as LossTerm,
    Simulated as Simulated,
    StepContext as StepContext,
    Trajectory as Trajectory,
)
from clora.contracts.values import (
    Batch as Batch,
    Conditions as Conditions,
    EffectCard as EffectCard,
    GeneralItem as GeneralItem,
    Phase as Phase,
    Prompts as Prompts,
    Role as Role,
    RoleConditions as RoleConditions,
    Route as Route,
    Row as Row,
    Split as Split,
    StepReport as StepReport,
    Stream as Stream,
    TextEmbeddings as TextEmbeddings,
)
from clora.diffusion.flow import (
    Schedule as Schedule,
    add_noise as add_noise,
    guide as guide,
    over as over,
    position as position,
    shift as shift,
    to_noise as to_noise,
    to_x0 as to_x0,
    unshift as unshift,
    velocity_target as velocity_target,
)
from clora.diffusion.rng import StepRng as StepRng
from clora.errors import (
    CloraError as CloraError,
    escaped as escaped,
    hint as hint,
    nearest as nearest,
    quoted as quoted,
    reason as reason,
    shown as shown,
)
from clora.files.atomic import write_atomic as write_atomic, write_folder as write_folder
from clora.files.named_files import (
    OutsideError as OutsideError,
    UnusablePathError as UnusablePathError,
    located as located,
    not_a_file as not_a_file,
    open_file as open_file,
)
from clora.files.pictures import (
    PictureError as PictureError,
    picture_size as picture_size,
    read_picture as read_picture,
    to_image as to_image,
)
from clora.files.untrusted_json import (
    MAX_DEPTH as MAX_DEPTH,
    MAX_NAME as MAX_NAME,
    MAX_PROMPT as MAX_PROMPT,
    integer_of as integer_of,
    json_size as json_size,
    kind_of as kind_of,
    number_of as number_of,
    parse_json as parse_json,
    read_json as read_json,
    read_map as read_map,
    read_text as read_text,
    text_problem as text_problem,
)
from clora.files.untrusted_yaml import YamlError as YamlError, compose as compose
from clora.lora_io.linears import LinearRows as LinearRows, Linears as Linears
from clora.lora_io.reader import LoraDelta as LoraDelta
from clora.lora_io.writer import write_lora as write_lora
from clora.process.stopping import during as during
from clora.runs.exported_run import ExportedRun as ExportedRun
from clora.runs.files.results import Results as Results
from clora.runs.progress import Progress as Progress
from clora.runs.run_dir import RunDir as RunDir
from clora.toolkit import config_fields as config_fields
from clora.toolkit.captions_file import (
    CaptionsError as CaptionsError,
    WrittenCaption as WrittenCaption,
    captions_text as captions_text,
    fingerprint as fingerprint,
    parse_captions as parse_captions,
    read_captions as read_captions,
)
from clora.toolkit.diffusers_folder import (
    DiffusersFolder as DiffusersFolder,
    ModelPlace as ModelPlace,
    load_whole as load_whole,
)
from clora.toolkit.hub_files import hub_download as hub_download, hub_reason as hub_reason
from clora.toolkit.library_errors import library_errors as library_errors
from clora.toolkit.memory.fit import load_fitted as load_fitted
from clora.toolkit.memory.footprint import Blueprint as Blueprint, network_footprint as network_footprint
from clora.toolkit.memory.settings import NetworkMemory as NetworkMemory
from clora.toolkit.model_files import files_problems as files_problems, inside as inside, read_config as read_config
from clora.toolkit.model_schedule import (
    FLOW_MATCH_EULER as FLOW_MATCH_EULER,
    pipeline_schedule as pipeline_schedule,
    scheduler_misfits as scheduler_misfits,
    shift_by_tokens as shift_by_tokens,
)
from clora.toolkit.picture_doubts import doubts as doubts, same_bytes as same_bytes
from clora.toolkit.weight_files import weights_misfits as weights_misfits, weights_problems as weights_problems

if _typing.TYPE_CHECKING:  # what a signature names and importing it takes a while
    from clora.config.load import LoadedRecipe as LoadedRecipe
