"""Old names of modules: they go on working for one release, and each warns once."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, cast

MODULES = {
    "pipeline.align.beside": "pipeline.align.manifest",
    "pipeline.align.correct": "pipeline.align.correct_clock",
    "pipeline.align.corrected_clock": "pipeline.align.correct_clock",
    "pipeline.align.findings": "pipeline.align.check.findings",
    "pipeline.align.frame_check": "pipeline.align.check.frames",
    "pipeline.align.known": "pipeline.align.settings",
    "pipeline.align.lag": "pipeline.align.measure.lag",
    "pipeline.align.page": "pipeline.align.plot",
    "pipeline.align.sliding": "pipeline.align.measure.sliding",
    "pipeline.align.space": "pipeline.align.measure.registration",
    "pipeline.align.stream_check": "pipeline.align.check.stream",
    "pipeline.align.suspects": "pipeline.align.measure.suspects",
    "pipeline.align.timeline": "pipeline.align.exposure",
    "pipeline.align.verify": "pipeline.align.measure.verify",
    "pipeline.allocator": "pipeline.host.allocator",
    "pipeline.before_after": "pipeline.evaluate.picture",
    "pipeline.clips": "pipeline.simulate.clips",
    "pipeline.convert": "pipeline.spikes.convert",
    "pipeline.evaluation": "pipeline.evaluate.scores",
    "pipeline.files": "pipeline.host.files",
    "pipeline.images": "pipeline.frames.images",
    "pipeline.locks": "pipeline.host.locks",
    "pipeline.machine": "pipeline.host.machine",
    "pipeline.memory": "pipeline.host.device_memory",
    "pipeline.metrics": "pipeline.evaluate.metrics",
    "pipeline.motion": "pipeline.evaluate.motion",
    "pipeline.perceptual": "pipeline.evaluate.lpips",
    "pipeline.program": "pipeline.trained.program",
    "pipeline.progress": "pipeline.host.reporter",
    "pipeline.protocols": "pipeline.evaluate.protocols",
    "pipeline.recording": "pipeline.sequences.recording",
    "pipeline.report.sources": "pipeline.report.material",
    "pipeline.scenes": "pipeline.simulate.scenes",
    "pipeline.store.bucket": "pipeline.storage.bucket",
    "pipeline.store.check": "pipeline.voxelize.check",
    "pipeline.store.checksum": "pipeline.storage.checksum",
    "pipeline.store.compare": "pipeline.voxelize.compare",
    "pipeline.store.estimate": "pipeline.voxelize.estimate",
    "pipeline.store.group": "pipeline.store.records",
    "pipeline.store.jobs": "pipeline.voxelize.workers",
    "pipeline.store.light": "pipeline.sequences.light",
    "pipeline.store.place": "pipeline.storage.base",
    "pipeline.store.plan": "pipeline.voxelize.plan",
    "pipeline.store.provenance": "pipeline.sequences.provenance",
    "pipeline.store.reader": "pipeline.sequences.stored",
    "pipeline.store.sequence": "pipeline.sequences.contract",
    "pipeline.store.slurm": "pipeline.voxelize.slurm",
    "pipeline.store.sources": "pipeline.voxelize.sources",
    "pipeline.store.task": "pipeline.voxelize.task",
    "pipeline.store.together": "pipeline.storage.side_by_side",
    "pipeline.store.unified": "pipeline.sequences.unified",
    "pipeline.store.voxelize": "pipeline.voxelize.job",
    "pipeline.store_lag": "pipeline.sequences.lag",
    "pipeline.tile_memory": "pipeline.methods.tiling",
    "pipeline.tiling": "pipeline.methods.tiling",
    "pipeline.torch_methods": "pipeline.methods.network",
    "pipeline.training": "pipeline.train",
    "pipeline.training.cache": "pipeline.train.data.cache",
    "pipeline.training.checkpoint": "pipeline.weights.checkpoint",
    "pipeline.training.clock": "pipeline.train.clock",
    "pipeline.training.distributed": "pipeline.train.distributed",
    "pipeline.training.dry_run": "pipeline.train.dry_run",
    "pipeline.training.ema": "pipeline.train.ema",
    "pipeline.training.launch": "pipeline.train.launch",
    "pipeline.training.loader": "pipeline.train.data.loader",
    "pipeline.training.objective": "pipeline.train.objective",
    "pipeline.training.order": "pipeline.train.data.order",
    "pipeline.training.precision": "pipeline.train.precision",
    "pipeline.training.rate_range": "pipeline.train.find_rate",
    "pipeline.training.records": "pipeline.train.run.records",
    "pipeline.training.run_folder": "pipeline.train.run.folder",
    "pipeline.training.runs": "pipeline.train.run.runs",
    "pipeline.training.samples": "pipeline.train.data.samples",
    "pipeline.training.schedule": "pipeline.train.optimizer",
    "pipeline.training.shuffle": "pipeline.train.data.shuffle",
    "pipeline.training.spike_augment": "pipeline.train.data.spike_augment",
    "pipeline.training.splits": "pipeline.train.data.splits",
    "pipeline.training.step": "pipeline.train.step",
    "pipeline.training.stop": "pipeline.train.stop",
    "pipeline.training.trainer": "pipeline.train.job",
    "pipeline.training.trial": "pipeline.train.memory_budget",
    "pipeline.training.validation": "pipeline.train.validation",
    "pipeline.training.wandb_run": "pipeline.train.run.wandb",
    "pipeline.training.workers": "pipeline.train.data.workers",
    "pipeline.video": "pipeline.frames.video",
    "pipeline.view.clips": "pipeline.view.recordings",
}
"""Modules that are gone, and where most of each is now."""

NAMES = {
    "pipeline.adapt": {
        "pipeline.adapt.camera": "AdaptError Curve DEGREE INSTANTS LAG_EXPOSURES SMOOTH",
        "pipeline.adapt.job": (
            "AdaptSummary DECAY HALVINGS HIDDEN LIGHT_DELTA LIGHT_WEIGHT TRIALS TRUSTS for_camera "
            "hide"
        ),
    },
    "pipeline.align": {
        "pipeline.align.manifest": "Sequence:AlignedSequence",
    },
    "pipeline.align.check": {
        "pipeline.align.check.job": (
            "BAD_PIXELS DRIFT_PPM GAIN_TOLERANCE ManifestCheck SequenceCheck check_sequence"
        ),
    },
    "pipeline.align.correct": {
        "pipeline.align.measure.dataset": "with_clock_seen with_space_seen",
    },
    "pipeline.align.findings": {
        "pipeline.align.check.findings": "Finding:CheckFinding",
    },
    "pipeline.align.layouts.contract": {
        "pipeline.frames.listing": "folder_names walk_folders",
    },
    "pipeline.align.manifest": {
        "pipeline.align.manifest": "Sequence:AlignedSequence",
    },
    "pipeline.align.measure": {
        "pipeline.align.measure.dataset": "Map find_owners frames_of measure measure_space",
    },
    "pipeline.align.verify": {
        "pipeline.align.measure.verify": "Finding:LagFinding",
    },
    "pipeline.clips": {
        "pipeline.simulate.clips": "Clip:SourceClip",
    },
    "pipeline.doctor": {
        "pipeline.doctor": "Finding:Diagnosis",
    },
    "pipeline.evaluate": {
        "pipeline.evaluate.scores": "EvaluationError",
        "pipeline.evaluate.job": "METHODS checked_methods evaluate_sequences",
    },
    "pipeline.images": {
        "pipeline.frames.srgb": "decode_srgb encode_srgb",
        "pipeline.frames.listing": "IMAGE_SUFFIXES list_images",
    },
    "pipeline.memory": {
        "pipeline.train.memory_advice": "require_room training_advice",
    },
    "pipeline.methods": {
        "pipeline.methods.tfp_tfi_sdm": (
            "BlurMethod DEFAULT_SHORT_BINS SHORT_BINS SdmMethod TfiMethod TfpMethod centre_weights"
        ),
        "pipeline.methods.contract": (
            "Clip:MethodClip Frames Method MethodError gain_of plan_clips require_raw "
            "restored_frames"
        ),
        "pipeline.methods.make_method": "METHODS",
    },
    "pipeline.metrics": {
        "pipeline.frames.images": "to_uint16 to_uint8",
    },
    "pipeline.recording": {
        "pipeline.sequences.find_recording": (
            "STREAM as_aligned exposures_by_log find_frames find_recording find_seq recordings_of "
            "settle_spikes"
        ),
    },
    "pipeline.report.sources": {
        "pipeline.report.material": "Sources:ReportMaterial",
    },
    "pipeline.restore": {
        "pipeline.restore.record": "RECORD RestoreError restored_files",
        "pipeline.restore.job": (
            "LAG_EXPOSURES RestoreManifestSummary RestoreSummary restore_manifest"
        ),
    },
    "pipeline.simulate": {
        "pipeline.simulate.clips": (
            "Clip:SourceClip SPLITS SimulateError folder_clips scene_clips"
        ),
        "pipeline.simulate.rig": "Recording:Rig",
        "pipeline.simulate.job": "SimulateSummary",
        "pipeline.simulate.record": "area_mean record_clip",
    },
    "pipeline.spikes.counts": {
        "pipeline.spikes.reference": "spike_to_voxel voxelize",
    },
    "pipeline.spikes.dat": {
        "pipeline.spikes.reference": "load_spike_dat",
    },
    "pipeline.spikes.geometry": {
        "pipeline.spikes.presets": "PRESETS SpikePreset parse_geometry",
    },
    "pipeline.store": {
        "pipeline.sequences.contract": "Span WindowSequence",
        "pipeline.storage.base": "StoreError",
        "pipeline.sequences.stored": "StoreSequence open_store",
        "pipeline.sequences.unified": "UnifiedSequence open_unified open_windows",
        "pipeline.voxelize.job": "VoxelizeSummary voxelize_manifest",
    },
    "pipeline.store.arrays": {
        "pipeline.storage.base": "StoreWriteError",
    },
    "pipeline.store.check": {
        "pipeline.voxelize.check": "Finding:StoreFinding",
    },
    "pipeline.store.compare": {
        "pipeline.voxelize.compare": "Job:VoxelizeJob",
    },
    "pipeline.store.place": {
        "pipeline.storage.folder": "Folder MAPPED_FILES",
        "pipeline.storage.locate": "open_place:open_storage",
        "pipeline.storage.base": "Place:Storage",
    },
    "pipeline.store.schema": {
        "pipeline.storage.base": "StoreWriteError",
    },
    "pipeline.store.sources": {
        "pipeline.storage.fetch": "fetch",
        "pipeline.voxelize.sources": "Sources:ManifestSources",
    },
    "pipeline.store.task": {
        "pipeline.voxelize.plan": "ShardTask",
    },
    "pipeline.torch_methods": {
        "pipeline.methods.path": "PathMethod",
    },
    "pipeline.trained": {
        "pipeline.weights.exported": (
            "FORMAT HEADER SCHEMA_VERSION SUFFIX TrainedModelError describe_model"
        ),
        "pipeline.trained.model_file": (
            "export_model fetched find_model require_free source_name weights_file write_model"
        ),
    },
    "pipeline.training.checkpoint": {
        "pipeline.train.run.checkpoint": "write_checkpoint",
    },
    "pipeline.training.order": {
        "pipeline.train.data.order": "Clip:IndexedClip",
    },
    "pipeline.training.run_folder": {
        "pipeline.train.run.runs": "RunFolderError read_metrics",
    },
    "pipeline.training.schedule": {
        "pipeline.train.optimizer": "learning_rate:learning_rate_at",
    },
    "pipeline.training.step": {
        "pipeline.train.optimizer": "parameter_groups",
    },
    "pipeline.view": {
        "pipeline.view.recordings": "Clip:ViewedClip",
    },
    "pipeline.view.clips": {
        "pipeline.view.recordings": "Clip:ViewedClip Group:ViewedGroup",
    },
}
"""Names that went elsewhere, by the module that had them; those renamed as `old:new`."""

_TOP = __name__.rpartition(".")[0] + "."
_told: set[str] = set()


def serve_old_names() -> None:
    """Let imports find what has moved; called once, when the package is imported."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder, Loader):
    """Finds modules that are gone, and completes those that lost some of their names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        old = fullname.removeprefix(_TOP)
        if old in MODULES:
            is_package = any(other.startswith(f"{old}.") for other in MODULES)
            return ModuleSpec(fullname, self, is_package=is_package)
        spec = PathFinder.find_spec(fullname, path, target) if old in NAMES else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_complete(module: ModuleType) -> None:
                run(module)
                _complete(module, old)

            spec.loader.exec_module = run_and_complete  # type: ignore[method-assign]
        return spec

    def get_code(self, fullname: str) -> Any:
        """Return the code that `python -m` runs."""
        name = _TOP + MODULES[fullname.removeprefix(_TOP)]
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        return cast(InspectLoader, spec.loader).get_code(name)

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.removeprefix(_TOP)
        _tell(old, *dict.fromkeys([MODULES[old], *NAMES.get(old, {})]))
        _complete(module, old)


def _complete(module: ModuleType, old: str) -> None:
    """Give a module the names that were in the old one."""
    homes: dict[str, tuple[str, str]] = {}
    for home, names in NAMES.get(old, {}).items():
        for name, _, new in (one.partition(":") for one in names.split()):
            homes[name] = home, new or name

    def get(name: str) -> Any:
        home, new = homes.get(name, (MODULES.get(old), name))
        if home is None or name.startswith("__"):
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        if old not in MODULES or new != name:  # of one that is gone, its import has told
            _tell(f"{old}.{name}", f"{home}.{new}")
        return getattr(import_module(_TOP + home), new)

    module.__getattr__ = get  # type: ignore[method-assign]


def _tell(old: str, *new: str) -> None:
    if old not in _told:
        _told.add(old)
        places = " and ".join(_TOP + place for place in new)
        text = f"{_TOP}{old} is now {places}; the old name goes with the next release"
        warnings.warn(text, FutureWarning, stacklevel=3)
