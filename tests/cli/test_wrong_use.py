"""Mistakes are told at once: what was typed is checked before anything heavy is imported."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MOST_OF_LIBRARIES = 5.0
"""Most CPU time of a mistake, over that of importing the libraries that it can't do without."""
LIBRARIES = "import numpy, pydantic, typer, yaml"
QUICK = 2
"""Every second mistake is tried without the marker `slow`: each takes half a second."""
COMMAND = """
import sys
from spikedeblur.cli import main
code = main()
print("heavy:", sorted({"torch", "zarr", "dask", "altair", "pandas"} & set(sys.modules)))
sys.exit(code)
"""

RECORDING = "--blur frames --spikes spike.dat --exposure 33 --fps 1000"
OWN = (
    "--method sdm --blur frames --spikes spike.dat --geometry 4x4,bottom-up --rate 1000 --out sharp"
)
QUICKSTART = "--config configs/deblur/quickstart.yaml"
SPEC = "--geometry 4x4,bottom-up --rate 1000 --gain 0.5"

FLASH = """
name: flash
split: test
blur: "{clip}/{frame}.png"
spikes: {files: "{clip}.dat"}
camera: {frame_rate: 30, shutter: 40ms}
"""

# What is typed, the exit code, and what the message must name.
MISTAKES = [
    # A configuration.
    (f"train {QUICKSTART} --set TRAIN.EPOCSH=3", 1, "did you mean TRAIN.EPOCHS?"),
    (f"train {QUICKSTART} --set TRAIN.EPOCHS=many", 1, "TRAIN.EPOCHS"),
    (f"train {QUICKSTART} --set TRAIN.EPOCHS", 1, "--set TRAIN.EPOCHS: expected SECTION.KEY="),
    ("train --config misspelt.yaml", 1, "misspelt.yaml: unknown key DATA.CROPSIZE"),
    ("train --config missing.yaml", 1, "missing.yaml"),
    ("train --config not.yaml", 1, "not.yaml: expected YAML"),
    (f"train {QUICKSTART} --set DATA.ROOT=missing.zarr", 1, "missing.zarr"),
    (f"train {QUICKSTART} --set DATA.ROOT=missing.zarr --dry-run", 1, "missing.zarr"),
    (f"train {QUICKSTART} --set DATA.ROOT=missing.zarr --find-rate", 1, "missing.zarr"),
    (f"train {QUICKSTART} --set DATA.ROOT=set --run begun", 1, "begun: holds a run already"),
    (f"train {QUICKSTART} --set DATA.ROOT=set --set MODEL.PRETRAINED=vrt.pth", 1, "vrt.pth"),
    (f"train {QUICKSTART} --resume --overwrite", 2, "--resume and --overwrite"),
    (f"train {QUICKSTART} --dry-run --find-rate", 2, "--dry-run and --find-rate"),
    # A trained model.
    (f"restore --model smal {RECORDING} --out sharp", 1, "smal: expected a model"),
    (f"restore --model gone.safetensors {RECORDING} --out sharp", 1, "gone.safetensors"),
    (f"restore --model notes.txt {RECORDING} --out sharp", 1, "notes.txt"),
    (f"restore --run missing {RECORDING} --out sharp", 1, "missing"),
    (f"restore --run taken {RECORDING} --out sharp", 1, "taken"),
    (f"restore --run missing --model small {RECORDING} --out sharp", 2, "--run or --model"),
    ("evaluate missing.zarr --run missing", 1, "missing"),
    ("export missing out.safetensors", 1, "missing"),
    ("export small out.onnx", 2, "--size"),
    ("export small out.pt", 2, "out.pt"),
    (f"adapt mine.safetensors --model smal {RECORDING}", 1, "smal: expected a model"),
    (f"adapt mine.safetensors {RECORDING} --blur more", 2, "--spikes"),
    ("report missing", 1, "missing"),
    ("report taken", 1, "taken"),
    ("report begun --out page.pdf", 1, "page.pdf"),
    ("runs missing", 1, "missing"),
    # A recording.
    (f"restore {RECORDING} --out sharp", 2, "--method"),
    (f"restore --method sdmm {RECORDING} --out sharp", 2, "sdmm"),
    (f"restore --model small {RECORDING} --tile big --out sharp", 2, "--tile"),
    (f"restore --method path {RECORDING} --tile 64 --out sharp", 2, "tiles and flips"),
    (f"restore --method sdm {RECORDING} --log log.txt --out sharp", 2, "--log"),
    ("restore --model small --out sharp --spikes spike.dat", 2, "--blur"),
    (f"restore --method sdm {RECORDING.replace('33', '32')} {SPEC} --out sharp", 1, "found 32"),
    (f"restore --method sdm {RECORDING.replace('frames', 'no')} {SPEC} --out sharp", 1, "no:"),
    (f"restore --method sdm {RECORDING.replace('spike.dat', 'no.dat')} --out sharp", 1, "no.dat"),
    (f"restore --method sdm {RECORDING} --geometry 4by4 --out sharp", 1, "4by4"),
    (f"restore --method sdm {RECORDING} {SPEC} --out taken", 1, "taken"),
    (f"restore --method sdm {RECORDING} {SPEC} --out frames", 1, "frames"),
    (f"restore --method sdm {RECORDING} {SPEC} --out sharp --video sharp.avi", 1, "sharp.avi"),
    (f"restore --method sdm {RECORDING} {SPEC} --out sharp --calibration no.json", 1, "no.json"),
    # The frames' times.
    (f"restore {OWN} --fps 30 --frame-rate 30 --shutter 16ms", 2, "--fps"),
    (f"restore {OWN} --frame-rate 30 --shutter 16", 2, "--shutter 16ms"),
    (f"restore {OWN} --frame-rate 30", 2, "--shutter 16ms"),
    (f"restore {OWN} --frame-rate 30 --shutter 16mm", 2, "s, ms, us"),
    (f"restore {OWN} --shutter 16ms", 1, "add --frame-rate 30"),
    (f"restore {OWN} --exposure 1 --fps 30", 1, "--frame-rate 30 --shutter 16ms"),
    (f"restore {OWN} --frame-rate 30 --shutter 1us", 1, "found 0 at 1000 Hz"),
    (f"restore {OWN} --frame-rate 30 --shutter 16ms --start 1s", 1, "--start"),
    (f"restore {OWN} --times no.csv", 1, "no.csv"),
    (f"restore {OWN} --times nounit.csv", 1, "call it start_s, start_ms"),
    (f"restore {OWN} --times rows.csv", 1, "rows.csv: expected 1 rows"),
    (f"restore {OWN} --times notes.txt", 1, "notes.txt: expected columns start_ms"),
    (f"adapt mine.safetensors {RECORDING} --shutter 16ms", 2, "--fps"),
    ("align set --layout flash.yaml", 1, "flash.yaml: camera: shutter: expected at most"),
    ("align set --frame-rate 30", 2, "--shutter 16ms"),
    ("align set --frame-rate 30 --shutter 16ms --fps 30", 2, "--fps"),
    ("restore --method sdm --manifest missing.json --out sharp", 1, "missing.json"),
    ("restore --method sdm --manifest numbers.json --out sharp", 1, "numbers.json"),
    ("restore --method sdm --manifest numbers.json --split tets --out sharp", 2, "tets"),
    ("inspect missing.dat", 1, "missing.dat"),
    ("inspect spike.dat --geometry 4x4", 1, "4x4"),
    ("view missing.dat", 1, "missing.dat"),
    ("convert missing.npy out.dat", 1, "missing.npy"),
    ("calibrate --out sensor.zarr", 2, "--dark"),
    ("calibrate --dark no.dat --out sensor.zarr", 1, "no.dat"),
    ("calibrate --dark spike.dat --out sensor.zarr", 1, "spike.dat: no side file gives the geom"),
    ("calibrate --dark spike.dat --geometry 4x4,top-down --out taken", 1, "taken: expected a new"),
    (f"restore --method sdm {RECORDING} {SPEC} --out sharp --sensor no.zarr", 1, "no.zarr"),
    ("simulate out --scenes 1 --gain-spread 2", 1, "--gain-spread of 0 to 0.25"),
    ("convert spikes.npy out.dat --geometry 4x4,sideways", 1, "sideways"),
    # A data set.
    ("simulate out", 2, "--frames, --scenes or --rig"),
    ("simulate out --scenes 1 --size 64", 2, "64"),
    ("simulate out --scenes 1 --exposure 32", 1, "32"),
    ("simulate out --scenes 1 --split tets", 2, "tets"),
    ("simulate out --frames missing", 1, "missing"),
    ("align missing", 1, "missing"),
    ("align taken --layout x4k", 2, "x4k"),
    ("align set --layout x4k1000fps --exposure 32", 1, "val_blurry_32"),
    ("align set --layout x4k1000fps", 1, "found no images"),
    ("align taken --layout x4k1000fps", 1, "taken"),
    ("split missing.json", 1, "missing.json"),
    ("split numbers.json", 1, "numbers.json"),
    ("voxelize missing.json store.zarr", 1, "missing.json"),
    ("voxelize numbers.json store.zarr", 1, "numbers.json"),
    ("voxelize numbers.json store.zarr --bins 0", 2, "--bins"),
    ("check missing.json", 1, "missing.json"),
    ("check missing.zarr", 1, "missing.zarr"),
    # Figures.
    ("evaluate missing.zarr", 1, "missing.zarr"),
    ("evaluate taken", 1, "taken"),
    ("evaluate missing.zarr --methods blur,smd", 2, "smd"),
    ("evaluate missing.zarr --methods model", 2, "model"),
    ("evaluate missing.zarr --protocol gopro", 1, "gopro"),
    ("evaluate missing.zarr --tile -1", 2, "--tile"),
    ("evaluate missing.zarr --json numbers.json", 1, "numbers.json"),
    # The command line itself.
    ("evalute store.zarr", 2, "evalute"),
    (f"restore --modle small {RECORDING}", 2, "--modle"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few files, none of them what the commands above hope for."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "misspelt.yaml").write_text("DATA: {CROPSIZE: 64}\n", encoding="utf-8")
    (folder / "not.yaml").write_text("DATA: [\n", encoding="utf-8")
    (folder / "notes.txt").write_text("nothing of ours\n", encoding="utf-8")
    (folder / "numbers.json").write_text("[1, 2, 3]\n", encoding="utf-8")
    (folder / "nounit.csv").write_text("start,end\n1,2\n", encoding="utf-8")
    (folder / "rows.csv").write_text("start_ms,end_ms\n1,20\n30,40\n", encoding="utf-8")
    (folder / "flash.yaml").write_text(FLASH, encoding="utf-8")
    (folder / "spike.dat").write_bytes(b"\xff\xff\0\0" * 50)  # every pixel, every other sample
    np.save(folder / "spikes.npy", np.zeros((3, 4, 4), np.uint8))
    for name in ("set/train", "set/val", "set/val_blurry_33", "set/val_spike_2xds", "begun"):
        (folder / name).mkdir(parents=True)
    (folder / "begun/config.yaml").write_text("TRAIN: {SEED: 1}\n", encoding="utf-8")
    for name in ("frames", "more", "taken"):
        (folder / name).mkdir()
        Image.new("RGB", (8, 8)).save(folder / name / "0031.png")
    return folder


@pytest.mark.parametrize(
    ("typed", "code", "named"),
    [
        pytest.param(*mistake, id=mistake[0], marks=[pytest.mark.slow] if i % QUICK else [])
        for i, mistake in enumerate(MISTAKES)
    ],
)
def test_a_mistake_is_told_at_once(typed: str, code: int, named: str, folder: Path) -> None:
    files = files_in(folder)
    done, seconds = run(typed, folder)
    assert done.returncode == code, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000
    if code == 1:
        assert done.stderr.startswith("spikedeblur: ")
        assert done.stderr.count("\n") == 1
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert files_in(folder) == files
    # What else runs makes seconds longer, of one program more than of the next: a few tries.
    ratios = [seconds / run_code(LIBRARIES, folder)[1]]
    while min(ratios) >= MOST_OF_LIBRARIES and len(ratios) < 5:
        ratios.append(run(typed, folder)[1] / run_code(LIBRARIES, folder)[1])
    assert min(ratios) < MOST_OF_LIBRARIES


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def run(typed: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a command in a folder; return also the CPU seconds that it took."""
    return run_code(COMMAND, folder, *typed.split())


def run_code(
    code: str, folder: Path, *arguments: str
) -> tuple[subprocess.CompletedProcess[str], float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
