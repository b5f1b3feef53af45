"""prompts.jsonl of a run folder: what each prompt says, noted when it is first visited; outcomes.jsonl has identities.

So nothing ever passes over the data, which may be endless, and a resumed run knows the prompts that it visited before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from viprl.prompts import Prompt
from viprl.utils.json_lines import append_json_line, log_rows, write_json_lines

PROMPTS_FILE = "prompts.jsonl"


class PromptTexts:
    """Appends to the file; in memory there are identities alone."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROMPTS_FILE
        self.known: set[str] = set()

    def rewind(self, step: int) -> None:
        """Keep the prompts that were first visited in steps 1 to `step`."""
        rows = [row for row in self._rows() if row["step"] <= step]
        write_json_lines(self.path, rows)
        self.known = {row["id"] for row in rows}

    def add(self, step: int, keys: Sequence[str], prompts: Sequence[Prompt]) -> None:
        """Note those of [Q] prompts that are new; `keys` are their identities."""
        for key, prompt in zip(keys, prompts, strict=True):
            if key not in self.known:
                content = prompt.get("prompt", "") if isinstance(prompt, Mapping) else prompt
                append_json_line(self.path, {"step": step, "id": key, "prompt": content})
                self.known.add(key)

    def read(self) -> dict[str, Any]:
        """Text or chat by identity."""
        return {row["id"]: row["prompt"] for row in self._rows()}

    def _rows(self) -> Iterator[dict[str, Any]]:
        return log_rows(self.path) if self.path.exists() else iter(())
