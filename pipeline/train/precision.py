"""Numbers that the forward pass computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import SpikeDeblurError


def cpu_computes_bf16() -> bool:
    """Whether the CPU has instructions for bf16; without them it takes 12 times float32's time."""
    if hasattr(torch.cpu, "get_capabilities"):  # from torch 2.11 on
        can = torch.cpu.get_capabilities()
        return any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16", "arm_bf16"))
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False  # TRAIN.AMP=bf16 asks for it all the same
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(flags)


@dataclass(frozen=True, slots=True)
class Precision:
    """Autocast and gradient scaling; parameters, gradients and losses stay float32."""

    device: torch.device
    dtype: torch.dtype | None
    """bfloat16, float16, or None: float32 throughout."""

    @classmethod
    def choose(cls, amp: str, device: torch.device) -> Precision:
        """Return the precision of TRAIN.AMP on a device.

        Raises:
            SpikeDeblurError: fp16 without a GPU.
        """
        if amp == "auto":
            if device.type != "cuda":
                return cls(device, torch.bfloat16 if cpu_computes_bf16() else None)
            # Emulated bf16 is slower than float32; fp16 is what those GPUs are built for.
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return cls(device, torch.bfloat16 if native else torch.float16)
        if amp == "fp16" and device.type != "cuda":
            raise SpikeDeblurError(
                "TRAIN.AMP: fp16 needs a GPU, and this process has none; use bf16, off or auto"
            )
        return cls(device, {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp])

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the forward pass."""
        return torch.autocast(
            self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None
        )

    def scaler(self) -> torch.amp.GradScaler:
        """Return the gradient scaler, which does nothing except for float16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
