#!/usr/bin/env bash
# Trains a study on a TPU slice of Google Cloud: makes the slice, installs lmscale on its hosts, and works on all of them.
#
#     docs/launch/tpu_vm.sh packed STUDY     # many small models: a worker a chip (--mesh 1,1,1), all hosts side by side
#     docs/launch/tpu_vm.sh whole STUDY      # one model after another over the whole slice (the study's mesh: all chips)
#
# What is left of a study that was interrupted is trained by the same command. Results lie on a bucket that every host
# can write to. `lmscale aot STUDY --topology v5e:4x4` says beforehand what fits.
set -euo pipefail

how=${1:?packed or whole}
study=${2:?the study: a file, or the name of one in ./experiments}
: "${TPU_NAME:=lmscale}" "${ZONE:?such as europe-west4-b}" "${BUCKET:?gs://NAME, to which the hosts may write}"
: "${ACCELERATOR_TYPE:=v5litepod-16}" "${RUNTIME_VERSION:=v2-alpha-tpuv5-lite}"
: "${SOURCE:?where pip finds lmscale, such as git+https://HOST/OWNER/lmscale}"

on_every_host() {
    gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone "$ZONE" --worker=all --command "$1"
}

if ! gcloud compute tpus tpu-vm describe "$TPU_NAME" --zone "$ZONE" >/dev/null 2>&1; then
    gcloud compute tpus tpu-vm create "$TPU_NAME" --zone "$ZONE" \
        --accelerator-type "$ACCELERATOR_TYPE" --version "$RUNTIME_VERSION"
    on_every_host "python3 -m venv ~/lmscale && ~/lmscale/bin/pip install --quiet 'lmscale[tpu,gs] @ $SOURCE'"
fi
gcloud compute tpus tpu-vm scp --recurse experiments "$TPU_NAME": --zone "$ZONE" --worker=all

case $how in
packed)
    # Each host is a machine by itself, so no job of several processes; its workers are pinned to chips of their own.
    # Hosts agree through the leases of the trajectories in the bucket.
    on_every_host "LMSCALE_PROCESSES=1 ~/lmscale/bin/lmscale sweep $study --out $BUCKET/results --mesh 1,1,1"
    ;;
whole)
    # One process a host, which find each other by the slice's own metadata.
    on_every_host "~/lmscale/bin/lmscale run $study --out $BUCKET/results"
    ;;
*)
    echo "how: $how is neither packed nor whole" >&2
    exit 2
    ;;
esac
