"""The run that trained a model: its defaults for an evaluation, and where its weights are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from viprl.errors import DataError, FileError, InputError
from viprl.runs.files import CHECKPOINT
from viprl.runs.resume import last_checkpoint
from viprl.runs.run_folder import run_settings
from viprl.utils.json_files import read_json_object
from viprl.utils.json_lines import parse_json


@dataclass(frozen=True)
class Trained:
    """A model, and the settings of the run that trained it."""

    model: str
    """The folder of the weights, or a Hub name."""
    run: Path | None = None
    """The run folder; None if the model is not that of a run."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def template_options(self) -> dict[str, Any]:
        """Options of the chat template. Raises InputError if those of the run are not a mapping."""
        given = self.settings.get("chat_template_kwargs") or {}
        try:
            return dict(parse_json(given) if isinstance(given, str) else given)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the run in {self.run}: chat_template_kwargs is {given!r:.200}; expected a mapping"
            ) from error

    @property
    def verify(self) -> str | None:
        """The reward that decided about success; None without a run.

        Raises InputError if the run has several rewards of which none decides alone.
        """
        if self.run is None:
            return None
        rewards = self.rewards()
        chosen = rewards if len(rewards) == 1 else [name for name in rewards if self._success_of(name)[0]]
        if len(chosen) != 1:
            raise InputError(f"the run in {self.run} has the rewards {', '.join(rewards)}; set --verify to one of them")
        return chosen[0]

    def judged_by(self, verify: str | None, success: str | None) -> tuple[str, str | None]:
        """--verify and --success: as given, otherwise those of the run, otherwise math."""
        name = verify or self.verify or "math"
        known = name in self.rewards() and ":" in name
        return name, self._success_of(name)[1] if success is None and known else success

    def form(self) -> dict[str, Any]:
        """How the run wrote its prompts: the instruction, the system message and whether they are chats."""
        given = {name: self.settings.get(name) for name in ("instruction", "system", "chat")}
        return {name: value for name, value in given.items() if value is not None}

    def rewards(self) -> list[str]:
        """The rewards of the run; empty without a run. Raises InputError if they are not names."""
        if self.run is None:
            return []
        given = self.settings.get("reward") or "exact_match"
        names = given if isinstance(given, list) else [given]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"the run in {self.run}: reward is {given!r:.200}; expected names; set --verify")
        return list(names)

    def _success_of(self, name: str) -> tuple[bool, str | None]:
        """Whether `vip_success` names a reward, and what it says of the reward: the text after its name."""
        success = self.settings.get("vip_success")
        text = "" if success is None else str(success).strip()
        named = re.fullmatch(rf"{re.escape(name.rpartition(':')[2])}\s*([<>=].*)?", text)
        if named:
            return True, named[1] and named[1].removeprefix(">=").strip()
        return False, text or None


def trained(model: str) -> Trained:
    """The model of a run folder, of its folder `final` or of one of its checkpoints, with the settings of the run.

    Anything else is a model without a run. Raises InputError for a run folder without a model.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file() and (settings := _settings(folder)):
        final = folder / "final"
        weights = final if final.is_dir() else last_checkpoint(folder)
        if weights is None:
            raise InputError(f"the run in {folder} has no model yet: no folder `final` and no checkpoint")
        return Trained(str(weights), folder, settings)
    if re.fullmatch(f"final|{CHECKPOINT}", folder.name) and (settings := _settings(folder.parent)):
        return Trained(model, folder.parent, settings)
    return Trained(model)


def base_model(model: str) -> str | None:
    """The model that a LoRA adapter was trained on; None if the folder has whole weights. Raises InputError."""
    file = Path(model) / "adapter_config.json"
    if not file.is_file() or (Path(model) / "config.json").is_file():
        return None
    try:
        return str(read_json_object(file)["base_model_name_or_path"])
    except (FileError, DataError, KeyError) as error:
        raise InputError(f"{file} cannot be read ({error}); give the folder of a model or of an adapter") from error


def _settings(folder: Path) -> dict[str, Any]:
    """The record of the run in a folder; empty if there is none. Other programs have files of that name too."""
    record = run_settings(folder)
    return record if {"model", "output_dir"} <= record.keys() else {}
