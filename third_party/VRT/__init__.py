"""VRT, the Video Restoration Transformer (Liang et al., arXiv 2201.12288), for deblurring.

Written from a specification, not from the published code; parameters keep the published names
and shapes, so that published weights load. See README.md beside this file.
"""

from .compiling import compile_blocks
from .network import VRT, VRTConfigError, pad_to_multiple
from .recompute import Recompute, set_recompute
from .torch_file import load_torch_file
from .weights import WeightsError, load_pretrained, plain_state_dict, read_state_dict

__all__ = [
    "VRT",
    "Recompute",
    "VRTConfigError",
    "WeightsError",
    "compile_blocks",
    "load_pretrained",
    "load_torch_file",
    "pad_to_multiple",
    "plain_state_dict",
    "read_state_dict",
    "set_recompute",
]
