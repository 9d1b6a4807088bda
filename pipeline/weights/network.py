"""Whether two configurations mean the same network, fed with the same numbers."""

from __future__ import annotations

from ...configs.schema import Config
from .same import leaves

_CHUNKS = ("ADAPTIVE_CHUNK", "MAX_CHUNK_MB", "MAX_BATCH_TOKENS", "CHUNK_SIZE", "CHUNK_SHAPE")
_TRAINING_ONLY = frozenset(
    {
        "MODEL.VRT_CFG",
        "MODEL.PRETRAINED",
        "MODEL.USE_CHECKPOINT_ATTN",
        "MODEL.USE_CHECKPOINT_FFN",
        "MODEL.RECOMPUTE",
        "MODEL.VRT.img_size",
        "MODEL.VRT.drop_path_rate",
        "MODEL.FUSE.IDENTITY_INIT",
        "MODEL.FUSE.DROPOUT",
        "MODEL.SPIKE_TSA.DROPOUT",
        *(f"MODEL.{part}.{key}" for part in ("FUSE", "SPIKE_TSA") for key in _CHUNKS),
    }
)
"""Keys of MODEL that change nothing of what a trained network computes."""


def network_differences(theirs: Config, ours: Config) -> list[str]:
    """Return each key of network, K and normalisation that differs, with both values."""
    old, new = leaves(theirs.model_dump(mode="json")), leaves(ours.model_dump(mode="json"))
    return [
        f"{key} ({old.get(key)!r} there, {new.get(key)!r} here)"
        for key in sorted(old.keys() | new.keys())
        if (key == "DATA.K" or key.startswith(("MODEL.", "DATA.NORM.")))
        and key not in _TRAINING_ONLY
        and old.get(key) != new.get(key)
    ]
