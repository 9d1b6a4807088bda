"""The `spikedeblur` command. Commands import what they need when they run, so help is instant."""

from __future__ import annotations

import copy
import io
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Annotated

import typer

from ..version import __version__
from .help_page import Command
from .output import LogFormat, chosen_log_format, say, to_go_on, typed

app = typer.Typer(
    name="spikedeblur",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = {
    "simulate": "Make spikes and blurred frames from sharp video.",
    "calibrate": "Measure the spike camera's pixels: gain, dark rate, hot ones.",
    "align": "Find each frame's spikes; write the log and the manifest.",
    "check": "Check a manifest or a store for damage and doubtful data.",
    "split": "Deal sequences out to train and val by whole scenes.",
    "voxelize": "Write the spikes and frames of all exposures to a store.",
    "train": "Train a model.",
    "runs": "Compare runs, the best first.",
    "evaluate": "Measure PSNR and SSIM of methods and models.",
    "restore": "Restore the sharp frames of a recording.",
    "report": "Write a page about one run or several.",
    "adapt": "Fit a trained model to your own camera.",
    "export": "Write the best weights of a run to one file.",
    "convert": "Write spikes of another tool as a .dat.",
    "inspect": "Say what a file or folder is.",
    "view": "Show spikes, TFP and frames on a page.",
    "config_schema": "Print the JSON Schema of configurations.",
    "doctor": "Check this machine for what is missing.",
}
"""Summaries in the list of commands, by command: a function in the module of its name."""

for _command, _summary in _COMMANDS.items():
    app.command(cls=Command, short_help=_summary)(
        getattr(import_module(f".{_command}", __name__), _command)
    )


class _Said(logging.Handler):
    """Prints what the package logs as `say` does."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), err=True, label="warning")


_logger = logging.getLogger(__name__.partition(".")[0])
_logger.addHandler(_Said(logging.WARNING))


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"spikedeblur {__version__}")
        raise typer.Exit


@app.callback()
def spikedeblur(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Print results and warnings only: no progress, notes or next command.",
        ),
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Progress as text, or as one JSON object a line on stderr.")
    ] = "text",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """From spike-camera streams and blurred colour frames to sharp video.

    The stages, in order: simulate (or your own recordings), align, voxelize, train, evaluate,
    restore. Each reads the files of the one before; run any of them with --help for an example.
    """
    chosen_log_format.set(log_format)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (failed), 2 (wrong use), 128 + a signal."""
    from ..errors import SpikeDeblurError
    from .mistakes import tell
    from .output import begin

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    typed.set(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = arguments[:end], arguments[end:]
    debug = "--debug" in options
    begin(quiet=bool({"--quiet", "-q"} & set(options)))
    # The package's own options may stand after the command's name too.
    options = [option for option in options if option not in {"--debug", "--quiet", "-q"}]
    options, log_format = _without_log_format(options)
    try:
        _refuse_empty(options)
        with _signals_that_stop():
            code = _of_command(options[:1])([*log_format, *options, *rest], standalone_mode=False)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except (SpikeDeblurError, OSError, MemoryError) as error:
        if debug:
            raise
        return tell(error)
    except _StopError as stopped:
        again = "the same command"
        if options[:1] == ["train"] and "--resume" not in options:
            again += " with --resume"
        does = "begins anew" if options[:1] == ["adapt"] else "goes on from here"
        # Zarr's event loop leaves work undone, which Python would tell after the last line.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        say(f"stopped; {to_go_on(again)} {does}", err=True)
        return 128 + stopped.signal
    except Exception as wrong_use:
        if not hasattr(wrong_use, "show"):  # by which Typer's releases all know a wrong use
            raise
        return tell(wrong_use, is_wrong_use=True)
    return code if isinstance(code, int) else 0


def _refuse_empty(words: list[str]) -> None:
    """Refuse an empty value, as a shell's variable gives that isn't set: it would name a folder.

    Raises:
        typer.BadParameter: there is one.
    """
    for before, word in zip(["", *words], words, strict=False):
        option = word if word.startswith("--") and word.endswith("=") else ""
        if not word or option.count("=") == 1:
            name = option.removesuffix("=") or (before if before.startswith("--") else "")
            raise typer.BadParameter(
                "expected a value, got an empty one; give it, or check the shell's variable that "
                "it is made of",
                param_hint=name or None,
            )


def _of_command(first: list[str]) -> typer.Typer:
    """Return the application with the one command that is typed first, which is quicker to build.

    If it is none of ours, all are there.
    """
    one = copy.copy(app)
    one.registered_commands = [
        command
        for command in app.registered_commands
        if command.callback and [command.callback.__name__.replace("_", "-")] == first
    ]
    return one if one.registered_commands else app


def _without_log_format(options: list[str]) -> tuple[list[str], list[str]]:
    """Return the options, and apart from them --log-format with its value."""
    for i, option in enumerate(options):
        length = 2 if option == "--log-format" else 1
        if option.partition("=")[0] == "--log-format" and i + length <= len(options):
            return options[:i] + options[i + length :], options[i : i + length]
    return options, []


class _StopError(BaseException):
    """Ctrl-C, or a scheduler's SIGTERM; Typer handles KeyboardInterrupt itself."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@contextmanager
def _signals_that_stop() -> Iterator[None]:
    """Have SIGINT and SIGTERM unwind what runs, so that nothing half-written is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _StopError(number)

    # Signals that are ignored, as under nohup, or that the caller handles, are left as they are.
    usual = (signal.SIG_DFL, signal.default_int_handler)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    replaced = {number: handler for number, handler in handlers.items() if handler in usual}
    for number in replaced:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
