"""The public interface changes only on purpose, together with its record and the changelog."""

from pathlib import Path

from core.public_api import public_api

RECORD = Path(__file__).parent / "public_api.txt"


def test_the_public_interface_is_the_recorded_one() -> None:
    assert public_api() == RECORD.read_text().splitlines()  # if this is meant: see public_api.py, then the changelog
