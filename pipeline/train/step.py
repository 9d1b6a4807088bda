"""A step of training: the gradient of its batches, and all that it changes."""

from __future__ import annotations

import itertools
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ...third_party.VRT import compile_blocks
from ..host.device_memory import explained_shortage
from ..weights.files import CheckpointError
from .clock import Clock
from .data.loader import Batch
from .data.order import IN_NETWORK, THINNING, seed_of
from .distributed import Group
from .ema import averaged_copy, update_average
from .memory_advice import training_advice
from .objective import psnr, to_inputs
from .optimizer import ema_decay, parameter_groups
from .precision import Precision


class NonFiniteError(SpikeDeblurError):
    """The loss or the gradient is not a finite number; the weights were not touched by it."""


class StepResult(NamedTuple):
    """Loss, PSNR and gradient of a step, before it changed the weights."""

    loss: float
    """Mean over the samples of all processes."""
    psnr: float
    """Mean over the same samples, dB."""
    gradient_norm: float
    """Norm before clipping; not finite where fp16 overflowed and the step was left out."""


def keep_compiled() -> None:
    """Have the compiler keep its code where the next start finds it, unless the user says where.

    The folder is `$XDG_CACHE_HOME/spikedeblur/compiled` (`~/.cache` where it isn't set). Torch
    itself keeps it in the folder of temporary files, which computers empty when they start.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(caches, "spikedeblur", "compiled")))


class Learner:
    """Weights, their average, the optimizer and the gradient's scale: all that steps change.

    Args:
        config: its TRAIN and DATA sections are read here.
        group: the processes, and this one's device.
        model: on the device; called as `model(blur, voxels)`, and with `instants` if batches have
            these.
        objective: called as `objective(output, sharp)`.
        precision: numbers that the forward pass computes in.
        some_unused: some parameters may get no gradient in a step.
    """

    def __init__(
        self,
        config: Config,
        group: Group,
        model: nn.Module,
        objective: nn.Module,
        precision: Precision,
        *,
        some_unused: bool = False,
    ) -> None:
        options = config.TRAIN
        self.config, self.group, self.precision = config, group, precision
        self.model, self.objective = model, objective
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, options.OPTIM),
            lr=options.OPTIM.LR,
            weight_decay=options.OPTIM.WEIGHT_DECAY,
            fused=True,  # one pass over all weights; 2 against 12 ms a step for the quickstart's
        )
        self.averages = {decay: averaged_copy(model) for decay in options.ema_decays}
        """Averaged weights by their decay; empty: none are kept."""
        self.best_decay = next(iter(self.averages), None)
        """Decay of the average that the last validation found best."""
        model.train()
        if options.COMPILE:
            keep_compiled()
            compile_blocks(model)
        self.wrapped = group.wrap(model, some_unused=some_unused)
        """The model, with its gradients averaged over the processes."""
        self.scaler = precision.scaler()
        self.is_whole = True
        """Whether all that steps change is of one step; not so where an update was cut short."""

    def state(self) -> dict[str, Any]:
        """Return all that steps change, as a checkpoint holds it."""
        averages = {decay: average.state_dict() for decay, average in self.averages.items()}
        several = {"averages": averages, "ema_decay": self.best_decay}
        return {
            "model": self.model.state_dict(),
            "ema": None if self.best_decay is None else averages[self.best_decay],
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        } | (several if len(averages) > 1 else {})

    def kept(self) -> list[tuple[float | None, nn.Module]]:
        """Return the averages, each after its decay, or the model itself where there are none."""
        return [*self.averages.items()] or [(None, self.model)]

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go back to what `state` returned.

        Args:
            state: content of a checkpoint whose weights fit the network.
            path: file of the checkpoint, for the message.

        Raises:
            CheckpointError: the optimizer has other parameter groups.
        """
        own = [(part["scale"], part["weight_decay"]) for part in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        self.best_decay = state.get("ema_decay", self.best_decay)
        averages = state.get("averages", {self.best_decay: state["ema"]})
        for decay, average in self.averages.items():
            average.load_state_dict(averages[decay])
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"{path}: its optimizer does not fit this release ({error}); continue with the "
                "one that the run was begun with"
            ) from error
        for part, (scale, weight_decay) in zip(self.optimizer.param_groups, own, strict=True):
            part.update(scale=scale, weight_decay=weight_decay)
        if state["scaler"]:  # empty, where TRAIN.AMP was not fp16 before
            self.scaler.load_state_dict(state["scaler"])

    def step(
        self, batches: list[Batch], done: int, learning_rate: float, clock: Clock, *, raw: bool
    ) -> StepResult:
        """Change the weights once, by the mean gradient of some batches.

        Args:
            batches: batches of this process.
            done: steps before this one.
            learning_rate: learning rate of the parameters whose `scale` is 1.
            clock: counts the time of each part.
            raw: voxels are counts or light; else log1p is done already.

        Raises:
            NonFiniteError: a loss or the gradient is not finite; raised on all processes alike.
            NotEnoughMemoryError: memory does not suffice; the message names settings that help.
        """
        for settings in self.optimizer.param_groups:
            settings["lr"] = learning_rate * settings["scale"]
        with explained_shortage(f"step {done + 1}", training_advice(self.config)):
            return self._step(batches, done, clock, raw=raw)

    def _step(self, batches: list[Batch], done: int, clock: Clock, *, raw: bool) -> StepResult:
        optim = self.config.TRAIN.OPTIM
        frozen = {
            "flow": done < max(optim.FLOW_FROZEN_STEPS, optim.BACKBONE_FROZEN_STEPS),
            "backbone": done < optim.BACKBONE_FROZEN_STEPS,
        }
        loss, quality = self._backward(batches, clock, done, raw=raw)
        clock.start("optimizer")
        for settings in self.optimizer.param_groups:
            if frozen.get(settings["part"]):
                for parameter in settings["params"]:
                    parameter.grad = None  # neither clipped with the others nor followed
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.TRAIN.GRAD_CLIP or math.inf
        ).item()
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise self._not_finite(done, f"the gradient's norm is {norm}", batches)
        self.is_whole = False
        self.scaler.step(self.optimizer)  # leaves the step out if fp16 overflowed
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        for decay, average in self.averages.items():
            update_average(average, self.model, ema_decay(decay, done))
        self.is_whole = True
        clock.start("other")
        return StepResult(loss, quality, norm)

    def _backward(
        self, batches: list[Batch], clock: Clock, done: int, *, raw: bool
    ) -> tuple[float, float]:
        """Accumulate the gradient of a step; return mean loss and PSNR over its samples."""
        group, data, seed = self.group, self.config.DATA, self.config.TRAIN.SEED
        sums = torch.zeros(2, dtype=torch.float64, device=group.device)
        finite: list[torch.Tensor] = []
        for number, batch in enumerate(batches, 1):
            clock.start("to_device")
            inputs = to_inputs(
                batch,
                group.device,
                data.NORM,
                raw=raw,
                augment=data.SPIKE_AUGMENT,
                thinning=seed_of(seed, THINNING, done),
            )
            asked = {"instants": batch["instant"]} if "instant" in batch else {}
            torch.manual_seed(seed_of(seed, IN_NETWORK, done, batch["place"]))
            # Gradients are exchanged once a step, in the last batch's backward pass.
            exchange = number == len(batches) or group.world == 1
            with nullcontext() if exchange else self.wrapped.no_sync():  # type: ignore[operator]
                clock.start("forward")
                with self.precision.autocast():
                    output = self.wrapped(inputs.blur, inputs.voxels, **asked)
                output = output.float()
                loss = self.objective(output, inputs.sharp)
                clock.start("backward")
                self.scaler.scale(loss * batch["weight"]).backward()
            clock.start("other")
            mean_psnr = psnr(output, inputs.sharp).mean()
            sums += torch.stack([loss.detach(), mean_psnr]).double() * batch["weight"]
            finite.append(torch.isfinite(loss.detach()))
        # All is read at once: before, a GPU would wait for the next batch, not the batch for it.
        loss_sum, psnr_sum, *are_finite = torch.cat([sums, torch.stack(finite).double()]).tolist()
        bad = [batch for batch, is_finite in zip(batches, are_finite, strict=True) if not is_finite]
        loss_sum, psnr_sum, any_bad = group.sum([loss_sum, psnr_sum, float(len(bad))])
        if any_bad:
            raise self._not_finite(done, f"the loss is {loss_sum}", bad)
        return loss_sum / group.world, psnr_sum / group.world

    def _not_finite(self, done: int, finding: str, batches: list[Batch]) -> NonFiniteError:
        """Return the error of a step, with the samples that all processes name."""
        samples = [
            f"{seq} frames {frames[0]}-{frames[-1]}"
            for batch in batches
            for seq, frames in zip(batch["seq"], batch["frame_index"], strict=True)
        ]
        names = list(itertools.chain(*self.group.gather(samples)))
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return NonFiniteError(
            f"step {done + 1}: {finding} (samples: {', '.join(names[:8])}{more}); the weights are "
            f"those of step {done}. Look at these samples, lower TRAIN.OPTIM.LR, set "
            "TRAIN.AMP=off, or go on with --resume --set TRAIN.NON_FINITE=skip"
        )
