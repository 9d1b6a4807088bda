#!/usr/bin/env bash
# As `spikedeblur train --gpus GPUS`, under the name that the reference document gives it.
#
#   scripts/train_multi_gpu.sh GPUS --config YAML [--set KEY=VALUE]... [--run DIR] [--resume]
exec "${PYTHON:-python}" -m spikedeblur train --gpus "$@"
