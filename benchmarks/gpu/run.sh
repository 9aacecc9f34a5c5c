#!/usr/bin/env bash
# Everything that wants a GPU, in some minutes: what runs, what has the same bits, and how fast it is.
#
#   benchmarks/gpu/run.sh [--device cuda] [--output runs/gpu] [--small] [PART...]
#
# Parts are environment bits kernels scoring merge options search tests vllm; all by default, in this order, and compile,
# which is slow. Each has a time limit of its own, eight minutes in all and two for vLLM where it is installed, and what
# fails does not keep the next from running. The tables come last; logs are in the output folder.
# --small with --device cpu is a rehearsal; PATIENCE=5 makes the limits five times as long on a busy machine. PYTHON is
# the interpreter, python3 by default.
set -u
device=cuda output=runs/gpu small="" parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    --small) small=1; shift ;;
    *) parts+=("$1"); shift ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(environment bits kernels scoring merge options search tests vllm)
cd "$(dirname "$0")/../.." || exit
mkdir -p "$output"
output=$(realpath "$output")
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
workers=()
"$python" -c "import xdist" 2>/dev/null && workers=(-n 8)
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$(($2 * ${PATIENCE:-1})) started=$SECONDS code
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$output/$name.txt" 2>"$output/$name.err"
  code=$?
  echo "$name: exit code $code, $((SECONDS - started)) s" | tee -a "$output/parts.txt"
}

run_part() {
  case $1 in
    environment) part environment 20 "$python" benchmarks/gpu/environment.py --device "$device" ${small:+--small} ;;
    bits) part bits 70 "$python" benchmarks/gpu/same_bits.py --device "$device" ;;
    kernels) part kernels 40 "$python" benchmarks/gpu/kernels.py --device "$device" ;;
    tests) part tests 50 "$python" -m pytest -W default -p no:cacheprovider -p no:benchmark "${workers[@]}" \
      tests/merge_core/kernels/test_fused.py tests/merge_core/execute/test_device_sources.py \
      tests/evolve/scoring/backends -k "not vllm" ;;
    vllm)
      if "$python" -c "import vllm" 2>/dev/null; then
        part vllm 120 "$python" benchmarks/gpu/vllm_check.py --device "$device" ${small:+--small}
      else
        part vllm 5 echo "vllm is not installed"
      fi ;;
    scoring) part scoring 100 "$python" benchmarks/gpu/scoring_rates.py --device "$device" ${small:+--small} ;;
    compile) part compile 100 "$python" benchmarks/gpu/scoring_rates.py --device "$device" ${small:+--small} --parts compile ;;
    merge) part merge 70 "$python" benchmarks/gpu/merge_rates.py --device "$device" ${small:+--megabytes 40 --rounds 2} ;;
    options) part options 60 "$python" benchmarks/gpu/options.py --device "$device" ${small:+--items 4} ;;
    search) part search 70 "$python" benchmarks/gpu/search.py --device "$device" --output "$output/search" \
      ${small:+--evaluations 14 --items 4 --threads 2} ;;
    *) echo "there is no part $1" ;;
  esac
}

: >"$output/parts.txt"
for name in "${parts[@]}"; do run_part "$name"; done
for name in "${parts[@]}"; do
  echo
  echo "== $(grep "^$name:" "$output/parts.txt")"
  if [ "$name" = tests ]; then tail -n 12 "$output/$name.txt"; else cat "$output/$name.txt"; fi
  if ! grep -q "^$name: exit code 0," "$output/parts.txt"; then tail -n 8 "$output/$name.err" | cut -c1-300; fi
done
