#!/usr/bin/env bash
# Trains with several processes on this host, each with its own devices, as several hosts would; with N = 1 with one
# process, which finds those of other hosts by itself on SLURM, and with --coordinator=auto on TPU VMs.
#
#   bash launch/several_processes.sh N [options] --config=configs/phantom.py --config.data.dir=DATA --workdir=RUN
#
# Options, all others and what follows -- go to python -m medjax.bin.train unchanged:
#   --max_restarts=100   start again this often after exit statuses 74, 75, 76 and death by a signal, not after 2
#   --restart_delay=10   seconds before the first restart; doubles, up to 300, while attempts last less than ten minutes
#   --cache_dir=DIR      what is compiled is kept here [JAX_COMPILATION_CACHE_DIR, or ~/.cache/medjax/jax]
#   --python=python3     the interpreter [PYTHON]
#   --log=FILE           append output there and show it as it comes; training goes on when nobody looks any more
#   --pid_file=FILE      end what an earlier call with this file left running, letting it save, before starting
#   --stop               only that: end what runs with --pid_file
#   --dry_run            print the commands, one a line, and do nothing
#
# SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM: the run saves, ends with 75, and so does this script.
# shellcheck source-path=SCRIPTDIR disable=SC2329
set -euo pipefail
source "$(dirname "$0")/common.sh"

option=(
  [max_restarts]=100 [restart_delay]=10 [python]="${PYTHON:-python3}" [log]="" [pid_file]="" [stop]=false
  [dry_run]=false
  [cache_dir]="${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/medjax/jax}"
)
case "${1:-}" in
  --help | -h) usage && exit 0 ;;
esac
count="${1:-}"
[[ "$count" =~ ^[1-9][0-9]*$ ]] || fail "how many processes? bash launch/several_processes.sh N ..."
parse "${@:2}"
whole max_restarts restart_delay
if [ "${option[stop]}" = true ]; then need pid_file; fi

# Ends what an earlier call left on this host: its processes are asked to save, and killed ten minutes later.
end_earlier() {
  local pid left earlier waited
  for ((waited = 0; waited < 3000; waited++)); do
    left=() earlier=()
    [ ! -f "${option[pid_file]}" ] || read -ra earlier <"${option[pid_file]}" || true
    for pid in ${earlier[@]+"${earlier[@]}"}; do
      ! grep -qsE 'several_processes.sh|medjax.bin.train' "/proc/$pid/cmdline" || left+=("$pid")
    done
    [ ${#left[@]} -gt 0 ] || return 0
    if [ "$waited" -eq 0 ]; then
      say "process ${left[0]} of an earlier call still runs: it is told to save and end"
      kill -TERM "${left[0]}" 2>/dev/null || true  # the script, which tells the others, or one of them, which does too
    fi
    sleep 0.2
  done
  kill -KILL "${left[@]}" 2>/dev/null || true
}

free_port() {
  "${option[python]}" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

command=(env "JAX_COMPILATION_CACHE_DIR=${option[cache_dir]}")
# On CPU, XLA's collectives wait for ever with fewer threads than this.
[ "$count" -eq 1 ] || command+=("NPROC=${NPROC:-16}")
command+=("${option[python]}" -m medjax.bin.train ${flags[@]+"${flags[@]}"})

# process INDEX PORT: the command of one process, into the array `one`.
process() {
  one=("${command[@]}")
  [ "$count" -eq 1 ] || one+=("--coordinator=localhost:$2" "--process_count=$count" "--process_index=$1")
}

attempt() {
  local i port=""
  [ "$count" -eq 1 ] || port="$(free_port)"
  for ((i = 0; i < count; i++)); do
    process "$i" "$port"
    if [ -n "${option[log]}" ]; then start "${one[@]}" >>"${option[log]}" 2>&1; else start "${one[@]}"; fi
  done
  [ -z "${option[pid_file]}" ] || echo "$$ ${pids[*]}" >"${option[pid_file]}"
}

if [ "${option[dry_run]}" = true ]; then
  for ((i = 0; i < count; i++)); do
    process "$i" PORT
    quote "${one[@]}"
  done
  exit 0
fi
if [ -n "${option[pid_file]}" ]; then
  end_earlier
  if [ "${option[stop]}" = true ]; then exit 0; fi
  mkdir -p "$(dirname "${option[pid_file]}")"
fi
if [ -n "${option[log]}" ]; then
  mkdir -p "$(dirname "${option[log]}")"
  touch "${option[log]}"
  tail -n 0 -F --pid="$$" "${option[log]}" 2>/dev/null &
  follower="$!"
  trap '' PIPE  # whoever looks may go away
fi
keep_going attempt
