"""What can be wrong with a run's paths, found without torch, whose import takes seconds."""

from __future__ import annotations

from pathlib import Path

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ..sequences.unified import is_store, require_split_folder
from ..weights.files import checkpoint_path
from ..weights.find import find_initial
from .run.folder import require_new


class MissingFileError(SpikeDeblurError):
    """A file that the configuration names is not there."""


def require_startable(
    config: Config,
    run: Path | None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init: str | None = None,
) -> None:
    """Refuse a run whose data, weights or folder are not what they should be; opens none of them.

    Args:
        config: the whole configuration.
        run: folder to write; None: nothing is written.
        resume: the run goes on, and has its weights.
        overwrite: replace a run that is in the folder.
        init: weights that a new run starts from, as for `Init`.

    Raises:
        StoreError: neither a store nor a unified folder is at DATA.ROOT.
        MissingFileError: a file with weights is not there.
        TrainedModelError: no weights to start from are of that name.
        RunFolderError: the folder holds a run.
    """
    data, vgg = config.DATA, config.LOSS.VGG_PERCEPTUAL
    for root in (store.ROOT for store in data.stores):
        if not is_store(root):
            for split in (data.TRAIN_SPLIT, data.VAL_SPLIT):
                require_split_folder(root, split)
    for key, file in (
        ("MODEL.PRETRAINED", None if resume else config.MODEL.PRETRAINED),
        ("LOSS.VGG_PERCEPTUAL.WEIGHTS", vgg.WEIGHTS if vgg.WEIGHT else None),
    ):
        if file is not None and not Path(file).is_file():
            raise MissingFileError(
                f"{key}: {file}: expected a weights file, found none; check the path"
            )
    if run is not None and not resume:
        require_new(run, overwrite=overwrite)
    goes_on = resume and run is not None and checkpoint_path(run, "last").is_file()
    if init is not None and not goes_on:
        find_initial(init)
