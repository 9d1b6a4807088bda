#!/usr/bin/env bash
# Train on the GPUs of this machine: one process each, gradients averaged.
#
#   scripts/train_multi_gpu.sh GPUS --config YAML [--set KEY=VALUE]... [--run DIR] [--resume]
#
# A step then takes GPUS * BATCH_SIZE * GRADIENT_ACCUMULATION_STEPS clips. Several machines:
# run `torchrun --nnodes ... --rdzv-endpoint ... -m -- spikedeblur train ...` on each.
set -euo pipefail

if [[ $# -lt 1 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
gpus=$1
shift
exec "${PYTHON:-python}" -m spikedeblur.pipeline.train.launch "$gpus" "$@"
