#!/usr/bin/env bash
# Trains a study on two nodes of eight GPUs of a Slurm cluster, one model after another over all sixteen:
#
#     sbatch docs/launch/slurm.sh STUDY /shared/results
#
# One task a GPU; they find each other by Slurm's own variables. A minute and a half before the end every task is asked
# to save, and the job is queued again. Many small models need no script: a worker a GPU, as jobs of their own, is
#
#     lmscale sweep STUDY --out /shared/results --executor.name slurm --executor.gpus 1 --workers 16
#SBATCH --job-name=lmscale
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

study=${1:?the study: a file, or the name of one in ./experiments}
out=${2:?a folder that all nodes see}

srun --kill-on-bad-exit=0 lmscale run "$study" --out "$out" --mesh 1,16,1 &
step=$!
save_and_queue_again() {
    scancel --signal=TERM "$SLURM_JOB_ID.0" # tasks save their state and leave
    wait "$step" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap save_and_queue_again USR1
wait "$step"
