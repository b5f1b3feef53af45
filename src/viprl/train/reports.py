"""The trackers of `report_to`, and the packages that they need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from viprl.errors import ConfigError, MissingPackageError
from viprl.utils.words import did_you_mean

MODULES = {
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "kubeflow": (),
}
"""Tracker -> modules of which one is needed, if the module does not have the tracker's name."""
PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""Tracker -> package, if it has another name."""


def check_reports(trackers: Sequence[str]) -> None:
    """Raise MissingPackageError for a tracker whose package is not installed, ConfigError for an unknown one."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in trackers:
        if name not in INTEGRATION_TO_CALLBACK:
            known = sorted({*INTEGRATION_TO_CALLBACK, "all", "none"})
            hint = did_you_mean(str(name), known, n=1) or f"expected {', '.join(known)}"
            raise ConfigError(f"report_to has {name!r}; {hint}")
        modules = MODULES.get(name, (name,))
        if modules and not any(map(find_spec, modules)):
            raise MissingPackageError(
                f"report_to has {name!r}, but its package is not installed: pip install {PACKAGES.get(name, name)}, "
                "or set report_to: none"
            )
