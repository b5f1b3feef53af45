"""The texts of the prompts of a run, in a file of its folder.

`outcomes.jsonl` has only the identities of prompts. This file has their texts, written when a prompt is first visited.
So the data set, which may be endless, is never read for it, and a resumed run knows the prompts it visited before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from viprl.errors import DataError, InputError
from viprl.prompts import Prompt, text
from viprl.runs.files import PROMPTS_FILE
from viprl.runs.run_log import cut_back
from viprl.utils.json_lines import append_json_line, read_json_lines


class PromptTexts:
    """Writes and reads the texts of prompts by identity. Only the identities are kept in memory.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROMPTS_FILE
        self.known: set[str] = set()

    def rewind(self, step: int) -> None:
        """Keep only the prompts that were first visited in steps 1 to `step`."""
        self.known = {row["id"] for row in cut_back(self.path, step, id=str)}

    def add(self, step: int, keys: Sequence[str], prompts: Sequence[Prompt]) -> None:
        """Append those of [Q] prompts that are new.

        Args:
            step: the training step.
            keys: [Q] identities.
            prompts: [Q] prompts.
        """
        for key, prompt in zip(keys, prompts, strict=True):
            if key not in self.known:
                content = prompt.get("prompt", "") if isinstance(prompt, Mapping) else prompt
                append_json_line(self.path, {"step": step, "id": key, "prompt": content})
                self.known.add(key)

    def read(self) -> dict[str, Any]:
        """Text or chat by identity. Raises DataError for rows of another form."""
        found: dict[str, Any] = {}
        for number, row in read_json_lines(self.path, bad=lambda *_: None) if self.path.exists() else ():
            key, prompt = row.get("id"), row.get("prompt")
            if not isinstance(key, str) or not isinstance(prompt, str | list):
                raise DataError(f"{self.path}, row {number} has no id and prompt; fix or delete the row")
            try:
                text(prompt or "")  # a list without messages stands for no prompt, as an empty text does
            except InputError as error:
                raise DataError(f"{self.path}, row {number}: {error}; fix or delete the row") from error
            found[key] = prompt or ""
        return found
