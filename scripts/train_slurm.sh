#!/usr/bin/env bash
# Train under SLURM on one node or many, for longer than a job may last.
#
#   sbatch [--nodes N] [--gpus-per-node G] [...] scripts/train_slurm.sh --run DIR --config YAML [--set KEY=VALUE]...
#
# A minute before its time is over the job writes a checkpoint and queues itself again; so does
# SLURM when it takes the nodes for other jobs. The next start goes on from the checkpoint. The run
# folder and the data have to be on a disk that all nodes share.
#SBATCH --job-name=spikedeblur
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
set -uo pipefail

stopped=no
# B: the signal comes here, to be known. It goes on to the steps, not to srun, which would kill them.
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

python=${PYTHON:-python}
processes=${SLURM_GPUS_ON_NODE:-1}
if [[ $SLURM_JOB_NUM_NODES == 1 ]]; then
  srun "$python" -m spikedeblur train --gpus "$processes" --resume "$@" &
else # nodes meet at a port of the first, which takes whoever reaches it: docs/reliability.md
  head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  srun "$python" -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$processes" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:${MASTER_PORT:-29500}" \
    -m -- spikedeblur train --resume "$@" &
fi
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends `wait`, not what it waits for
  wait "$step"
  code=$?
done

if [[ $stopped == yes && $code != 0 ]]; then
  echo "stopped before the end; queueing job $SLURM_JOB_ID again" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
