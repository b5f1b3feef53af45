#!/usr/bin/env bash
# One row of the paper with verl: train.sh MODEL ESTIMATOR BUDGET STRATEGY [verl overrides]
#   MODEL      hub name or folder, such as Qwen/Qwen2.5-Math-1.5B
#   ESTIMATOR  rloo | dr_grpo
#   BUDGET     8 or 16 rollouts a prompt on average
#   STRATEGY   default | paper | uniform | any other of viprl.STRATEGIES
# 8 GPUs of one node; for N nodes start Ray on all of them (README.md) and add trainer.nnodes=N.
set -euo pipefail
if [ $# -lt 4 ]; then sed -n 2,7p "$0"; exit 2; fi
model=$1 estimator=$2 budget=$3 strategy=$4; shift 4
case $budget in
  8)  min_rollouts=4 max_rollouts=16 ;;
  16) min_rollouts=8 max_rollouts=32 ;;
  *)  echo "BUDGET is $budget; expected 8 or 16" >&2; exit 2 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
name=$(basename "$model" | tr '[:upper:]' '[:lower:]')/$estimator-${budget}q-$strategy
extra=()
# The configuration of these models says 4,096 positions; the paper raises the limit to 32,768.
case $model in *Qwen2.5-Math*)
  export VLLM_ALLOW_LONG_MAX_MODEL_LEN=1
  extra+=(+actor_rollout_ref.model.override_config.max_position_embeddings=32768) ;;
esac
exec python -m verl.trainer.main_ppo --config-dir "$here" --config-name paper \
  actor_rollout_ref.model.path="$model" \
  algorithm.adv_estimator="vip_$estimator" \
  actor_rollout_ref.rollout.n="$budget" \
  trainer.v1.vip_sync.min_rollouts="$min_rollouts" trainer.v1.vip_sync.max_rollouts="$max_rollouts" trainer.v1.vip_sync.strategy="$strategy" \
  trainer.experiment_name="$name" trainer.default_local_dir="runs/$name" \
  "${extra[@]}" "$@"
