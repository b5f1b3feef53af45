"""The names of `viprl.metrics`, to compare with what engines log."""

from __future__ import annotations

from viprl import metrics

KNOWN = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}


def unknown(logged, prefix=metrics.PREFIX):
    """The names below the prefix that are not constants of `viprl.metrics`."""
    own = {name.removeprefix(prefix) for name in logged if name.startswith(prefix)}
    assert own, "nothing of VIP was logged"
    return {name for name in own if name not in KNOWN and metrics.shadow_strategy(_ratio(name)) is None}


def _ratio(name):
    """The name of the ratio of a step for that of the running ratio of a shadow."""
    return name.removesuffix("running") + "variance_ratio" if name.startswith("shadow/") else name
