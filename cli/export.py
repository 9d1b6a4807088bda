"""`spikedeblur export`: a trained model as one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, overwrites, size_option
from .output import (
    command_line,
    parse_size,
    print_json,
    require_writable,
    say,
    say_next,
)

_PROGRAMS = (".pt2", ".onnx")
PROGRAM = "Programs (.pt2, .onnx)"


RunOrModel = Annotated[
    str,
    typer.Argument(
        help="Run folder that `train` wrote, a path or a URL; for a program also a "
        ".safetensors, or `small`."
    ),
]
Out = Annotated[Path, typer.Argument(help="File to write: *.safetensors, *.pt2 or *.onnx.")]
Size = Annotated[
    str | None, size_option("Size of its frames, in pixels; it takes no other.", PROGRAM)
]
SpikeSize = Annotated[
    str | None, size_option("Size of its counts, in pixels.", PROGRAM, "the trunk's")
]
Frames = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2000,
        help="Frames of a clip.",
        show_default="as in training",
        metavar="N",
        rich_help_panel=PROGRAM,
    ),
]
ClipLen = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2000,
        help="For a .safetensors: windows that the network sees together when it restores.",
        show_default="as in training",
        metavar="N",
    ),
]


def export(
    run: RunOrModel,
    out: Out,
    size: Size = None,
    spike_size: SpikeSize = None,
    frames: Frames = None,
    clip_len: ClipLen = None,
    overwrite: Annotated[bool, overwrites("a file that is there")] = False,
    json: Json = False,
) -> None:
    """Write the best weights of a run, with their configuration, as one safe file.

    A name that ends in .pt2 (torch.export) or .onnx makes it a program of one input shape, for
    places that have no spikedeblur: `export small small.onnx --size 256x256`. It is kept only if
    it gives what the network gives.

    Example: spikedeblur export outputs/mine mine.safetensors
    """
    if out.suffix not in (".safetensors", *_PROGRAMS):
        raise typer.BadParameter(
            f"expected a name that ends in .safetensors, .pt2 or .onnx, got {out.name}; change it",
            param_hint="OUT",
        )
    require_writable(out)
    from .progress import progress_bar

    if out.suffix in _PROGRAMS:
        if clip_len is not None:
            raise typer.BadParameter(
                "a program's windows are its --frames", param_hint="--clip-len"
            )
        if size is None:
            raise typer.BadParameter("a program has one input shape; give HxW", param_hint="--size")
        from ..pipeline.weights.find import find_model, require_trained

        source = require_trained(Path(run) if Path(run).is_dir() else find_model(run))
        with progress_bar("Exporting"):
            from ..pipeline.trained.program import export_program  # with torch: seconds

            summary = export_program(
                source,
                out,
                size=parse_size(size),
                spike_size=None if spike_size is None else parse_size(spike_size, "--spike-size"),
                frames=frames,
                overwrite=overwrite,
            )
        if json:
            print_json(asdict(summary) | {"out": str(out), "bytes": out.stat().st_size})
            return
        shapes = ", ".join(
            f"{name} {'x'.join(map(str, shape))}" for name, shape in summary.inputs.items()
        )
        say(
            f"{out}: takes {shapes}; within {summary.difference:.1g} of the network's range, "
            f"{out.stat().st_size / 1e6:.1f} MB"
        )
        say_next(None)
        return
    if (size, spike_size, frames) != (None, None, None):
        raise typer.BadParameter(
            f"a shape is for programs, *.pt2 and *.onnx, and {out.name} takes any; leave it out",
            param_hint="--size",
        )
    with progress_bar("Exporting"):
        from ..pipeline.trained.model_file import export_model  # with torch: seconds

        facts = export_model(run, out, clip_len=clip_len, overwrite=overwrite)
    if json:
        print_json(facts | {"out": str(out), "bytes": out.stat().st_size})
        return
    say(
        f"{out}: {facts['parameters'] / 1e6:.2f} M parameters of step {facts['step']}, validation "
        f"{facts['validation_psnr'] or float('nan'):.2f} dB, {out.stat().st_size / 1e6:.1f} MB"
    )
    say_next(command_line("inspect", out))
