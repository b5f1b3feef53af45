"""The names of `viprl.metrics`, to compare with what engines log."""

from __future__ import annotations

from viprl import metrics

KNOWN = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}


def unknown(logged, prefix=metrics.PREFIX):
    """The names below the prefix that are not constants of `viprl.metrics`."""
    own = {name.removeprefix(prefix) for name in logged if name.startswith(prefix)}
    assert own, "nothing of VIP was logged"
    return {name for name in own if name not in KNOWN and not _of_a_shadow(name)}


def _of_a_shadow(name):
    shadow = name.split("/")[1] if name.count("/") == 2 else ""
    return name in (metrics.shadow_ratio(shadow), metrics.shadow_ratio(shadow, running=True))
