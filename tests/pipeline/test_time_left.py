"""The time left that commands tell, on a clock that only the parts of their work move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import make_data_set

from spikedeblur.configs import load_config
from spikedeblur.model.motion_deblur import MAPS
from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.evaluate import job as evaluating
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.host import pieces
from spikedeblur.pipeline.host import reporter as reporting
from spikedeblur.pipeline.host.reporter import Parts, Reporter, Sized
from spikedeblur.pipeline.methods import exposures, side_by_side
from spikedeblur.pipeline.methods.make_method import make_method
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.report import page as reports
from spikedeblur.pipeline.report import pictures
from spikedeblur.pipeline.restore import job as restoring
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.simulate import job as simulating
from spikedeblur.pipeline.simulate.clips import SourceClip
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.voxelize import VoxelizeOptions, voxelize_manifest
from spikedeblur.pipeline.voxelize import job as voxelizing


class Clock(Reporter):
    """A clock, and what was told at which time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[float, int, int, float | None]] = []
        self._left: float | None = None

    def remaining(self, seconds: float) -> None:
        self._left = seconds

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.told.append((self.now, done, total, self._left))

    def took(self, seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that takes some time."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            self.now += seconds
            return call(*arguments, **keywords)

        return timed

    def require_honest(self) -> None:
        """The total is told at once, and from a tenth on the time left is right within a third."""
        assert self.told[0][:2] == (0.0, 0)
        assert len({total for _, _, total, _ in self.told}) == 1
        assert self.told[-1][1:] == (self.told[0][2], self.told[0][2], 0.0)
        judged = [(now, left) for now, _, _, left in self.told if now >= self.now / 10]
        assert len(judged) > 10
        for now, left in judged:
            assert left == pytest.approx(self.now - now, rel=1 / 3), f"{now} of {self.now} s"


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(exposures, "threads_that_fit", lambda shape: 1)  # one moves the clock
    monkeypatch.setattr(exposures.Exposures, "_helps", lambda *windows: False)
    monkeypatch.setattr(exposures, "sharp_along_motion", clock.took(5.0, blurred))
    return clock


def blurred(blur: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return blur, torch.zeros_like(blur[:, :1]).expand(-1, MAPS, -1, -1)


def model(clock: Clock, seconds: float, tile: int, clip_len: int) -> ModelMethod:
    """Return a method whose network takes some seconds a pass, and gives its base."""

    class Network(torch.nn.Module):
        def seen_of(self, sharp: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
            return torch.cat([sharp, maps], 1)

        def forward(self, rgb: torch.Tensor, voxels: torch.Tensor, followed: torch.Tensor) -> Any:
            clock.now += seconds
            return followed[:, :, :3]

    config = load_config("configs/deblur/quickstart.yaml", [f"DATA.CLIP_LEN={clip_len}"])
    return ModelMethod(Network(), config, tile=tile, device="cpu")


@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize(("seconds", "clip_len"), [(0.5, 2), (20.0, 1), (20.0, 2)])
def test_evaluate_knows_how_long_it_will_take(
    clock, moving_scene, tile, seconds, clip_len, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(evaluating, "psnr", clock.took(0.02, evaluating.psnr))
    monkeypatch.setattr(evaluating, "ssims", clock.took(0.3, evaluating.ssims))
    windows = recorded(moving_scene, tmp_path)
    sequences = []
    for i in range(4):
        sequence = RecordingSequence(windows, 32)
        sequence.seq, sequence.has_sharp = f"test/a/{i}", True
        monkeypatch.setattr(sequence, "sharp", lambda a, b: moving_scene.sharp[a:b], raising=False)
        sequences.append(sequence)
    trained = {"model": model(clock, seconds, tile, clip_len)}
    names = ("blur", "tfp", "sdm", "path", "model")
    monkeypatch.setattr(evaluating, "describe_data", lambda sequences: {"sha256": ""})
    monkeypatch.setattr(evaluating, "blur_kinds", lambda sequences: ())
    monkeypatch.setattr(evaluating, "findings", lambda sequences: {})
    evaluating.evaluate_sequences(sequences, names, trained=trained, reporter=clock)
    clock.require_honest()


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(("method", "tile"), [("path", 0), ("model", 0), ("model", 32)])
def test_restore_knows_how_long_it_will_take(
    clock, moving_scene, method, tile, each, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(restoring, "write_png", clock.took(0.4, restoring.write_png))
    monkeypatch.setattr(
        restoring, "require_one_scene", clock.took(1.0, lambda recording, force: (None, []))
    )
    how = {"method": method, "frames_per_exposure": each}
    if method == "model":
        best = tmp_path / "run" / "checkpoints" / "best.pt"
        best.parent.mkdir(parents=True)
        best.write_bytes(b"weights")
        how["run"] = tmp_path / "run"
        network = model(clock, 2.0, tile, 1)
        monkeypatch.setattr(restoring.Restoring, "open", lambda how, run: network)
        how["tile"] = tile
    recordings = [recorded(moving_scene, tmp_path, f"test/a/{i}") for i in range(3)]
    monkeypatch.setattr(restoring, "recordings_of", lambda *named: recordings)
    restoring.restore_manifest(
        tmp_path / "m.json", tmp_path / "out", restoring.Restoring(**how), reporter=clock
    )
    assert clock.told[-1][2] == 9 * each
    clock.require_honest()


@pytest.mark.parametrize("options", [{}, {"kind": "counts"}, {"format": "npy"}])
@pytest.mark.parametrize(("spikes", "windows", "hashes"), [(1, 1, 1), (10, 1, 0.1), (0.1, 10, 5)])
def test_voxelize_knows_how_long_it_will_take(
    clock, tmp_path, monkeypatch, options, spikes, windows, hashes
) -> None:
    manifest = long_recordings(tmp_path, monkeypatch)
    costs = {"spikes": spikes, "windows": windows * 500, "hashes": hashes}
    stop_after(monkeypatch, clock, costs, None)
    how = VoxelizeOptions(**options)
    voxelize_manifest(manifest, tmp_path / "store", how, reporter=clock)
    clock.require_honest()


@pytest.mark.parametrize("stopped_at", [15, 40])
def test_what_a_stopped_run_has_written_takes_no_time(
    clock, tmp_path, monkeypatch, stopped_at
) -> None:
    manifest = long_recordings(tmp_path, monkeypatch)
    costs = {"spikes": 1.0, "windows": 40000.0, "hashes": 0.4}
    with monkeypatch.context() as patch:
        stop_after(patch, clock, costs, stopped_at)
        with pytest.raises(KeyboardInterrupt):
            voxelize_manifest(manifest, tmp_path / "store", reporter=clock)
    clock.now, clock.told = 0.0, []
    stop_after(monkeypatch, clock, costs, None)
    summary = voxelize_manifest(manifest, tmp_path / "store", reporter=clock)
    assert summary.shards_kept
    clock.require_honest()


def long_recordings(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a manifest of sequences of several shards and unequal size, cut from recordings."""
    for module in ("voxelize.plan", "store.schema"):
        monkeypatch.setattr(f"spikedeblur.pipeline.{module}.shard_windows", lambda n, _: min(2, n))
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.SHARD_BYTES", 2000)
    monkeypatch.setattr("spikedeblur.pipeline.voxelize.plan.SHARD_BYTES", 4000)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 500)
    monkeypatch.setattr(pieces, "PLAIN_BYTES", 2000)
    names = tuple(f"train/{letter}" for letter in "abcde")
    data = make_data_set(folder, centres=tuple(range(2, 50, 4)), seqs=names)
    manifest = read_manifest(data.manifest)
    sequences = tuple(
        sequence.model_copy(update={"windows": sequence.windows[:number]})
        for sequence, number in zip(manifest.sequences, (2, 12, 3, 9, 5), strict=True)
    )
    write_manifest(data.manifest, manifest.model_copy(update={"sequences": sequences}))
    return data.manifest


def stop_after(
    patch: pytest.MonkeyPatch, clock: Clock, costs: dict[str, float], tasks: int | None
) -> None:
    """Let tasks move the clock, by bytes of spikes, by windows, by bytes hashed; stop at one."""
    write, done = voxelizing.write_shard, []

    def timed(task: Any) -> Any:
        if len(done) == tasks:
            raise KeyboardInterrupt
        done.append(task)
        kind = "windows" if task.windows else "spikes" if task.runs else "hashes"
        clock.now += costs[kind] * (len(task.windows) or task.nbytes)
        return write(task)

    patch.setattr(voxelizing, "write_shard", timed)


@pytest.mark.parametrize(("seconds", "clip_len"), [(1.5, 2), (3.0, 1), (3.0, 3)])
def test_report_knows_how_long_it_will_take(
    clock, moving_scene, tmp_path, monkeypatch, seconds, clip_len
) -> None:
    windows = RecordingSequence(recorded(moving_scene, tmp_path), 32)
    chosen = [(f"Window {i}", windows, i) for i in (1, 0, 2, 1)]
    methods = [(name, make_method(name)) for name in ("blur", "tfp", "path")]
    methods.append(("model", model(clock, seconds, 32, clip_len)))
    material = SimpleNamespace(sequences=[windows], notes=[], runs=[])
    monkeypatch.setattr(reports, "gather", lambda *named, **others: material)
    monkeypatch.setattr(pictures, "choose_methods", lambda material, restore: methods)
    monkeypatch.setattr(pictures, "choose_windows", lambda material: chosen)
    monkeypatch.setattr(pictures, "to_uri", clock.took(0.3, lambda pixels, **how: ""))
    monkeypatch.setattr(pictures, "play", clock.took(1.0, lambda sequence, window: None))
    monkeypatch.setattr(reports, "render", clock.took(2.0, lambda *shown: ""))
    reports.write_report([tmp_path], reporter=clock)
    clock.require_honest()


def recorded(scene: Any, folder: Any, seq: str = "test/a/0") -> Any:
    """Return a recording of the scene, whose files are in a folder."""
    for centre, frame in zip(scene.centres, scene.blur, strict=True):
        write_png(folder / seq / f"{centre:04d}.png", frame)
    dat = folder / "spike.dat"
    geometry = "48x48,bottom-up"
    write_spikes(dat, scene.spikes, parse_geometry(geometry))
    write_side_file(dat, SideFile(geometry=geometry, rate=scene.rate, gain=scene.gain))
    found = find_recording(
        folder / seq, dat, ExposureTimes(exposure=33, fps=1000.0), SpikeOptions()
    )
    return replace(found, seq=seq)


def test_a_kind_that_was_not_met_is_guessed_and_then_measured(clock) -> None:
    parts = Parts(clock, 4, {"large": 10.0, "small": 1.0, "once": 0.0})
    parts.expect({"large": 2, "small": 4, "once": 1})
    for kind, seconds in (("once", 3.0), ("large", 20.0), ("small", 4.0)):
        clock.now += seconds
        parts.did(kind)
    assert [left for *_, left in clock.told] == [None, None, 20 + 4 * 2, 20 + 3 * 4]
    parts.expect({"small": 2}, done=2)
    clock.now += 8.0
    parts.did("small", finished=1)
    assert clock.told[-1] == (35.0, 3, 4, 6.0)


def test_items_of_unequal_size_are_timed_by_their_size(clock) -> None:
    sizes = [1, 2, 1, 30, 1, 1, 2, 40, 1, 1, 3, 20, 5, 5, 5]
    work = Sized(clock, sizes)
    for size in sizes:
        clock.now += 0.1 * size
        work.did()
    clock.require_honest()


def test_frames_side_by_side_are_those_of_one_thread(moving_scene, tmp_path, monkeypatch) -> None:
    windows = RecordingSequence(recorded(moving_scene, tmp_path), 32)
    found = {}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            monkeypatch.setattr(exposures, "threads_that_fit", lambda shape, n=threads: n)
            torch.set_num_threads(threads)  # with which torch's results differ in the last bits
            several = exposures.Exposures(windows)
            several.expect(range(3))
            found[threads] = torch.cat([several.sharp(i)[0] for i in range(3)]).numpy()
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_array_equal(found[1], found[3])


@pytest.mark.parametrize(("free", "expected"), [(1e12, 6), (10e6, 3), (2e6, 1), (0, 1)])
def test_as_many_frames_as_memory_holds_are_found_at_once(monkeypatch, free, expected) -> None:
    monkeypatch.setattr(side_by_side, "available_cores", lambda: 6)
    monkeypatch.setattr(side_by_side, "free_main_memory", lambda: int(free))
    monkeypatch.setattr(side_by_side, "PIXEL_BYTES", 150)
    assert side_by_side.threads_that_fit((100, 100)) == expected


def test_a_first_part_that_loads_what_others_use_misleads_no_longer_than_till_the_next(
    clock,
) -> None:
    work = Parts(clock, 10, {"part": 1.0})
    work.expect({"part": 10})
    for seconds in (9.0, *(1.0,) * 4):
        clock.now += seconds
        work.did("part", finished=1)
    assert [left for *_, left in clock.told[1:]] == [81, 8, 7, 6, 5]


def test_simulate_knows_how_long_clips_of_any_size_will_take(clock, tmp_path, monkeypatch) -> None:
    sizes = [(32, 32), (64, 64), (32, 64), (64, 128)] * 4
    clips = [
        SourceClip(seq=f"train/scenes/{i:05}", size=size, length=33 + 8 * (i % 3))
        for i, size in enumerate(sizes)
    ]

    def record(out: Any, clip: SourceClip, rig: Rig) -> int:
        clock.now += 1e-5 * clip.n_frames * clip.size[0] * clip.size[1]
        return 1000

    monkeypatch.setattr(simulating, "record_clip", record)
    simulating.simulate(tmp_path / "data", clips, Rig(), workers=1, reporter=clock)
    clock.require_honest()
