"""The align stage: a data set's folders in, an alignment log and a manifest out.

First everything is planned: the layout pairs files by name, and each sequence gets its geometry
and clock. Only then are spikes read, one sequence a task.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...version import __version__
from ..frames.images import image_shape
from ..frames.listing import left_out_around, shorten
from ..host.locks import only_writer_of
from ..host.reporter import SILENT, Reporter, Sized, counted
from ..host.threads import thread_pool
from ..spikes.between import Between, none_exposed
from ..spikes.frame_grid import size_warning
from ..spikes.registration import Registration
from .calibration import read_calibration
from .correct_clock import with_calibration
from .layouts import AlignmentError, FoundSequence, choose_layout
from .manifest import AlignedSequence, Manifest, relative_root
from .measure.dataset import find_owners, measure, with_clock_seen, with_space_seen
from .named_sensor import UNCORRECTED
from .part import with_part
from .plan import common_fps, count_spikes, incomplete, plan_sequence, with_clock
from .plot import require_page_free, write_page
from .products import read_former, write_products
from .settings import AlignOptions, settle_sequence


def align(
    root: str | os.PathLike[str],
    layout: str,
    *,
    log: str | os.PathLike[str],
    manifest: str | os.PathLike[str],
    options: AlignOptions | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Align a data set and write its log and manifest.

    What has not changed since the former manifest (path, size, mtime_ns and settings) is taken
    over from it. The same data gives the same bytes, whatever the number of workers.

    Args:
        root: the data set's folder.
        layout: a name in `layouts.LAYOUTS`, `auto`, or a layout file.
        log: alignment log to write.
        manifest: manifest to write.
        options: how to read the data set; None: as the layout and side files say.
        overwrite: replace a log, manifest or page that `align` did not write.
        workers: sequences at once; None: one a core, at most 8.
        reporter: hears each sequence, and all warnings at the end; with `options.strict` the
            error lists them instead.

    Returns:
        The manifest that was written.

    Raises:
        AlignmentError: files missing or in disagreement, or, if strict, any warning.
        SpikeDeblurError: a file that can't be read; its message names it.
    """
    root, log, manifest = Path(root), Path(log), Path(manifest)
    options = options or AlignOptions()
    chosen, reason = choose_layout(root, layout)
    if reason is not None:
        reporter.note(f"Layout {chosen.NAME}, by {reason}")
    if options.variant not in (None, *chosen.VARIANTS):
        raise AlignmentError(
            f"--variant {options.variant}: the layout {chosen.NAME} has "
            f"{' and '.join(chosen.VARIANTS) or 'no variants'}; correct the option or leave it out"
        )
    if workers is not None and workers < 1:
        raise AlignmentError(f"expected workers of 1 or more, found {workers}")
    if log.resolve() == manifest.resolve():
        raise AlignmentError(f"{log}: log and manifest need different names; give --manifest")
    if options.plot is not None:
        require_page_free(options.plot, overwrite=overwrite)
    with only_writer_of(log), only_writer_of(manifest):
        former = read_former(log, manifest, overwrite=overwrite)
        found = chosen.find(root, options.exposure, options.variant)
        windows = [window for sequence in found for window in sequence.windows]
        used = (path for w in windows for path in (w.blur, w.sharp, w.spikes) if path is not None)
        for sentence in left_out_around(root, used):
            reporter.note(sentence)
        paired = with_clock(root, found, options.camera)
        calibration = options.spikes.calibration
        run = _Run(
            root=root,
            options=options,
            fps=common_fps(root, paired, options.fps),
            calibration=None if calibration is None else read_calibration(calibration),
            former=_unchanged_folder(former, root, manifest),
        )
        with thread_pool(workers, "align") as pool:
            done: list[_Done] = []
            work = Sized(reporter, [run.size(sequence) for sequence in paired])
            for aligned in pool.map(run.align_one, paired):
                done.append(aligned)
                work.did(aligned.sequence.seq)
            done = _inside(done, paired, options, reporter)
            # Only now is it known whose spikes may have been exchanged with whose.
            sequences = find_owners([aligned.sequence for aligned in done], root, pool.map)
        exposures = {sequence.exposure for sequence in paired}
        lights = {aligned.linear_light for aligned in done}
        result = Manifest(
            version=__version__,
            layout=chosen.NAME,
            root=relative_root(root, manifest),
            fps=run.fps,
            exposure_frames=exposures.pop() if len(exposures) == 1 else None,
            linear_light=lights.pop() if len(lights) == 1 else None,
            split=former.split if former is not None and run.former else None,
            sequences=tuple(sequences),
        )
        if (options.verify or options.estimate) and any(s.sensor for s in sequences):
            reporter.note(UNCORRECTED)
        warnings = run.warnings(done, result)
        if options.strict and warnings:
            raise AlignmentError(
                f"{counted(len(warnings), 'warning')} with --strict: " + "; ".join(warnings)
            )
        for warning in warnings:
            reporter.warn(warning)
        write_products(log, manifest, result)
        if options.plot is not None:
            with thread_pool(workers, "plot") as pool:
                write_page(options.plot, result, root, pool.map)
        return result


@dataclass(frozen=True, slots=True)
class _Done:
    sequence: AlignedSequence
    warnings: tuple[str, ...]
    linear_light: bool | None
    left_out: list[Between]
    """Frames that are not exposed wholly in the part of the recording that is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What holds for all sequences of one run."""

    root: Path
    options: AlignOptions
    fps: float
    """Sharp frames a second, in Hz."""
    calibration: Registration | None
    former: dict[str, AlignedSequence]
    """Sequences of the former run, by seq."""

    def size(self, paired: FoundSequence) -> float:
        """Return about how much work a sequence is; one of the former run is hardly any."""
        return len(paired.windows) * (0.02 if paired.seq in self.former else 1)

    def align_one(self, paired: FoundSequence) -> _Done:
        """Plan a sequence, correct its clock as far as asked, count its spikes, verify it."""
        options, root, former = self.options, self.root, self.former.get(paired.seq)
        settings, linear_light = settle_sequence(paired, options.spikes, self.fps)
        warnings = [
            f"{paired.seq}: {warning}"
            for warning in (*paired.warnings, *incomplete(paired), *settings.warnings)
        ]
        planned = plan_sequence(paired, root, settings, self.fps, options.instants)
        left_out: list[Between] = []
        if options.spikes.between is not None:
            planned, left_out = with_part(planned, options.spikes.between)
            if not planned.windows:
                return _Done(planned, (), linear_light, left_out)
        if former is not None:
            planned = planned.model_copy(update={"assigned_split": former.assigned_split})
        if self.calibration is not None:
            planned = with_calibration(planned, root, self.calibration)
        elif options.estimate_space is not None:
            planned, more = with_space_seen(
                planned, root, options.estimate_space, former, any_lag=options.estimate
            )
            warnings += more
        if options.estimate:
            planned, more = with_clock_seen(planned, root, former)
            warnings += more
        if former is not None and former.plan() == planned.plan():
            update = {"verification": planned.verification, "space": planned.space}
            sequence = former.model_copy(update=update)
        else:
            sequence = count_spikes(paired, planned, root)
        if (options.verify or options.estimate) and sequence.verification is None:
            measured = measure(sequence, root, former)
            sequence = sequence.model_copy(update={"verification": measured})
        if planned.space is None and (options.verify or options.estimate):
            frames = image_shape(root / planned.windows[0].blur)
            odd = size_warning(frames, planned.spike_geometry().shape)
            warnings += [] if odd is None else [f"{planned.seq}: {odd}"]
        return _Done(sequence, tuple(warnings), linear_light, left_out)

    def warnings(self, done: list[_Done], result: Manifest) -> list[str]:
        """Return all warnings, by sequence."""
        warnings: list[str] = []
        for before, sequence in zip(done, result.sequences, strict=True):
            warnings += before.warnings
            if sequence.verification is not None and sequence.verification.open_warning:
                warnings.append(f"{sequence.seq}: {sequence.verification.open_warning}")
        new = [sequence.seq for sequence in result.sequences if sequence.seq not in self.former]
        if result.split is not None and new:
            warnings.append(
                f"{shorten(new)}: new since `spikedeblur split`, and in the split of their "
                "folders; run it again to deal them out"
            )
        return warnings


def _inside(
    done: list[_Done], paired: list[FoundSequence], options: AlignOptions, reporter: Reporter
) -> list[_Done]:
    """Return the sequences of which something lies in the part that is read, and tell how many.

    Raises:
        AlignmentError: none does.
    """
    between = options.spikes.between
    if between is None:
        return done
    kept = [one for one in done if one.sequence.windows]
    left_out = [each for one in done for each in one.left_out]
    if not kept:
        raise AlignmentError(none_exposed(paired[0].windows[0].spikes, between, left_out))
    reporter.note(f"{counted(len(left_out), 'frame')} not exposed wholly in {between}: left out")
    return kept


def _unchanged_folder(
    former: Manifest | None, root: Path, manifest: Path
) -> dict[str, AlignedSequence]:
    """Return the former run's sequences, if it was of this folder and of this version."""
    if former is None or former.version != __version__:
        return {}
    if former.root_folder(manifest) != root.resolve():
        return {}
    return {sequence.seq: sequence for sequence in former.sequences}
