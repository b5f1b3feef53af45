"""What a rule is: from beliefs to counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from viprl.allocation import Budget, IntArray
from viprl.predictors.protocol import Prediction

Rule = Callable[[Prediction, Budget, np.random.Generator], IntArray]
"""[Q] whole counts that spend `Budget.total` within its bounds. Pure: the generator is its only source of chance."""
