"""An installed package that lacks an API is reported by name."""

from types import SimpleNamespace

import pytest

from viprl.engines.version_contract import VersionContract
from viprl.errors import MissingPackageError


class Trainer:
    field: int

    def step(self, batch): ...

    def free(self, **anything): ...


CONTRACT = VersionContract(
    "numpy>=1",
    {
        "a.trainer": {"Trainer": ("field", "step"), "Trainer.step": ("batch",), "Trainer.free": ("whatever",)},
        "a.queue": {"get": ("keys",)},
    },
)


def test_what_is_there_passes():
    CONTRACT.check({"a.trainer": SimpleNamespace(Trainer=Trainer), "a.queue": SimpleNamespace(get=lambda keys: keys)})


def test_everything_that_is_missing_is_named():
    class Moved:
        def step(self, rows): ...

    with pytest.raises(MissingPackageError) as error:
        CONTRACT.check({"a.trainer": SimpleNamespace(Trainer=Moved), "a.queue": SimpleNamespace()})
    message = str(error.value)
    for missing in ("Trainer has no field", "Trainer.step has no argument batch", "Trainer.free", "a.queue.get"):
        assert missing in message
    assert message.startswith("numpy ") and '"numpy>=1"' in message
    with pytest.raises(MissingPackageError, match=r"a\.trainer.*a\.queue"):
        CONTRACT.check()  # the installed modules
