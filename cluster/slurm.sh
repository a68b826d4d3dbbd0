#!/usr/bin/env bash
# Slurm: one Ray cluster for one run or sweep, on all hosts of the job, stopped when it ends.
#
# Needs: knife installed in KNIFE_VENV (default: .venv in the folder of sbatch), on a file system that
#   all hosts share, as is the store.
# Launch, with the arguments of any knife command:
#   sbatch --nodes=4 --gpus-per-node=8 cluster/slurm.sh run strategyqa-t5-base scale.workers=32 store=/shared/knife-store
#   sbatch --nodes=2 cluster/slurm.sh tune tune/smoke.yaml store=/shared/knife-store
# Submit the same line again to resume a job that was stopped, for example by its time limit.
#SBATCH --job-name=knife
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=knife-%j.log
#SBATCH --signal=B:TERM@120
set -euo pipefail

if (($# == 0)); then
    echo "usage: sbatch [--nodes=N --gpus-per-node=N] cluster/slurm.sh run|tune …" >&2
    exit 2
fi
# shellcheck source=/dev/null
source "${KNIFE_VENV:-.venv}/bin/activate"

# Other users have jobs on these hosts: this job gets its own token, in a file that only we can read.
umask 077
secrets=$(mktemp -d "$PWD/.knife-$SLURM_JOB_ID.XXXXXX")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$secrets/token" RAY_USAGE_STATS_ENABLED=0
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH"

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
head_address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
# Jobs that share a host need different ports.
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="$head_address:$port"

steps=()
run=
# shellcheck disable=SC2329  # by trap
clean_up() {
    # A stopped run writes its last lines before its cluster is stopped.
    if [[ -n $run ]]; then kill -TERM "$run" 2>/dev/null && wait "$run" || true; fi
    for step in "${steps[@]}"; do kill -TERM "$step" 2>/dev/null || true; done
    wait
    rm -rf "$secrets"
}
trap clean_up EXIT
trap 'exit 143' TERM INT

gpus=${SLURM_GPUS_ON_NODE:-0}
start() { # HOST WORDS…: Ray on one host, until the job ends
    local host=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$host" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        env -u RAY_ADDRESS ray start --block --disable-usage-stats \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" "$@" &
    steps+=($!)
}

hosts_up() { # how many hosts the cluster has; 0 while it does not answer
    timeout 60 ray list nodes --filter state=ALIVE --format json 2>/dev/null |
        python -c 'import json, sys; print(len(json.load(sys.stdin)))' 2>/dev/null || echo 0
}

wait_for_hosts() { # COUNT: until this many are up, a step has failed, or 10 minutes have passed
    local end=$((SECONDS + 600))
    until (($(hosts_up) >= $1)); do
        for step in "${steps[@]}"; do
            if ! kill -0 "$step" 2>/dev/null; then
                echo "Ray has stopped on a host; see above" >&2
                exit 1
            fi
        done
        if ((SECONDS > end)); then
            echo "only $(hosts_up) of $1 hosts are up after 10 minutes" >&2
            exit 1
        fi
        sleep 1
    done
}

start "$head" --head --node-ip-address="$head_address" --port="$port" --dashboard-host=127.0.0.1
wait_for_hosts 1
for host in "${hosts[@]:1}"; do
    start "$host" --address="$RAY_ADDRESS"
done
wait_for_hosts "${#hosts[@]}"

# In the background, so that a signal reaches this script at once.
knife "$@" &
run=$!
status=0
wait "$run" || status=$?
run=
exit "$status"
