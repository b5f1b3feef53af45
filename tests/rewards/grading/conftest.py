import pytest

from viprl.rewards.grading.verifier import Verifier


@pytest.fixture(scope="session")
def verifier():
    """One process for all tests of this folder."""
    pool = Verifier(1, cpu_seconds=1.0)
    yield pool
    pool.close()
