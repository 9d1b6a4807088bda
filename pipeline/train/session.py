"""Set-up of a run before its first step, which `train`, `plan_run` and `find_rate` share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...configs.schema import Config
from ...model import build_model, configured_recompute
from ...third_party.VRT import set_recompute
from ..host.machine import MEMORY
from ..host.reporter import SILENT, Reporter, counted
from ..sequences.contract import WindowSequence
from ..sequences.provenance import warning_of
from ..weights.checkpoint import checkpoint_config, forms_of, outline_that_fits, without_pretrained
from ..weights.files import checkpoint_path
from ..weights.find import Init
from ..weights.initial import start_from
from .data.samples import SampleError
from .data.splits import Splits, open_splits
from .distributed import Group
from .memory_advice import require_room
from .memory_budget import Trial, fit_in_budget, require_step_fits
from .objective import Objective
from .optimizer import decay_start, total_steps
from .phases import Phase, phase_configs, phase_seed, pixels
from .precision import Precision, cpu_computes_bf16
from .run import folder as run_folder
from .run.continuation import Continuation, continue_run
from .run.wandb import require_wandb
from .step import Learner

NO_BF16 = (
    "warning: TRAIN.AMP is bf16, but this CPU has no instructions for it and takes about 12 times "
    "the time of float32; TRAIN.AMP=auto chooses by the device"
)


def find_start(
    config: Config,
    group: Group,
    run: Path,
    *,
    resume: bool,
    overwrite: bool,
    has_init: bool = False,
) -> dict[str, Any] | None:
    """Return the content of the checkpoint that a run goes on from; None: it begins anew.

    Args:
        config: the run's configuration.
        group: the processes.
        run: run folder.
        resume: go on from the last checkpoint, if there is one.
        overwrite: replace a run that is in the folder.
        has_init: whether weights are given, in case it begins anew.

    Raises:
        UnsafePathError: a folder in the run folder is a link that leaves it.
        RunFolderError: the folder holds a run that is neither continued nor replaced, one that was
            begun with another configuration, or one without a checkpoint whose weights to begin
            with are not given again.
        CheckpointError: the checkpoint can't be read.
    """
    run_folder.own_folders(run)
    if resume:
        state = run_folder.read_resumable(run, config)
        if state is None and not has_init:
            run_folder.require_own_start(run)
        return state
    group.on_first(lambda: run_folder.require_new(run, overwrite=overwrite))
    return None


def require_same_data(state: dict[str, Any], data: dict[str, Any]) -> None:
    """Refuse a training split that a run was not begun with.

    Args:
        state: content of the run's checkpoint.
        data: description of the split, from `Splits.describe`.

    Raises:
        RunFolderError: it is another one.
    """
    if state["data"] != data["sha256"]:
        raise run_folder.RunFolderError(
            "can't continue: the training split is not the one that the run was begun with "
            "(other sequences, windows, sources or weights of stores); restore it, or train on "
            "from these weights with another --run and --init"
        )


class Session:
    """Network, data, loss and plan of a run, checked against each other before its first step.

    Args:
        config: the whole configuration.
        group: the processes, and this one's device.
        objective: called as `objective(output, sharp)`.
        model: network with the weights that a new run starts from; called as
            `model(blur, voxels)`.
        splits: sequences of the training and of the validation split.
        run: run folder, for `fit` and for messages about `state`.
        state: content of the checkpoint that the run goes on from; None: it begins anew.

    Raises:
        SampleError: the crop does not fit the frames, frames and voxels don't fit each other, or
            the device can't be given spikes.
        RunFolderError: the data are not those of `state`, or it has done more steps than the run
            has.
        CheckpointError: the checkpoint from before the decay is needed, and can't be read.
    """

    def __init__(
        self,
        config: Config,
        group: Group,
        objective: nn.Module,
        model: nn.Module,
        splits: Splits | tuple[Sequence[WindowSequence], Sequence[WindowSequence]],
        *,
        run: Path = Path(),
        state: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.group, self.run, self.state = config, group, run, state
        self.objective, self.model = objective, model
        options = config.TRAIN
        self.splits = splits = Splits(*splits)
        self.packed, self.packing_note = splits.packs(config, group.device)
        """Whether samples hold packed spikes, of which the device makes counts or light; and a note
        where it is left to loading processes."""
        self.precision = Precision.choose(options.AMP, group.device)
        self.recompute = configured_recompute(config.MODEL)
        """Parts of the network that a step computes twice."""
        self.init: dict[str, Any] | None = None
        """Origin of the weights that a new run starts from, as environment.json tells it."""
        self.trial: Trial | None = None
        """Memory and time of a step, where one was tried: for TRAIN.MEMORY_BUDGET, or a limit."""
        clips = {} if state is None else self._clips_a_step(state)
        self.phases = [
            self._phase(start, part, clips.get(start, 0)) for start, part in phase_configs(config)
        ]
        """Samples and plan of each of TRAIN.PHASES; most runs have one."""
        self.training, self.plan = self.phases[0].training, self.phases[0].plan
        self.validation = splits.validation_samples(config, packed=self.packed)
        self.steps = total_steps(options, self.plan.steps_an_epoch)
        """Steps of the whole run."""
        self.data = splits.describe()
        """Content of the training split."""
        self.validated_on = splits.hash_validation(options.VAL_MAX_WINDOWS)
        """Hash of what is validated on."""
        falls = options.SCHEDULER.TYPE == "cosine"
        self.decay_start = None if falls else decay_start(options, self.steps)
        """Steps before the decay, whose checkpoint is kept; None: the rate falls all along."""
        self.continuation: Continuation | None = None
        """What is new of a run that goes on; None: it begins."""
        if state is not None:
            require_same_data(state, self.data)
            self._require_same_phases(state)
            self.continuation = continue_run(state, config, self.steps, run, self.validated_on)
            self.state = self.continuation.state

    def _phase(self, start: int, config: Config, clips: int) -> Phase:
        """Return a phase that begins at a step; `clips` a step, or as many as it says itself."""
        seed = phase_seed(config.TRAIN.SEED, start)
        train = config.TRAIN.model_copy(update={"SEED": seed})
        config = config.model_copy(update={"TRAIN": train})
        try:
            samples = self.splits.training_samples(config, packed=self.packed)
        except SampleError as error:
            if not self.config.TRAIN.PHASES:
                raise
            raise SampleError(f"TRAIN.PHASES: from step {start} on: {error}") from error
        group = self.group
        plan = self.splits.plan(config, samples.index, group.rank, group.world, clips)
        return Phase(start, config, samples, plan)

    def _clips_a_step(self, state: dict[str, Any]) -> dict[int, int]:
        """Return the clips a step of the phases that keep theirs, by their first step."""
        before = checkpoint_config(state, checkpoint_path(self.run, "last"))
        kept = before.TRAIN.PHASES == self.config.TRAIN.PHASES
        return {
            start: clips
            for start, _, _, clips in self._phases_of(state)
            if kept or start < max(state["step"], 1)
        }

    def _phases_of(self, state: dict[str, Any]) -> list[list[int]]:
        """Return `Phase.facts` of each phase that the run had."""
        data = checkpoint_config(state, checkpoint_path(self.run, "last")).DATA
        alone = [0, data.CROP_SIZE, data.CLIP_LEN, state["samples_a_step"]]
        return list(state.get("phases", [alone]))

    def phase_of(self, step: int) -> Phase:
        """Return the phase of a step; of those before the first one, too."""
        begun = [phase for phase in self.phases if phase.start <= step]
        return begun[-1] if begun else self.phases[0]

    @property
    def largest_phase(self) -> Phase:
        """The phase whose steps take the most memory."""
        return max(self.phases, key=lambda phase: pixels(phase.config))

    @classmethod
    def open(
        cls,
        config: Config,
        group: Group,
        *,
        run: Path = Path(),
        state: dict[str, Any] | None = None,
        init: Init | None = None,
        reporter: Reporter = SILENT,
    ) -> Session:
        """Open all that a configuration names, and refuse what can't be trained.

        Args:
            config: the whole configuration.
            group: the processes, and this one's device.
            run: run folder; it is not looked at here.
            state: content of its last checkpoint, if the run goes on.
            init: weights that a new run starts from; not read where there is a state.
            reporter: hears which parts are recomputed, and what is taken of the weights.

        Raises:
            SpikeDeblurError: a package, the loss's or the network's weights, the data, memory or
                the checkpoint does not allow this run; the message says what to do.
        """
        require_wandb(config)
        if config.TRAIN.THREADS is not None:
            torch.set_num_threads(config.TRAIN.THREADS)
        objective = Objective(config.LOSS).to(group.device)
        if state is None:
            require_room(config)
        else:
            path = checkpoint_path(run, "last")
            averages = state.get("averages", {}).values()
            for weights in filter(None, (state["model"], state["ema"], *averages)):
                outline_that_fits(config, forms_of(weights, path), path)
        splits = Splits(*open_splits(config))
        if found := splits.findings():
            reporter.warn(warning_of(found))
        torch.manual_seed(config.TRAIN.SEED)
        anew = state is None
        model = build_model(config if anew else without_pretrained(config), note=reporter.note)
        session = cls(config, group, objective, model, splits, run=run, state=state)
        for name, warning in itertools.islice(splits.size_warnings().items(), 1):
            reporter.warn(f"{name}: {warning}")
        if init is not None and anew:
            session.init = start_from(init, model, config, reporter.note)
        elif init is not None:
            reporter.note("--init is not read: the run goes on from its own weights")
        low = session.precision.dtype == torch.bfloat16 and group.device.type == "cpu"
        if low and not cpu_computes_bf16():
            reporter.note(NO_BF16)
        if session.packing_note is not None:
            reporter.note(session.packing_note)
        if splits.parts:
            reporter.note(f"stores: {splits.mixture(config.DATA.CLIP_LEN)}")
        plan = session.phase_of(0 if session.state is None else session.state["step"]).plan
        if plan.accumulation * plan.batch_size * plan.world != plan.samples_a_step:
            reporter.note(
                f"a step keeps the {counted(plan.samples_a_step, 'clip')} that the run began with, "
                f"{plan.batch_size} at most in a batch of each process (processes: {plan.world}, "
                f"batches a step: {plan.batches_a_step})"
            )
        if config.TRAIN.MEMORY_BUDGET is not None:
            session.recompute, session.trial = recompute, trial = group.on_first(
                lambda: fit_in_budget(
                    config,
                    group.device,
                    reporter,
                    world=group.world,
                    batches=session.largest_phase.plan.batches_a_step,
                )
            )
            set_recompute(model, recompute)
            reporter.note(
                f"recomputing {recompute}: a step takes {trial.peak_bytes / 1e9:.2f} GB and "
                f"{trial.seconds:.2f} s"
            )
        elif os.environ.get(MEMORY) and group.device.type == "cpu":
            session.trial = group.on_first(
                lambda: require_step_fits(
                    config,
                    group.device,
                    group.local_world,
                    reporter,
                    world=group.world,
                    batches=session.largest_phase.plan.batches_a_step,
                )
            )
        return session

    def learner(self) -> Learner:
        """Return the learner on the device, at the run's start or at its checkpoint.

        Raises:
            CheckpointError: the checkpoint's optimizer has other parameter groups.
        """
        learner = Learner(
            self.config,
            self.group,
            self.model.to(self.group.device),
            self.objective,
            self.precision,
            # Clips of one window have no flow between neighbours.
            some_unused=any(1 in phase.training.index.length for phase in self.phases)
            or self.config.DATA.SPIKE_AUGMENT.THIN > 0,
        )
        if self.state is not None:
            learner.restore(self.state, checkpoint_path(self.run, "last"))
        return learner

    def _require_same_phases(self, state: dict[str, Any]) -> None:
        """Refuse other phases than those that have begun, and others to come unless asked for."""
        before = checkpoint_config(state, checkpoint_path(self.run, "last"))
        begun, now = self._phases_of(state), [phase.facts() for phase in self.phases]
        if before.TRAIN.PHASES != self.config.TRAIN.PHASES:
            begun, now = (
                [facts for facts in phases if facts[0] < state["step"]] for phases in (begun, now)
            )
        if begun != now:
            raise run_folder.RunFolderError(
                "can't continue: TRAIN.PHASES: those that have begun, and those to come unless "
                "they are set anew, were [first step, crop, clip length, clips a step] "
                f"{begun}, and are now {now}; set them as they were"
            )
