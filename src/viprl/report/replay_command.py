"""`viprl replay`: from a log to tables in the terminal, a JSON file and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from viprl.analysis.pool import Pool
from viprl.analysis.protocol import Protocol
from viprl.analysis.replay import Phase, as_json, replay
from viprl.analysis.spending_scores import SPENDING_SCORES
from viprl.errors import InputError
from viprl.features.encoders import FeatureChoice
from viprl.outcomes import Success
from viprl.report.canvas import canvas
from viprl.report.replay_page import Results, described, labels, mean_words, titles, write_replay_page
from viprl.report.replay_reasons import cautions, empty_cells
from viprl.runs.engine_logs import read_log
from viprl.runs.history import PromptHistory
from viprl.runs.logged_rollouts import LoggedRun, deciding_reward, judged
from viprl.strategies import Strategy
from viprl.utils.files import make_folder, write_text

PRINTED = ("capture", "log_loss")
"""The scores that are printed."""
PRINTED_OF_REWARDS = ("capture", "variance_ratio")
"""The same for rewards with more than two values, which have no success probability."""


def run_replay(
    file: Path,
    strategies: Sequence[str | Strategy],
    given: Mapping[str, Any],
    *,
    features: FeatureChoice = "auto",
    reward: str | None = None,
    success: Success = None,
    json_file: Path | None = None,
    report: Path | None = None,
    console: Console | None = None,
) -> dict[str, list[Phase]]:
    """Replay a log and print the tables.

    Args:
        file: what `viprl.runs.engine_logs.read_history` reads, with `reward` and `success`.
        strategies, features: as for `viprl.analysis.replay.replay`.
        given: the parameters of the `Protocol` that are set by hand; the log decides the others.
        json_file: all numbers are written to this file.
        report: the page and its figures are written into this folder.
        console: for the tables. Default: standard output.

    Raises what `read_history` and `replay` raise, InputError for `reward` and `success` of a log that holds neither,
    MissingPackageError for a report without matplotlib,
    FileError if a folder cannot be created.
    """
    if report is not None:
        canvas()  # fail before the replay if matplotlib is missing
    for folder in (report, json_file and json_file.parent):
        if folder is not None:
            make_folder(folder)
    if not strategies:
        raise InputError("no strategy was given; give at least one, as in --strategies default,uniform")
    log = read_log(file, reward=reward, success=success)
    if log.stored and (reward is not None or success is not None):
        log = _judged(file, log, reward, success)
    protocol = Protocol.of(log, **given)
    pool = Pool.of(log.histories, protocol)
    results = _with_progress(log.histories, strategies, protocol, features)
    console = Console() if console is None else console
    enough = f"{len(pool.keys)} of {len(log.histories)} prompts"
    console.print(f"{enough}, {described(protocol)}", highlight=False, soft_wrap=True)
    summaries, spending = titles(results), [score for score in SPENDING_SCORES if score in titles(results)]
    for score in [*spending, *(PRINTED if pool.rewards is None else PRINTED_OF_REWARDS)]:
        console.print(f"\n[bold]{score.replace('_', ' ')}[/bold]: {summaries[score]}", highlight=False, soft_wrap=True)
        console.print(score_table(results, score))
    notes = [*empty_cells(results, pool, protocol), *cautions(pool, protocol)]
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if json_file is not None:
        numbers = {"protocol": asdict(protocol)} | as_json(results)
        write_text(json_file, json.dumps(numbers, indent=1, allow_nan=False) + "\n")
        console.print(f"numbers: {json_file}", highlight=False, markup=False)
    if report is not None:
        settings = {"file": str(file), "prompts": len(pool.keys), "features": str(features)} | asdict(protocol)
        page = write_replay_page(results, report, protocol, settings, notes)
        console.print(f"report: {page}", highlight=False, markup=False)
    return results


def _judged(file: Path, log: LoggedRun, reward: str | None, success: Success) -> LoggedRun:
    """A log of this package with the successes that the options ask for."""
    if not log.rewarded:
        raise InputError(f"{file} holds successes, not rewards; leave out --reward and --success")
    column, rule = deciding_reward(reward, success)
    if column is not None or rule is None:
        raise InputError(f"{file} holds total rewards and no others; leave out --reward, or set --success to a number")
    return replace(log, histories=judged(log.histories, rule))


def score_table(results: Results, score: str) -> Table:
    """One row for each strategy, one column for each phase, and the largest standard deviation over seeds."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    found.add_column("visit", no_wrap=True)
    for label in [*labels(results), "sd ≤"]:
        found.add_column(label, justify="right")
    for name, phases in results.items():
        estimates = [phase.scores[score] for phase in phases]
        spread = [e.sd for e in estimates if e is not None and e.sd is not None]
        found.add_row(name, *map(mean_words, estimates), f"{max(spread):.3f}" if spread else "–")
    return found


def _with_progress(
    histories: Sequence[PromptHistory],
    strategies: Sequence[str | Strategy],
    protocol: Protocol,
    features: FeatureChoice,
) -> dict[str, list[Phase]]:
    """`replay` with a progress bar. It starts with the first visit, because the encoder may show its own bar before."""
    errors = Console(stderr=True)
    columns = (TextColumn("Replaying"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
    progress = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    task = progress.add_task("", total=len(dict.fromkeys(strategies)) * protocol.seeds * protocol.visits)

    def tick() -> None:
        progress.start()
        progress.advance(task)

    try:
        return replay(histories, strategies, protocol, features=features, tick=tick)
    finally:
        progress.stop()
