"""A price that meets a budget on average, for engines that ask for one prompt, or a few, at a time.

    symbol  meaning                                                       shape
    x       log price of a rollout, in units of the variance              scalar
    m       rollouts of a prompt on average                               scalar
    n       counts that were planned at the price                         [Q]

After each call x moves by min(g Q, 1) (mean n - m)/m. The sum of n - m, the *drift*, is therefore m/g times the
distance that x has moved (as long as g Q < 1). It is bounded, because far enough away every prompt gets its fewest or
its most rollouts, and it does not grow with the number of prompts.
"""

from __future__ import annotations

import math

from viprl.utils.state_checks import number_entry
from viprl.utils.state_file import State


class RunningPrice:
    """The price, and what was spent beyond the average.

    Args:
        gain: g, by how much the log price moves if a prompt gets twice the average.
    """

    def __init__(self, *, gain: float = 0.02) -> None:
        self.gain = gain
        self._log_price: float | None = None
        self.drift = 0.0
        """Rollouts beyond the average so far."""

    def price(self, start: float) -> float:
        """The price now; `start` if none was used yet."""
        return start if self._log_price is None else math.exp(self._log_price)

    def spent(self, price: float, rollouts: int, prompts: int, average: float) -> None:
        """Learn that `prompts` prompts got `rollouts` at this price."""
        excess = rollouts - average * prompts
        step = min(self.gain * prompts, 1.0) * excess / (average * prompts)
        self._log_price = min(max(math.log(price) + step, -300.0), 300.0)
        self.drift += excess

    def state_dict(self) -> State:
        return {"log_price": self._log_price, "drift": self.drift}

    def load_state_dict(self, state: State) -> None:
        log_price = None if state.get("log_price") is None else number_entry(state, "log_price", least=-300, most=300)
        self.drift = number_entry(state, "drift")
        self._log_price = log_price
