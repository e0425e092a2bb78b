#!/bin/bash
# Trains on several machines of a Slurm cluster: one torchrun on each, one process for each of its GPUs.
#
#     sbatch --nodes 4 --gpus-per-node 8 recipes/worlds/slurm.sh recipes/collection.yaml --world my/world.yaml --set train.shard_base=true
#
# Every word after the script's name goes to `clora run`. The folder that holds `runs` (RUNS below) and the models' cache
# must be on a disk that all machines see; only the first process writes. Run the same command again to go on from the
# last checkpoint, with as many machines as you like. A job near its time limit is told and saves one (--signal).
#SBATCH --job-name=clora
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=clora-%j.log

set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch [--nodes N] $0 RECIPE [words for clora run]" >&2
    exit 2
fi

RUNS="${RUNS:-runs}"
GPUS="${SLURM_GPUS_ON_NODE:-8}"
FIRST="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
PORT="$((20000 + SLURM_JOB_ID % 20000))"

# a model comes from the machines' shared cache: hundreds of processes should not ask the Hub at once
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc_per_node "$GPUS" \
    --rdzv_id "$SLURM_JOB_ID" \
    --rdzv_backend c10d \
    --rdzv_endpoint "$FIRST:$PORT" \
    -m clora run "$@" --runs "$RUNS"
