"""The names and values of all metrics that a run logs.

Engines put `PREFIX` before the names of the allocation. Those below OTHER METRICS are logged as they are, by trainers.
Readers of logs use the constants, never the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

PREFIX = "vip/"

COUNTS_MIN, COUNTS_MEAN, COUNTS_MAX = "counts/min", "counts/mean", "counts/max"
"""Rollouts of a prompt in the batch."""
PREDICTED_RATIO = "variance_ratio/predicted"
"""Gradient variance of the rollouts relative to uniform counts at the whole budget, as predicted. The reference has
baselines of the group and, where prompts are selected, prompts that are chosen by chance."""
REALISED_RATIO = "variance_ratio/realised"
"""The same as measured from the outcomes of the batch: unbiased but noisy; NaN if no group was mixed."""
RUNNING_RATIO = "variance_ratio/running"
"""The same over the whole run so far."""
SUCCESS_RATE = "success_rate"
"""Mean over the prompts of the batch of the success rate of their groups. With adaptive counts a mean over rollouts
weighs prompts with many rollouts more. If the batch was selected, prompts have the weights that they have in the
gradient: an estimate for all candidates, unless `unbiased` is False."""
PROMPT_REWARD = "reward"
"""The same of the mean total reward of the groups."""
REWARD_VARIANCE = "reward_variance"
"""Mean over the prompts of the sample variance of their rewards."""
ZERO_ADVANTAGE = "zero_advantage_rollouts"
"""Share of the rollouts of the batch whose advantage is exactly 0, so that they add nothing to the gradient. Engines
read the advantages; `viprl.VIP` alone knows outcomes only, and gives the value of UNINFORMATIVE."""
UNINFORMATIVE = "uninformative_rollouts"
"""Share of the rollouts in groups whose rewards are all equal, among groups with a scorable rollout. Larger than
ZERO_ADVANTAGE if other rewards, or a KL penalty in the reward, give such groups an advantage."""
UNSCORABLE = "unscorable"
"""Share of the rollouts whose reward was None, NaN or unreadable."""
BRIER, LOG_LOSS = "brier", "log_loss"
"""Scores of the success probabilities predicted before sampling, mean over prompts; of binary rewards."""
TRUST = "trust"
"""1 if the guard uses the prediction as it is, 0 if it allocates uniformly."""
BAD_PREDICTIONS = "bad_predictions"
"""1 if the predictions of the batch could not be used, so that it was sampled without them; otherwise 0."""
EFFECTIVE_PROMPTS, SQUARED_WEIGHTS = "selection/effective_prompts", "selection/squared_weights"
"""Of a batch that was selected: (sum v)^2 / sum v^2 and the mean of v^2, where v are the weights of the prompts."""
SELECTION_TRUST = "selection/trust"
"""1 if the predicted sizes of gradients decide who is sampled, 0 if chance alone does."""
NEGLECTED = "selection/neglected"
"""Share of the prompts offered in the last steps that were not sampled in them (`viprl.allocation.sampling_record`)."""
SHRINKAGE = "shrinkage"
"""How far baselines are shrunk towards expected rewards, if they are: 1 as the belief says, 0 not at all."""
LOOKS, SECOND_WAVE = "waves/first_looks", "waves/second_wave"
"""Where two waves are asked for: share of the prompts that got a first look, and share of the rollouts in the second
wave; 0 if the batch was sampled at once."""
WAVES_TRUST = "waves/trust"
"""1 as long as two waves may be used, 0 after they have done harm."""
SPENT_ROLLOUTS, SAVED_ROLLOUTS = "spending/rollouts", "spending/rollouts_saved"
"""Rollouts of the batch, and the share of the budget that was not spent."""
SPENT_TOKENS, SAVED_TOKENS = "spending/tokens", "spending/tokens_saved"
"""Tokens of the batch, and the share that is saved of what uniform counts would have cost, from the lengths of the
batch itself. Rollouts of unknown length count as the others of their prompt."""
PREDICTED_TOKENS = "spending/tokens_predicted"
"""Tokens of the batch, as predicted."""
AIM = "spending/aim"
"""With spend="match": the predicted variance, relative to uniform counts, that was aimed at."""
DRIFT = "spending/drift"
"""With an average in place of a budget: rollouts beyond the average, over the whole run."""
OVERHEAD = "overhead_seconds"
"""Time that VIP took for the batch."""
ROLLOUTS = "rollouts"
"""verl: rollouts of the step."""
ROLLOUT_REWARD = "rollout_reward"
"""tinker-cookbook: total reward of each rollout, before it is shaped for training."""
GRADIENT_SECOND_MOMENT = "gradient/second_moment"
"""TRL: |G|^2 of the batch gradient before clipping. Its mean over steps is S + V_b + V_w."""
GRADIENT_WITHOUT_ROLLOUTS = "gradient/without_rollouts"
"""TRL: estimate of S + V_b, what remains of the second moment without the noise of rollouts, from products of
micro-batches; noisy for a single step."""
GRADIENT_SIGNAL = "gradient/signal"
"""TRL: estimate of S, the squared mean gradient, from the product of consecutive batch gradients; noisy."""
ROLLOUT_NOISE = "gradient/rollout_noise"
"""TRL: V_w/(S + V_b + V_w), the share of the second moment that counts can lower, from means over the last 20 steps or
so."""
PADDING_ROWS = "padding_rows"
"""verl: masked rows that verl added to the step."""

ROLLOUTS_COLUMN = "vip_rollouts"
"""TRL: column of the logged completions with the rollouts of each prompt."""
WAVE_COLUMN = "vip_wave"
"""TRL: column of the logged completions with the wave of each rollout, 1 or 2."""

# OTHER METRICS
REWARD = "reward"
"""TRL: mean reward of the step."""
EVALUATION_PREFIX = "eval_"
"""TRL: begins the names of the metrics of an evaluation."""
EVALUATION_REWARD = "eval_reward"
"""TRL: mean reward of an evaluation."""
EQUAL_REWARD_GROUPS = "frac_reward_zero_std"
"""TRL: share of the groups whose rewards are all equal."""
STEP_TIME = "step_time"
"""TRL: seconds of the step."""
EPOCH = "epoch"
"""TRL: passes over the data so far; at most 1 in the first."""
HELD_OUT_SUCCESS, POOL_SUCCESS = "eval/held_out_success", "eval/pool_success"
"""Quickstart: mean success probability, which is exact, of the held-out and of the training prompts."""


def shadow_ratio(strategy: str, *, running: bool = False) -> str:
    """Name of the realised (or running) variance ratio of a shadow strategy."""
    return f"shadow/{strategy}/{'running' if running else 'variance_ratio'}"


def shadow_strategy(name: str) -> str | None:
    """The strategy whose realised ratio is logged under `name`, see `shadow_ratio`; None for other metrics."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 and name == shadow_ratio(parts[1]) else None


def logged(values: Mapping[str, float]) -> dict[str, float]:
    """The metrics of VIP under their names in a log; those without a value (NaN) are left out."""
    return {PREFIX + name: value for name, value in values.items() if not math.isnan(value)}


def ratio(value: float, reference: float) -> float:
    """value/reference; NaN if the reference is 0, because then nothing was measured."""
    return float(value / reference) if reference > 0 else float("nan")
