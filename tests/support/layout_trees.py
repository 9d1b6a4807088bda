"""One tiny tree a layout, under the names that its makers publish, with true spikes in it.

Nothing here uses the code under test to decide what a file is called or which samples an
exposure holds: both are written out from the data sets' descriptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from spikedeblur.pipeline.spikes import parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.sidefile import (
    SideFile,
    write_folder_side_file,
    write_side_file,
)

HEIGHT, WIDTH = 32, 40
GEOMETRY = f"{HEIGHT}x{WIDTH},bottom-up"
GAIN = 0.5


@dataclass(frozen=True)
class Scene:
    """A sum of plane waves that moves to the right, `speed` spike pixels a millisecond."""

    seed: int
    speed: float = 0.4

    @cached_property
    def _waves(self) -> tuple[np.ndarray, np.ndarray]:
        """(12, H, W) phases at 0 s, and (12, 1, 1) by which they fall each second."""
        rng = np.random.default_rng(self.seed)
        y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
        fy, fx = rng.uniform(-0.12, 0.12, (2, 12, 1, 1))
        phase = rng.uniform(0, 2 * np.pi, (12, 1, 1))
        return 2 * np.pi * (fy * y + fx * x) + phase, 2 * np.pi * fx * self.speed * 1e3

    def at(self, t: float) -> np.ndarray:
        """(H, W) in [0, 1] at `t` seconds."""
        phases, fall = self._waves
        return np.clip(0.5 + 0.07 * np.cos(phases - fall * t).sum(axis=0), 0, 1)

    def blurred(self, t0: float, t1: float) -> np.ndarray:
        """(H, W), the mean of 9 instants from `t0` to `t1`."""
        return np.mean([self.at(t) for t in np.linspace(t0, t1, 9)], axis=0)

    def spikes(self, first: float, rate: float, n: int) -> np.ndarray:
        """(n, H, W) of an integrate-and-fire camera of threshold 2."""
        total = np.random.default_rng(7).uniform(0, 2, (HEIGHT, WIDTH))
        spikes = np.zeros((n, HEIGHT, WIDTH), np.uint8)
        for j in range(n):
            total += self.at(first + j / rate)
            spikes[j] = total >= 2
            total -= 2 * spikes[j]
        return spikes


@dataclass
class Tree:
    """What was written, and what `align` must find in it."""

    layout: str
    options: dict[str, object] = field(default_factory=dict)
    """Of `align`."""
    windows: dict[tuple[str, int], tuple[float, float, int]] = field(default_factory=dict)
    """(t0, t1, spikes) by (seq, frame index)."""

    def expect(self, seq: str, frame: int, t0: float, t1: float, spikes: np.ndarray) -> None:
        """Note a window and the samples that are its own."""
        self.windows[seq, frame] = (t0, t1, int(spikes.sum()))


def write_image(path: Path, plane: np.ndarray, scale: int = 2) -> None:
    """Write (H, W) in [0, 1] as RGB, `scale` times as large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    big = np.kron(np.round(plane * 255).astype(np.uint8), np.ones((scale, scale), np.uint8))
    Image.fromarray(np.stack([big] * 3, axis=-1)).save(path)


def write_dat(path: Path, spikes: np.ndarray) -> None:
    """Write a `.dat` without side file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_spikes(path, spikes, parse_geometry(GEOMETRY))


def x4k_recorded(root: Path) -> Tree:
    """X4K1000FPS as `simulate` writes it: plain names, one stream with its side file."""
    tree = Tree("x4k1000fps", {"exposure": 9})
    for seed, seq in enumerate(("train/002/occ008.320", "val/Type1/TEST01_003_f0433")):
        split, clip = seq.split("/", 1)
        scene = Scene(seed)
        spikes = scene.spikes(0, 4000, 129)
        write_dat(root / f"{split}_spike_2xds" / clip / "spike.dat", spikes)
        side = SideFile(geometry=GEOMETRY, rate=4000, gain=GAIN)
        write_side_file(root / f"{split}_spike_2xds" / clip / "spike.dat", side)
        for c in (8, 16, 24):
            t0, t1 = (c - 4) / 1000, (c + 4) / 1000
            write_image(root / f"{split}_blurry_9" / clip / f"{c:04d}.png", scene.blurred(t0, t1))
            write_image(root / f"{split}_fullRGB" / clip / f"{c:04d}.png", scene.at(c / 1000))
            tree.expect(seq, c, t0, t1, spikes[4 * (c - 4) : 4 * (c + 4) + 1])
    return tree


def _interpolated_name(index: int) -> str:
    return f"{index // 4:04d}" + (f"_{index % 4 - 1:03d}" if index % 4 else "")


def _spk_x4k(root: Path, exposure: int, own: bool) -> Tree:
    tree = Tree("x4k1000fps", {"exposure": exposure})
    for seed, seq in enumerate(("train/002/occ008.320", "val/Type1/TEST01_003_f0433")):
        split, clip = seq.split("/", 1)
        scene = Scene(seed, speed=0.8)
        spikes = scene.spikes(0, 4000, 257)
        side = SideFile(geometry=GEOMETRY, rate=4000, gain=GAIN)
        if not own:
            write_dat(root / f"{split}_spike_2xds" / clip / "spike.dat", spikes)
            write_side_file(root / f"{split}_spike_2xds" / clip / "spike.dat", side)
        half = exposure // 2
        for c in range(half, 257 - half, 45):
            name = _interpolated_name(c)
            t0, t1 = (c - half) / 4000, (c + half) / 4000
            blurred = root / f"{split}_blurry_{exposure}" / clip / f"{name}.png"
            write_image(blurred, scene.blurred(t0, t1))
            write_image(root / f"{split}_fullRGB" / clip / f"{name}.png", scene.at(c / 4000))
            tree.expect(seq, c, t0, t1, spikes[c - half : c + half + 1])
            if own:
                folder = root / f"{split}_spike_2xds_{exposure}" / clip
                write_dat(folder / f"{name}.dat", spikes[c - half : c + half + 1])
                write_folder_side_file(folder, side)
        # The published folder of sharp frames is whole: an interpolated name is always there.
        write_image(root / f"{split}_fullRGB" / clip / "0000_001.png", scene.at(2 / 4000))
    return tree


def spk_x4k_33_stream(root: Path) -> Tree:
    """Spk-X4K1000FPS, exposures of 33 samples, one stream a clip."""
    return _spk_x4k(root, 33, own=False)


def spk_x4k_65_own(root: Path) -> Tree:
    """Spk-X4K1000FPS, exposures of 65 samples, one file an exposure."""
    return _spk_x4k(root, 65, own=True)


def spk_gopro(root: Path) -> Tree:
    """Spk-GoPro; the last file of a sequence seven samples short."""
    tree = Tree("spk-gopro")
    for seed, seq in enumerate(("train/GOPR0372_07_00", "val/GOPR0384_11_00")):
        split, name = seq.split("/")
        yy = int(name.split("_")[1])
        scene = Scene(seed)
        folder = root / "GOPRO_Large" / split / name
        dats = root / "GOPRO_Large_spike_seq" / split / name / "spike"
        for n in (3, 4, 5):
            first = n * yy / 240
            last = n == 5
            spikes = scene.spikes(first, 1920, 8 * yy - 7 if last else 8 * yy)
            t0, t1 = first, (n * yy + yy - 1) / 240
            write_image(folder / "blur_gamma" / f"{n:06d}.png", scene.blurred(t0, t1))
            # The sharp frame is at sample 8 (yy // 2), not in the file's middle.
            write_image(folder / "sharp" / f"{n:06d}.png", scene.at(first + 8 * (yy // 2) / 1920))
            write_dat(dats / f"{n:06d}.dat", spikes)
            tree.expect(seq, n, t0, t1, spikes[: 8 * (yy - 1) + 1])
        side = SideFile(geometry=GEOMETRY, rate=1920, gain=GAIN)
        write_folder_side_file(dats, side)
    return tree


def s_vrt_gopro(root: Path) -> Tree:
    """Spk-GoPro after S-VRT's scripts, which move `blur` and `sharp` and leave `blur_gamma`."""
    tree = spk_gopro(root)
    tree.layout = "s-vrt-gopro"
    top = root / "GOPRO_Large"
    for clip in sorted(top.glob("*/*/")):
        for folder, ending in (("blur_gamma", "_GT_blurred"), ("sharp", "_GT")):
            moved = top / f"{clip.parent.name}{ending}" / clip.name
            moved.parent.mkdir(exist_ok=True)
            (clip / folder).rename(moved)
        write_image(clip / "blur_gamma/000003.png", np.zeros((HEIGHT, WIDTH)))
    # The spikes' side file for SpikeCV, which does not make this a folder of SpikeCV's.
    (root / "GOPRO_Large_spike_seq/config.yaml").write_text("spike_h: 32\nspike_w: 40\n")
    return tree


def s_sdm(root: Path) -> Tree:
    """S-SDM GOPRO: 137 samples, 20 before and 20 after; ends without spikes."""
    tree = Tree("s-sdm")
    for seed, seq in enumerate(("train/GOPR0372_07_00", "val/GOPR0384_11_00")):
        split, name = seq.split("/")
        scene = Scene(seed)
        for i, n in enumerate((6, 19, 32, 45, 58)):
            centre = 8 * n / 1920
            t0, t1 = centre - 48 / 1920, centre + 48 / 1920
            write_image(
                root / split / "blur_data" / name / f"{n:06d}.png", scene.blurred(t0, t1), 4
            )
            write_image(root / split / "sharp_data" / name / f"{n:06d}.png", scene.at(centre), 4)
            if i in (0, 4):
                continue
            spikes = scene.spikes(t0 - 20 / 1920, 1920, 137)
            write_dat(root / split / "spike_data" / name / f"{n:06d}.dat", spikes)
            tree.expect(seq, n, (8 * n - 48) / 1920, (8 * n + 48) / 1920, spikes[20:117])
        side = SideFile(geometry=GEOMETRY, rate=1920, gain=GAIN)
        write_folder_side_file(root / split / "spike_data" / name, side)
    return tree


def unified(root: Path) -> Tree:
    """The reference document's layout; one sequence of files, one of a stream."""
    tree = Tree("unified", {"exposure": 9, "fps": 1000.0})
    side = SideFile(geometry=GEOMETRY, rate=4000, gain=GAIN)
    for seed, seq in enumerate(("train/deep/a", "val/b")):
        scene = Scene(seed)
        spikes = scene.spikes(0, 4000, 129)
        for c in (8, 16, 24):
            t0, t1 = (c - 4) / 1000, (c + 4) / 1000
            own = spikes[4 * (c - 4) : 4 * (c + 4) + 1]
            write_image(root / seq / "blur" / f"{c:06d}.png", scene.blurred(t0, t1))
            write_image(root / seq / "sharp" / f"{c:06d}.png", scene.at(c / 1000))
            if seed == 0:
                write_dat(root / seq / "spike" / f"{c:06d}.dat", own)
            tree.expect(seq, c, t0, t1, own)
        if seed == 0:
            write_folder_side_file(root / seq / "spike", side)
        else:
            write_dat(root / seq / "spike" / "spike.dat", spikes)
            write_side_file(root / seq / "spike" / "spike.dat", side)
    return tree


def spikecv(root: Path) -> Tree:
    """SpikeCV's folders: size in config.yaml, all else from options."""
    options = {"exposure": 9, "fps": 1000.0, "rate": 4000.0, "geometry": GEOMETRY, "gain": GAIN}
    tree = Tree("spikecv", options)
    config = {
        "filename": "rec",
        "spike_w": WIDTH,
        "spike_h": HEIGHT,
        "is_labeled": False,
        "labeled_data_type": [0],
        "labeled_data_suffix": "None",
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    # Both of SpikeCV's forms: a recording among others, and one in a folder of its own.
    for seed, (dat, frames, seq) in enumerate(
        (
            ("train/classA/car-100kmh.dat", "train/classA/car-100kmh", "train/classA/car-100kmh"),
            ("val/spike59/spikes.dat", "val/spike59", "val/spike59"),
        )
    ):
        scene = Scene(seed)
        spikes = scene.spikes(0, 4000, 129)
        write_dat(root / dat, spikes)
        for c in (8, 16, 24):
            t0, t1 = (c - 4) / 1000, (c + 4) / 1000
            write_image(root / frames / "blur" / f"{c:04d}.png", scene.blurred(t0, t1))
            write_image(root / frames / "sharp" / f"{c:04d}.png", scene.at(c / 1000))
            tree.expect(seq, c, t0, t1, spikes[4 * (c - 4) : 4 * (c + 4) + 1])
    return tree


def custom_camera(root: Path) -> Tree:
    """A camera's own folders by a layout file: exposures in seconds, one stream."""
    layout = root.with_name(f"{root.name}-layout.yaml")
    tree = Tree(str(layout))
    content = {
        "name": "my-camera",
        "blur": "{split}/{clip}/rgb/img_{frame}.png",
        "sharp": "{split}/{clip}/truth/{frame}.png",
        "spikes": {
            "files": "{split}/{clip}.dat",
            "geometry": GEOMETRY,
            "rate": 4000,
            "gain": GAIN,
            "first": 0.002,
            "scale": 2,
        },
        "camera": {"period": 0.01, "exposure": 0.008, "first": 0.004},
    }
    root.mkdir(parents=True, exist_ok=True)
    layout.write_text(yaml.safe_dump(content))
    for seed, seq in enumerate(("train/walk", "val/run")):
        scene = Scene(seed)
        spikes = scene.spikes(0.002, 4000, 160)
        write_dat(root / f"{seq}.dat", spikes)
        for n in range(3):
            t0, t1 = 0.004 + 0.01 * n, 0.012 + 0.01 * n
            start = 8 + 40 * n
            write_image(root / seq / "rgb" / f"img_{n}.png", scene.blurred(t0, t1))
            write_image(root / seq / "truth" / f"{n}.png", scene.at((t0 + t1) / 2))
            tree.expect(seq, n, t0, t1, spikes[start : start + 33])
    return tree


def custom_frames(root: Path) -> Tree:
    """Averaged frames by a layout file: numbers counted in steps, one file an exposure."""
    layout = root.with_name(f"{root.name}-layout.yml")
    tree = Tree(str(layout))
    content = {
        "name": "my-averages",
        "blur": "{split}/{scene}/{clip}_{frame}_blur.png",
        "sharp": "{split}/{scene}/{clip}_{frame}_sharp.png",
        "spikes": {
            "files": "spikes/{split}/{scene}/{clip}_{frame}.dat",
            "geometry": GEOMETRY,
            "rate": 4000,
            "gain": GAIN,
            "before": 3,
            "after": [0, 5],
        },
        "frames": {"fps": 1000, "exposure": 9, "step": 12, "offset": 6},
    }
    root.mkdir(parents=True, exist_ok=True)
    layout.write_text(yaml.safe_dump(content))
    for seed, seq in enumerate(("train/park/a", "val/street/b")):
        split, place, clip = seq.split("/")
        scene = Scene(seed)
        for n in range(3):
            c = 6 + 12 * n
            t0, t1 = (c - 4) / 1000, (c + 4) / 1000
            spikes = scene.spikes(t0 - 3 / 4000, 4000, 3 + 33 + 5 * (n % 2))
            write_image(root / split / place / f"{clip}_{n}_blur.png", scene.blurred(t0, t1))
            write_image(root / split / place / f"{clip}_{n}_sharp.png", scene.at(c / 1000))
            write_dat(root / "spikes" / split / place / f"{clip}_{n}.dat", spikes)
            tree.expect(seq, n, t0, t1, spikes[3:36])
    return tree


TREES: dict[str, Callable[[Path], Tree]] = {
    "x4k1000fps": x4k_recorded,
    "x4k1000fps, Spk-X4K1000FPS 33": spk_x4k_33_stream,
    "x4k1000fps, Spk-X4K1000FPS 65": spk_x4k_65_own,
    "spk-gopro": spk_gopro,
    "s-vrt-gopro": s_vrt_gopro,
    "s-sdm": s_sdm,
    "unified": unified,
    "spikecv": spikecv,
    "custom, camera": custom_camera,
    "custom, frames": custom_frames,
}
"""By the layout's name, and what is particular."""
