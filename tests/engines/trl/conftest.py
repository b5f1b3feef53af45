"""TRL's colocated vLLM writes rank and port into the environment, which would reach the processes of later tests."""

import os

import pytest


@pytest.fixture(autouse=True)
def _environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
