"""The names of the files of a run folder, and files that are numbered by step."""

from __future__ import annotations

import re
from pathlib import Path

SETTINGS_FILE = "config.yaml"
"""The settings of the run, as `viprl train` read them."""
METRICS_FILE = "metrics.jsonl"
"""One row for each step: what the trainer logged."""
OUTCOMES_FILE = "outcomes.jsonl"
"""One row for each generation batch: the outcomes of its prompts."""
PROMPTS_FILE = "prompts.jsonl"
"""One row for each prompt: its text or chat, and the step of its first visit."""
HISTORY_FILE = "history.jsonl.gz"
"""One row for each prompt: its outcomes over the whole run, see `viprl.runs.history`."""
OLD_HISTORY_FILE = "trajectories.jsonl.gz"
"""The name of that file in runs of earlier versions. It is still read."""
SUMMARY_FILE = "summary.json"
"""What was measured after the training, such as the gradient variance in the quickstart."""
FINISHED_FILE = "finished.json"
"""Exists if the run is finished, and holds its last step."""
LOCK_FILE = ".lock"
"""Locked by the process that writes the folder."""
REPORT_FILE = "report.html"
"""The report of the run."""
CHECKPOINT = r"checkpoint-([0-9]+)"
"""Pattern of the names of checkpoints; the group is the step."""
TRAINER_STATE_FILE = "trainer_state.json"
"""The state of transformers' trainer in a checkpoint, written last."""


def by_step(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    """Step and path of the files of a folder, by step; the first group of the pattern is the step."""
    names = ((re.fullmatch(pattern, file.name), file) for file in folder.glob("*"))
    return sorted((int(name[1]), file) for name, file in names if name)
