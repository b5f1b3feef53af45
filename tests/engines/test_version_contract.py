"""An installed package that lacks an API is reported by name."""

import sys
from types import ModuleType, SimpleNamespace

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


def test_what_the_installed_package_lacks_is_named(monkeypatch):
    class Moved:
        def step(self, rows): ...

    monkeypatch.setitem(sys.modules, "a", ModuleType("a"))
    monkeypatch.setitem(sys.modules, "a.trainer", SimpleNamespace(Trainer=Trainer))
    monkeypatch.setitem(sys.modules, "a.queue", SimpleNamespace(get=lambda keys: keys))
    CONTRACT.check()
    sys.modules["a.trainer"].Trainer = Moved
    del sys.modules["a.queue"].get
    with pytest.raises(MissingPackageError) as error:
        CONTRACT.check()
    message = str(error.value)
    for missing in ("Trainer has no field", "Trainer.step has no argument batch", "Trainer.free", "a.queue.get"):
        assert missing in message
    assert message.startswith("numpy ") and '"numpy>=1"' in message
    monkeypatch.undo()
    with pytest.raises(MissingPackageError, match=r"a\.trainer.*a\.queue"):
        CONTRACT.check()
