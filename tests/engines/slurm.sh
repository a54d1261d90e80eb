#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for the tests: munged, slurmctld and slurmd, all of their files in FOLDER,
# on loopback and on ports of their own.
#
#   slurm.sh start FOLDER CONTROLLER_PORT NODE_PORT    installs Slurm where it is missing (Debian, as root), starts it,
#                                                      waits until the node is idle; SLURM_CONF=FOLDER/slurm.conf
#   slurm.sh stop FOLDER                               ends what start has started, by process id
#
# Status 77: it cannot be had here, for the reason on standard error.
set -euo pipefail
action=$1 folder=$2

cannot() {
    echo "$1" >&2
    exit 77
}

install_slurm() {
    command -v apt-get >/dev/null || cannot "no slurmctld here, and no apt-get to install slurm-wlm and munge with"
    # the packages would start services of their own; a policy that forbids it, for the time of the installation
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends slurm-wlm munge; } >"$folder/install.log" 2>&1 ||
        cannot "slurm-wlm and munge cannot be installed: $(tail -n 1 "$folder/install.log")"
}

start() {
    [ "$(id -u)" = 0 ] || cannot "only root can start slurmd for these tests"
    chmod 755 "$folder" # munged runs as munge, and refuses a path that others could write to
    for program in munged slurmctld slurmd sbatch srun; do
        command -v "$program" >/dev/null || { install_slurm && break; }
    done

    mkdir "$folder/munge" "$folder/state" "$folder/spool"
    head -c 1024 /dev/urandom >"$folder/munge/key"
    chmod 400 "$folder/munge/key"
    chmod 711 "$folder/munge"
    chown -R munge: "$folder/munge"
    runuser -u munge -- munged --socket="$folder/munge/socket" --key-file="$folder/munge/key" \
        --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

    # cred_expire is also how long a job that is queued again has to wait
    cat >"$folder/slurm.conf" <<CONF
ClusterName=lmscale
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$1
SlurmdPort=$2
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=3
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
KillWait=20
ReturnToService=2
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld
    slurmd
    for _ in $(seq 100); do
        [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && return
        sleep 0.2
    done
    tail -n 5 "$folder/slurmctld.log" "$folder/slurmd.log" >&2
    stop
    cannot "the node does not become idle"
}

stop() {
    local file process
    for file in slurmd.pid slurmctld.pid munge/pid; do
        [ -f "$folder/$file" ] || continue
        process=$(cat "$folder/$file")
        kill "$process" 2>/dev/null || continue
        for _ in $(seq 100); do
            kill -0 "$process" 2>/dev/null || break
            sleep 0.1
        done
    done
}

case $action in
start) start "$3" "$4" ;;
stop) stop ;;
esac
