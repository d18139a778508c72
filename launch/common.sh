# Sourced by the launchers beside it: their options, quoting, and the one rule for what is started again.
# shellcheck shell=bash disable=SC2034

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# Both are shared with the script that sources this: its options with their defaults, and the flags of medjax.bin.train.
declare -gA option
declare -ga flags=()

fail() {
  echo "error: $*" >&2
  exit 2
}

say() { echo "$(basename "$0"): $*" >&2; }

# The comment at the top of the script.
usage() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# parse ARGUMENT...: fills `option`, whose keys are the options there are; those with the default "false" take no value,
# and those with the default "[]" may be repeated, a line each. All else, and what follows --, goes into `flags`.
parse() {
  local name value
  while [ $# -gt 0 ]; do
    case "$1" in
      --help | -h) usage && exit 0 ;;
      --) shift && flags+=("$@") && break ;;
    esac
    name="${1#--}" && name="${name%%=*}" && value="${1#*=}"
    if [[ "$1" != --* || -z "$name" || ! -v "option[$name]" ]]; then
      flags+=("$1") && shift
      continue
    fi
    if [[ "${option[$name]}" =~ ^(false|true)$ ]]; then
      [[ "$1" == *=* ]] || value=true
      [[ "$value" =~ ^(false|true)$ ]] || fail "--$name takes no value"
    elif [[ "$1" != *=* ]]; then
      [ $# -gt 1 ] || fail "--$name needs a value: --$name=VALUE"
      value="$2" && shift
    fi
    case "${option[$name]}" in
      "[]" | "[]"$'\n'*) option[$name]+=$'\n'"$value" ;;
      *) option[$name]="$value" ;;
    esac
    shift
  done
}

# repeated NAME: the values of an option that may be repeated, into the array `values`.
repeated() {
  values=()
  [ "${option[$1]}" = "[]" ] || mapfile -t values <<<"${option[$1]#*$'\n'}"
}

need() {
  local name
  for name in "$@"; do
    [ -n "${option[$name]}" ] || fail "pass --$name=...; --help lists all options"
  done
}

# whole NAME...: these options are whole numbers.
whole() {
  local name
  for name in "$@"; do
    [[ "${option[$name]}" =~ ^[0-9]+$ ]] || fail "--$name=${option[$name]} is not a whole number"
  done
}

# quote WORD...: one line that any shell splits into the same words.
quote() {
  local word space=""
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:,=@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    printf '%s%s' "$space" "$word" && space=" "
  done
  echo
}

# run COMMAND...: runs it, or prints it in a dry run.
run() {
  if [ "${option[dry_run]}" = true ]; then quote "$@"; else "$@"; fi
}

# Statuses of medjax.bin.train (medjax/errors.py): 74 storage failed, 75 preempted and saved, 76 hung or left alone by
# the others. Over 128 a signal ended it. 2 is bad input: the next attempt would find the same.
restartable() { [[ "$1" =~ ^7[456]$ ]] || { [ "$1" -gt 128 ] && [ "$1" -le 192 ]; }; }

pids=()    # what runs now, each the leader of a process group
follower=  # a process that shows what they write into a log
stopping=  # set once this script was told to end

# start COMMAND...: in the background, in a process group of its own, which a keyboard's interrupt reaches through us.
start() {
  set -m
  "$@" </dev/null &
  set +m
  pids+=("$!")
}

# JAX takes SIGTERM as the notice that the machine goes away: the run saves and ends with 75. A second interrupt kills.
_stop() {
  if [ -n "$stopping" ] && [ "$1" = INT ]; then _kill_rest; fi
  stopping=1
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
}

_kill_rest() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}

_clean_up() {
  _kill_rest
  [ -z "$follower" ] || { sleep 0.3 && kill "$follower" 2>/dev/null; } || true
}

# Waits until all have ended; `status` becomes that of the first that failed, or 2 where any found bad input. A process
# that is left alone waits for the others for ever: they get time after 74, 75, 76, when all are about to end, and none
# otherwise.
_wait_for_all() {
  local pid code left deadline=0
  status=0
  while [ ${#pids[@]} -gt 0 ]; do
    left=()
    for pid in "${pids[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        left+=("$pid")
        continue
      fi
      code=0
      wait "$pid" || code=$?
      if [ "$code" -ne 0 ] && [ "$status" -eq 0 ]; then
        status="$code"
        [[ ! "$code" =~ ^7[456]$ ]] || deadline=$((SECONDS + 30))
      fi
      [ "$code" -ne 2 ] || status=2
    done
    pids=(${left[@]+"${left[@]}"})
    [ ${#pids[@]} -gt 0 ] || break
    if [ "$status" -ne 0 ] && [ "$SECONDS" -ge "$deadline" ]; then _kill_rest; fi
    sleep 0.2
  done
}

# nap SECONDS: sleeps, unless told to end.
nap() {
  local until=$((SECONDS + $1))
  while [ -z "$stopping" ] && [ "$SECONDS" -lt "$until" ]; do sleep 0.2; done
}

# keep_going ATTEMPT: calls the function ATTEMPT, which calls `start`, again and again while what it started ends in a
# way that calls for it. Ends the script with the last status.
keep_going() {
  local attempt="$1" restarts=0 delay="${option[restart_delay]}" began
  trap '_stop TERM' TERM HUP USR1
  trap '_stop INT' INT
  trap _clean_up EXIT
  while :; do
    began="$SECONDS"
    "$attempt"
    _wait_for_all
    if [ -n "$stopping" ] || ! restartable "$status"; then break; fi
    if [ "$restarts" -ge "${option[max_restarts]}" ]; then
      [ "$restarts" -eq 0 ] || say "restarted $restarts times, as often as --max_restarts allows"
      break
    fi
    restarts=$((restarts + 1))
    # What fails at once will fail again; what ran for a while deserves a quick restart.
    [ $((SECONDS - began)) -lt 600 ] || delay="${option[restart_delay]}"
    say "status $status; restart $restarts of ${option[max_restarts]} in $delay s"
    nap "$delay"
    [ -z "$stopping" ] || break
    delay=$((delay * 2 > 300 ? 300 : delay * 2))
  done
  say "ended with status $status"
  exit "$status"
}
