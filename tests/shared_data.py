"""The folder of real data sets, beside the clone. Tests that need it are skipped without it."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("VIPRL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
