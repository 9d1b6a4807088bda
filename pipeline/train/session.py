"""Set-up of a run before its first step, which `train`, `plan_run` and `find_rate` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...configs.schema import Config
from ...model import build_model, configured_recompute
from ...third_party.VRT import set_recompute
from ..host.reporter import SILENT, Reporter
from ..sequences.contract import WindowSequence
from ..sequences.provenance import warning_of
from ..weights.checkpoint import forms_of, outline_that_fits, without_pretrained
from ..weights.files import checkpoint_path
from .data.splits import Splits, open_splits
from .distributed import Group
from .memory_advice import require_room
from .memory_budget import Trial, fit_in_budget
from .objective import Objective
from .optimizer import total_steps
from .precision import Precision, cpu_computes_bf16
from .run import folder as run_folder
from .run.wandb import require_wandb
from .step import Learner

NO_BF16 = (
    "warning: TRAIN.AMP is bf16, but this CPU has no instructions for it and takes about 12 times "
    "the time of float32; TRAIN.AMP=auto chooses by the device"
)


def find_start(
    config: Config, group: Group, run: Path, *, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """Return the content of the checkpoint that a run goes on from; None: it begins anew.

    Raises:
        UnsafePathError: a folder in the run folder is a link that leaves it.
        RunFolderError: the folder holds a run that is neither continued nor replaced, or one that
            was begun with another configuration.
        CheckpointError: the checkpoint can't be read.
    """
    run_folder.own_folders(run)
    if resume:
        return run_folder.read_resumable(run, config)
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
            "(other sequences, windows, sources or weights of stores); restore it, or use another "
            "--run"
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
        SampleError: the crop does not fit the frames, or frames and voxels don't fit each other.
        RunFolderError: the data are not those of `state`.
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
        self.precision = Precision.choose(options.AMP, group.device)
        self.recompute = configured_recompute(config.MODEL)
        """Parts of the network that a step computes twice."""
        self.trial: Trial | None = None
        """Memory and time of a step, where TRAIN.MEMORY_BUDGET had it tried."""
        self.training = splits.training_samples(config)
        self.validation = splits.validation_samples(config)
        begun = 0 if state is None else state["samples_a_step"]
        self.plan = splits.plan(config, self.training.index, group.rank, group.world, begun)
        self.steps = total_steps(options, self.plan.steps_an_epoch)
        """Steps of the whole run."""
        self.data = splits.describe()
        """Content of the training split."""
        if state is not None:
            require_same_data(state, self.data)
            assert state["total_steps"] == self.steps  # configuration and data are equal

    @classmethod
    def open(
        cls,
        config: Config,
        group: Group,
        *,
        run: Path = Path(),
        state: dict[str, Any] | None = None,
        reporter: Reporter = SILENT,
    ) -> Session:
        """Open all that a configuration names, and refuse what can't be trained.

        Args:
            config: the whole configuration.
            group: the processes, and this one's device.
            run: run folder; it is not looked at here.
            state: content of its last checkpoint, if the run goes on.
            reporter: hears which parts are recomputed.

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
            for weights in filter(None, (state["model"], state["ema"])):
                outline_that_fits(config, forms_of(weights, path), path)
        splits = Splits(*open_splits(config))
        if found := splits.findings():
            reporter.warn(warning_of(found))
        torch.manual_seed(config.TRAIN.SEED)
        model = build_model(config if state is None else without_pretrained(config))
        session = cls(config, group, objective, model, splits, run=run, state=state)
        low = session.precision.dtype == torch.bfloat16 and group.device.type == "cpu"
        if low and not cpu_computes_bf16():
            reporter.note(NO_BF16)
        if splits.parts:
            reporter.note(f"stores: {splits.mixture(config.DATA.CLIP_LEN)}")
        plan = session.plan
        if plan.accumulation * plan.batch_size * plan.world != plan.samples_a_step:
            reporter.note(
                f"a step keeps the {plan.samples_a_step} clips that the run began with; "
                f"{plan.world} processes take them in {plan.batches_a_step} batches of at most "
                f"{plan.batch_size}"
            )
        if config.TRAIN.MEMORY_BUDGET is not None:
            session.recompute, session.trial = recompute, trial = group.on_first(
                lambda: fit_in_budget(
                    config,
                    group.device,
                    reporter,
                    world=group.world,
                    batches=plan.batches_a_step,
                )
            )
            set_recompute(model, recompute)
            reporter.note(
                f"recomputing {recompute}: a step takes {trial.peak_bytes / 1e9:.2f} GB and "
                f"{trial.seconds:.2f} s"
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
            some_unused=1 in self.training.index.length or self.config.DATA.SPIKE_AUGMENT.THIN > 0,
        )
        if self.state is not None:
            learner.restore(self.state, checkpoint_path(self.run, "last"))
        return learner
