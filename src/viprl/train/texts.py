"""prompts.jsonl of a run folder: what each prompt says, noted when it is first visited; outcomes.jsonl has identities.

So nothing ever passes over the data, which may be endless, and a resumed run knows the prompts that it visited before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from viprl.lab.runlog import read_jsonl, write_text
from viprl.prompts import Prompt

PROMPTS_FILE = "prompts.jsonl"


class PromptTexts:
    """Appends to the file; in memory there are identities alone."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROMPTS_FILE
        self.known: set[str] = set()

    def rewind(self, step: int) -> None:
        """Keep the prompts that were first visited in steps 1 to `step`."""
        rows = [row for row in self._rows() if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.known = {row["id"] for row in rows}

    def add(self, step: int, keys: Sequence[str], prompts: Sequence[Prompt]) -> None:
        """Note those of [Q] prompts that are new; `keys` are their identities."""
        with self.path.open("a", encoding="utf-8") as file:
            for key, prompt in zip(keys, prompts, strict=True):
                if key not in self.known:
                    content = prompt.get("prompt", "") if isinstance(prompt, Mapping) else prompt
                    file.write(json.dumps({"step": step, "id": key, "prompt": content}) + "\n")
                    self.known.add(key)

    def read(self) -> dict[str, Any]:
        """Text or chat by identity."""
        return {row["id"]: row["prompt"] for row in self._rows()}

    def _rows(self) -> Iterator[dict[str, Any]]:
        return read_jsonl(self.path) if self.path.exists() else iter(())
