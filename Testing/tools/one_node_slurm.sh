#!/usr/bin/env bash
# Starts SLURM on this machine alone, runs a command in it, ends it: a cluster of one node, on loopback, without cgroups
# and systemd, in a temporary folder. Debian, as root: apt-get install slurmctld slurmd slurm-client munge
#
#   Testing/tools/one_node_slurm.sh COMMAND [ARGUMENT …]
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT …]" >&2; exit 2; }
export PATH="$PATH:/usr/sbin"
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" > /dev/null || { echo "$0: no $program here" >&2; exit 2; }
done

folder=$(mktemp -d "${TMPDIR:-/tmp}/one-node-slurm-XXXXXX")
chmod 755 "$folder"
node=$(hostname -s)
mkdir "$folder/state" "$folder/spool"
memory=$(awk "/^MemTotal/ { print int(\$2 / 1024) }" /proc/meminfo) # MB
munged=() controller=() daemon=()

finish() {
    scancel --user="$(id -un)" 2> /dev/null || true
    for process in "${daemon[@]}" "${controller[@]}" "${munged[@]}"; do
        kill "$process" 2> /dev/null || true
        for _ in $(seq 100); do kill -0 "$process" 2> /dev/null || break; sleep 0.1; done
        kill -KILL "$process" 2> /dev/null || true
    done
    [ -n "${KEEP_SLURM:-}" ] && echo "$0: kept $folder" >&2 || rm -rf "$folder"
}
trap finish EXIT

dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none
chmod 400 "$folder/munge.key"
munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --num-threads=2 \
    --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed" --log-file="$folder/munged.log" \
    > "$folder/munged.out" 2>&1 &
munged=($!)

cat > "$folder/slurm.conf" << END
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,defer_batch
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF="$folder/slurm.conf"
for _ in $(seq 100); do [ -S "$folder/munge.socket" ] && break; sleep 0.1; done
slurmctld -D -c > "$folder/slurmctld.out" 2>&1 &
controller=($!)
slurmd -D -N "$node" > "$folder/slurmd.out" 2>&1 &
daemon=($!)
for _ in $(seq 300); do
    sinfo --noheader --format=%t 2> /dev/null | grep -q '^idle$' && break
    sleep 0.2
done
if ! sinfo --noheader --format=%t 2> /dev/null | grep -q '^idle$'; then
    tail -n 20 "$folder"/*.log "$folder"/*.out >&2
    echo "$0: SLURM does not start" >&2
    exit 1
fi
"$@"
