"""Every rule of the package keeps the contract."""

from __future__ import annotations

import pytest

from viprl.strategies import STRATEGIES
from viprl.testing import RuleContract

RULES = {type(build().rule): build for _, build in STRATEGIES.values()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
class TestRules(RuleContract):
    @pytest.fixture(autouse=True)
    def _choose(self, rule) -> None:
        self.rule = rule

    def build(self):
        return self.rule()
