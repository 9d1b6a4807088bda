"""Aligning as many clips as X-TRAIN has, again with nothing changed, and dealing them out.

CPU times are compared with those of a bare Python that reads every file of the clips once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from spikedeblur.pipeline.spikes import parse_geometry
from spikedeblur.pipeline.spikes.dat import pack_spikes
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file

from .figures import Figure
from .jobs import CLIPS, command, run

CENTRES = (16, 31, 46)
GEOMETRY = "16x24,bottom-up"
FEW = CLIPS // 10
READ_ALL = "import pathlib, sys; [p.read_bytes() for p in pathlib.Path(sys.argv[1]).rglob('*.*')]"
COUNT_OPENED = """\
import atexit, runpy, sys

opened, root = 0, sys.argv[1]

def hook(event, arguments):
    global opened
    opened += event == "open" and str(arguments[0]).startswith(root)

sys.addaudithook(hook)
atexit.register(lambda: print(f"opened {opened}", file=sys.stderr))
sys.argv = ["spikedeblur", *sys.argv[2:]]
runpy.run_module("spikedeblur", run_name="__main__")
"""


def figures(folder: Path) -> list[Figure]:
    """Measure; about a minute."""
    root = folder / "x-train"
    small_clips(root, CLIPS)
    log, manifest = folder / "align.txt", folder / "align.json"
    align = ("align", str(root), "--layout=x4k1000fps", "--no-verify", f"--log={log}")
    plain = run("-c", READ_ALL, str(root))
    first, again = command(*align), command(*align)
    dealt = command("split", str(manifest), "--val=0.1")
    kept = command(*align)
    checked = command("check", str(manifest))
    return [
        first.figure(f"align {CLIPS} clips", plain, 20),
        Figure(f"align {CLIPS} clips, peak", first.peak / 1e6, "MB", 500, at_most=True),
        again.figure(f"align {CLIPS} clips, nothing changed", plain, 12),
        dealt.figure(f"split {CLIPS} clips", plain, 12),
        kept.figure(f"align {CLIPS} clips, split", plain, 12),
        checked.figure(f"check {CLIPS} clips", plain, 50),
        Figure(f"check {CLIPS} clips, peak", checked.peak / 1e6, "MB", 500, at_most=True),
        *opened(folder / "few"),
    ]


def opened(folder: Path) -> list[Figure]:
    """Files of the clips that are opened, for each of them."""
    root = folder / "x-train"
    small_clips(root, FEW)
    align = ("align", str(root), "--layout=x4k1000fps", "--no-verify")
    align += (f"--log={folder}/align.txt",)
    check = ("check", str(folder / "align.json"))
    counts = []
    for words in (align, align, check):
        ran = run("-c", COUNT_OPENED, str(root), *words)
        counts.append(int(ran.told.rpartition("opened ")[2]) / FEW)
    return [
        Figure("align: files opened", counts[0], "a clip, which has 8", 4.1, at_most=True),
        Figure("align, nothing changed: files opened", counts[1], "a clip", 2.1, at_most=True),
        Figure("check: files opened", counts[2], "a clip", 8.1, at_most=True),
    ]


def small_clips(root: Path, count: int) -> None:
    """Write clips of three exposures of 65 tiny frames, all of the same content."""
    rng = np.random.default_rng(0)
    geometry = parse_geometry(GEOMETRY)
    source = root.with_name("source")
    source.mkdir(parents=True)
    spikes = rng.random((513, *geometry.shape)) < 0.25
    (source / "spike.dat").write_bytes(pack_spikes(spikes, geometry).tobytes())
    write_side_file(source / "spike.dat", SideFile(geometry=GEOMETRY, rate=8000, gain=0.5))
    frames = rng.integers(96, 160, (3, 32, 48, 3), dtype=np.uint8)
    for centre, frame in zip(CENTRES, frames, strict=True):
        Image.fromarray(frame).save(source / f"{centre:04d}.png")
    for number in range(count):
        clip = f"{number // 40:03d}/occ{number % 40:03d}"
        for top, names in (
            ("train_blurry_33", [f"{c:04d}.png" for c in CENTRES]),
            ("train_fullRGB", [f"{c:04d}.png" for c in CENTRES]),
            ("train_spike_2xds", ["spike.dat", "spike.dat.json"]),
        ):
            (root / top / clip).mkdir(parents=True)
            for name in names:
                (root / top / clip / name).hardlink_to(source / name)
