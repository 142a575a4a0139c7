#!/usr/bin/env bash
# What there is to measure on a GPU, in at most 12 minutes on an H100: tests, training step and encoder beside CaPOYO
# and POYO, the demo, and the picture decoder.
#
#   benchmarks/gpu.sh [--device cuda] [--quick] [--peak-tflops 989] [--out gpu_results]
#
# --quick: the smallest sizes, to try the script out, also with --device cpu. POYO is measured with .venv (make test
# sets it up), CaPOYO where .venv-upstream01 exists (make compat); PYTHON names another interpreter than .venv's.
set -euo pipefail
cd "$(dirname "$0")/.."
device=cuda quick= peak=() out=gpu_results
while [ $# -gt 0 ]; do
  case "$1" in
    --device) device=$2; shift 2 ;;
    --quick) quick=1; shift ;;
    --peak-tflops) peak=(--peak-tflops "$2"); shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) echo "benchmarks/gpu.sh [--device cuda] [--quick] [--peak-tflops 989] [--out gpu_results]" >&2; exit 2 ;;
  esac
done
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
began=$SECONDS

section() {  # NAME SECONDS COMMAND…: its output goes to OUT/NAME.txt, and it may take so long
  local name=$1 limit=$2 code=0 start=$SECONDS
  shift 2
  timeout "$limit" "$@" > "$out/$name.txt" 2>&1 || code=$?
  [ $code -eq 124 ] && code="0 (stopped after $limit s)"
  echo "| $name | $((SECONDS - start)) | $code |" | tee -a "$out/summary.md"
  [ "${code%% *}" = 0 ] || failed=1
}

failed=
"$python" - "$device" > "$out/summary.md" <<'PYTHON'
import sys

import torch

name = torch.cuda.get_device_name() if sys.argv[1].startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
print(f"{name}; torch {torch.__version__}\n\n| section | seconds | exit code |\n| --- | --- | --- |")
PYTHON

NEUROBRIDGE_DEVICE=$device section tests 120 "$python" -m pytest -q -m gpu tests/engine/test_gpu.py
sizes=(-n 96 -n 384 -n 1024 -t 6 -t 30)
[ -n "$quick" ] && sizes=(-n 10 -t 2 --repeats 1)
for interpreter in "$python" .venv-upstream01/bin/python; do
  [ -x "$(command -v "$interpreter")" ] || continue
  line=$("$interpreter" -c 'from neurobridge_tb._upstream import UPSTREAM_LINE; print(UPSTREAM_LINE)')
  for script in train_step encoder; do
    for form in eager compiled; do
      [ -n "$quick" ] && [ $form = compiled ] && continue  # minutes on a CPU
      options=(--device "$device" "${sizes[@]}" --precision fp32 --precision bf16 "${peak[@]}")
      [ $form = compiled ] && options+=(--compiled)
      section "$script.$line.$form" 60 "$interpreter" "benchmarks/$script.py" "${options[@]}" \
        --out "$out/$script.$line.$form.md"
    done
  done
done
if [ -n "$quick" ]; then
  section demo 300 "$python" -m neurobridge_tb.cli demo "$out/demo" --tiny
  section decoder 120 "$python" examples/train_procedural_decoder.py --out "$out/decoder" --device "$device" \
    --steps 2 --autoencoder-steps 2 --batch-size 4 --fitted-to 600 --workers 0
else
  section demo 240 "$python" -m neurobridge_tb.cli demo "$out/demo"
  section decoder $((700 - (SECONDS - began) > 60 ? 700 - (SECONDS - began) : 60)) "$python" \
    examples/train_procedural_decoder.py --out "$out/decoder" --device "$device" --dtype bfloat16 --workers 8
fi
echo "Results lie in $out"
[ -z "$failed" ]
