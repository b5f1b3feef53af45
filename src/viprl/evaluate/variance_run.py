"""`viprl variance` from its options: what is not given is that of the run that trained the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from viprl.allocation.budget import Budget, default_max_rollouts
from viprl.allocation.variance_models import get_variance_model
from viprl.analysis.designs import Design
from viprl.analysis.laboratory import Outcome, Step, compare, usual_designs
from viprl.data import DataSource
from viprl.errors import InputError
from viprl.evaluate.gradients import Found, Subject
from viprl.evaluate.of_run import Trained, trained
from viprl.runs.resume import last_checkpoint
from viprl.settings import Settings, options
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import number
from viprl.vip import VIP

PROMPTS, ROLLOUTS = 32, 8
"""Prompts of a step and rollouts of each, without a run."""
STATE = "vip_state.safetensors"
"""In a checkpoint of TRL."""


@dataclass(frozen=True)
class Plan:
    """What `viprl variance` measures and compares."""

    run: Trained
    subject: Subject
    step: Step


def planned(
    model: str,
    dataset: str | None,
    rewards: Sequence[str] | None,
    form: Mapping[str, Any],
    sampling: Mapping[str, Any],
    step: Mapping[str, Any],
) -> Plan:
    """The plan of options; None stands for what the run has, otherwise for a default.

    Args:
        model: a run folder, a model folder or Hub name.
        dataset, rewards: as given.
        form: options of `DataSource`.
        sampling: options of `Subject`.
        step: options of `Step`.

    Raises InputError if nothing says what the prompts are, and for a budget that the bounds cannot meet.
    """
    run = trained(model)
    name = dataset or run.settings.get("dataset")
    if name is None:
        raise InputError(f"{model} is not the model of a run, so its prompts are unknown; set --dataset")
    names = {f.name for f in fields(DataSource)} if dataset is None else {"instruction", "system", "chat"}
    own = {key: value for key, value in run.settings.items() if key in names and key != "name"}
    source = DataSource(str(name), **{**_given(own), **_given(form)})
    size, group = (number(run.settings.get(key)) for key in ("generation_batch_size", "num_generations"))
    known = size >= 1 and group >= 1  # False for NaN
    prompts = step["prompts"] or (int(size // group) if known else PROMPTS)
    each = size / (size // group) if known else ROLLOUTS
    budget = step["budget"] or int(each * prompts)
    low = step["min_rollouts"] or run.settings.get("vip_min_rollouts") or 2
    high = step["max_rollouts"] or run.settings.get("vip_max_rollouts") or default_max_rollouts(prompts, budget, low)
    Budget.of(prompts, budget, low, high, get_variance_model("rloo"))
    candidates = step["candidates"] or 2 * prompts
    if candidates < prompts:
        raise InputError(f"--candidates is {candidates}; expected at least the {prompts} prompts of a step")
    if sampling["prompts"] < prompts:
        raise InputError(
            f"a step has {prompts} prompts, but only {sampling['prompts']} are measured; set --prompts to at least "
            f"{prompts}, or --step-prompts to less"
        )
    of_run = {
        "temperature": run.settings.get("temperature"),
        "max_new_tokens": run.settings.get("max_completion_length"),
        "template_options": run.template_options,
    }
    weights = run.settings.get("reward_weights") if rewards is None else None
    subject = Subject(
        run.model, source, rewards or run.rewards() or ["exact_match"], weights, least=prompts,
        **{**_given(of_run), **_given(sampling)},
    )  # fmt: skip
    return Plan(run, subject, Step(prompts, budget, candidates, low, high))


def run_designs(plan: Plan, found: Found) -> tuple[list[Outcome], Step]:
    """The outcomes of uniform allocation, of the strategy of the run if it has a saved state, of the best counts and of
    the best selection; and the step, with at most as many candidates as there are measured prompts."""
    step = replace(plan.step, candidates=min(plan.step.candidates, len(found.problems)))
    uniform, *ideal = usual_designs(found.measurement, step)
    own = _own_strategy(plan, found, step)
    designs = [uniform, *([] if own is None else [own]), *ideal]
    return compare(found.measurement, designs, np.random.default_rng(plan.subject.seed)), step


def _own_strategy(plan: Plan, found: Found, step: Step) -> Design | None:
    """The counts of the run's strategy with the state of its checkpoint; None without a state or with "uniform"."""
    settings, run = plan.run.settings, plan.run.run
    if run is None or settings.get("vip_strategy") == "uniform":
        return None
    places = [Path(plan.run.model), last_checkpoint(run)]
    state = next((place / STATE for place in places if place is not None and (place / STATE).is_file()), None)
    if state is None:
        return None
    from viprl.engines.trl.row_prompts import row_prompt

    given = {option.name: settings.get(f"vip_{option.name}") for option in options(Settings)}
    vip = VIP(**_given(given) | {"min_rollouts": step.min_rollouts, "max_rollouts": step.max_rollouts})
    vip.load(state)
    rows = [{**problem.columns, "prompt": problem.prompt} for problem in found.problems]
    prompts = [row_prompt(row, settings.get("vip_id_column")) for row in rows]
    rng, active = np.random.default_rng(plan.subject.seed), next(iter(vip.strategies))

    def choose(chosen: IntArray) -> tuple[FloatArray, FloatArray]:
        plans = vip.propose([prompts[i] for i in chosen], step.budget, rng=rng)
        return np.ones(len(chosen)), plans[active].counts.astype(np.float64)

    return Design(f"{active} (of the run)", step.prompts, choose)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
