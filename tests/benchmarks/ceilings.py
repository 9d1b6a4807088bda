"""What could be reached on the photographs of `make bench-quality`, made of the truth itself."""

from __future__ import annotations

import sys

import numpy as np

from spikedeblur.pipeline.evaluate.metrics import psnr, ssim
from spikedeblur.pipeline.frames.images import to_uint8
from spikedeblur.pipeline.simulate.record import area_mean
from spikedeblur.pipeline.spikes.camera import LUMINANCE
from spikedeblur.pipeline.spikes.reconstruct import enlarge, sdm

from .quality import TESTS, moving_frames

CENTRES = (16, 31, 46)
HALF = 16
"""Frames of an exposure on each side of its middle."""


def ceilings(frames: np.ndarray, centre: int) -> dict[str, tuple[float, float]]:
    """Return PSNR in dB and SSIM of what is made of the true frames (T, H, W, 3) in [0, 1]."""
    exposed = frames[centre - HALF : centre + HALF + 1]
    sharp, blur = frames[centre], exposed.mean(0)
    light, seen = sharp @ np.float32(LUMINANCE), blur @ np.float32(LUMINANCE)
    colour = [enlarge(area_mean(sharp[..., c], 2), sharp.shape[:2]) for c in range(3)]
    made = {
        "blur": blur,
        "blur times the half-size luminance ratio": sdm(
            blur, area_mean(light, 2), area_mean(seen, 2)
        ),
        "half-size colour, enlarged": np.stack(colour, -1),
        "full-size luminance with the blur's colour": blur
        * (light / np.maximum(seen, 1e-3))[..., None],
    }
    true = to_uint8(sharp)
    return {name: (psnr(to_uint8(f), true), ssim(to_uint8(f), true)) for name, f in made.items()}


def main() -> int:
    """Print the mean over the windows of each test of `make bench-quality`."""
    for test in TESTS:
        found = []
        for photograph in test.photographs:
            for clip in range(test.clips):
                frames = np.stack(
                    list(moving_frames(photograph, clip, (192, 192), 65, crops=test.crops))
                )
                scaled = frames.astype(np.float32) / np.float32(255)
                found += [ceilings(scaled, centre) for centre in CENTRES]
        print(test.name)
        for name in found[0]:
            of_psnr, of_ssim = np.mean([one[name] for one in found], axis=0)
            print(f"  {name:44} {of_psnr:6.2f} dB {of_ssim:6.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
