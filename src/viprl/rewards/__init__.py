"""Reward functions, as TRL calls them: texts or chats in, 1, 0 or None for each completion out.

| function | the answer is | compared |
|---|---|---|
| `exact_match` | the whole completion | as text, apart from white space |
| `math` | the last ``\\boxed{}`` | mathematically |
| `math_last_number` | the last number | mathematically |

In a configuration file each has its name: ``reward: math``. `compute_score` is `math` in the form that verl calls.
`viprl.rewards.grading` finds and compares the answers.
"""

from viprl.rewards.built_in import Reward, exact_match, math, math_last_number
from viprl.rewards.registry import resolve_rewards
from viprl.rewards.verl import compute_score

__all__ = ["Reward", "compute_score", "exact_match", "math", "math_last_number", "resolve_rewards"]
