"""One self-contained HTML page about one or several runs: what the allocation bought, with its noise.

Every section appears only where its data is. Each statement is computed from the numbers with their 95 %
interval; an interval that includes "no difference" makes it say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viprl.lab import plots
from viprl.lab.runs import (
    Curve,
    Estimate,
    Run,
    difference,
    load_runs,
    number,
    over_blocks,
    paired_difference,
    smooth,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREDICTED, REALISED = "vip/variance_ratio/predicted", "vip/variance_ratio/realised"
WASTED, EVAL = "vip/zero_advantage_rollouts", "eval/mean_at_8"
_SMOOTHED = "Step by step (faint) and as a moving mean; band: one sd over seeds, where there are several."
_DOTS = "Dot: mean over batches. Bar: 95 % interval of the mean. Further left is better."


@dataclass(frozen=True)
class _Drawing:
    name: str
    title: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class _Section:
    title: str
    lead: Sequence[str] = ()
    drawings: Sequence[_Drawing] = ()
    html: str = ""


@dataclass(frozen=True)
class _Finding:
    """One statement: a number for the eye, its meaning, the whole sentence and the verdict on its noise."""

    value: str
    label: str
    sentence: str
    verdict: str = ""
    better: str = "lower"


@dataclass(frozen=True)
class _View:
    """The runs of one page and how each of their series is drawn."""

    runs: Sequence[Run]
    styles: Mapping[tuple[str, str], plots.Style]

    def style(self, run: Run, strategy: str) -> plots.Style:
        return self.styles[run.name, strategy]

    def titled(self, run: Run, text: str) -> str:
        """`text` as a title, after the run's name where there are several."""
        return f"{run.name}: {text}" if len(self.runs) > 1 else text[:1].upper() + text[1:]

    def curves(self, key: str) -> list[tuple[Run, str, Curve]]:
        """Every trained series that logged `key`."""
        found = [(run, name, run.curve(name, key)) for run in self.runs for name in run.strategies]
        return [(run, name, curve) for run, name, curve in found if curve is not None]

    def lines(self, key: str, *, over_rollouts: bool = False, smoothed: bool = True) -> list[plots.Line]:
        return [_line(self.style(run, s), c, over_rollouts, smoothed) for run, s, c in self.curves(key)]


def write_report(run_dirs: Sequence[Path | str], out: Path | str, plots_dir: Path | str | None = None) -> Path:
    """Write the report of the run folders into the HTML file `out` and return its path.

    Where `out` is a folder the page is `out`/report.html.

    The page needs no other file and no network. With `plots_dir` every figure is also written there as SVG
    and PNG. Raises ValueError without a run folder, what `viprl.lab.runs.load_run` raises for a folder that
    is none, and ImportError where matplotlib is missing.
    """
    if not run_dirs:
        raise ValueError("No run folder was given. Name at least one: viprl report RUN_DIR...")
    runs = load_runs(run_dirs)
    trained = [(run.name, name) for run in runs for name in run.strategies]
    view = _View(runs, plots.styles(trained, [(run.name, name) for run in runs for name in _strategies(run)]))
    makers = (_variance, _waste, _learning, _predictions, _counts, _trust, _numbers, _settings, _notes)
    sections = [section for make in makers if (section := make(view)) is not None]
    target = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_text(_page(view, sections), encoding="utf-8")
    part.replace(target)
    for drawing in (drawing for section in sections for drawing in section.drawings):
        if plots_dir is not None:
            plots.save(drawing.figure, Path(plots_dir), drawing.name)
    return target


# --- statements: sentences computed from estimates ---------------------------------------------------------


def _findings(run: Run) -> list[_Finding]:
    found = (_variance_finding(run), _waste_finding(run), _learning_finding(run))
    return [finding for finding in found if finding is not None]


def _variance_finding(run: Run) -> _Finding | None:
    ratios, basis = _either(run, "variance_ratio", REALISED)
    opening, has = "Judged by its own training rewards, a noisy measure,", "has"
    if basis == "batches":
        opening = "At the same budget"
    elif _subject(ratios) in (None, "uniform") and (shadows := _shadow_ratios(run)):
        ratios, opening, has = shadows, "Judged by the outcomes of this uniform run,", "would have had"
    if (name := _subject(ratios)) is None or name == "uniform":
        return None
    ratio = ratios[name]
    closing = {
        "within noise": " The interval includes 1: within noise of uniform.",
        "higher": " That is worse than uniform.",
        "unknown": " One value has no spread, so its noise is unknown.",
    }.get(ratio.against(1.0), "")
    sentence = (
        f"{opening} the {name} allocation {has} {_num(ratio.mean)} times the gradient variance of uniform "
        f"({_basis(run, ratio, basis)}).{closing}"
    )
    return _Finding(f"{_num(ratio.mean)}×", "gradient variance (uniform: 1)", sentence, ratio.against(1.0))


def _waste_finding(run: Run) -> _Finding | None:
    shares, basis = _either(run, "zero_advantage_rollouts", WASTED)
    if (name := _subject(shares)) is None:
        return None
    percent = {key: share.scaled(100) for key, share in shares.items()}
    value = f"{_num(percent[name].mean, 0)}\u00a0%"
    sentence = (
        f"{value} of the {name} allocation's rollouts went to groups whose rewards were all equal and give "
        f"no gradient ({_basis(run, percent[name], basis, digits=1)})"
    )
    if name == "uniform" or "uniform" not in percent:
        return _Finding(value, "of rollouts gave no gradient", f"{sentence}.")
    uniform, gap = f"{_num(percent['uniform'].mean, 0)}\u00a0%", difference(percent[name], percent["uniform"])
    sentence += (
        f"; with uniform it was {uniform} (difference {_num(gap.mean, 1, signed=True)} percentage points"
        f"{_interval(gap, 1, signed=True)}).{_closing(gap)}"
    )
    return _Finding(value, f"of rollouts gave no gradient (uniform: {uniform})", sentence, gap.against(0.0))


def _learning_finding(run: Run) -> _Finding | None:
    final, gap = _final_accuracy(run), None
    if (name := _subject(final)) is None:
        return None
    if name != "uniform" and "uniform" in final:
        given = Estimate.read(_mapping(run.summary.get("learning")).get("paired_difference"))
        gap = given or paired_difference(_ends(run, name), _ends(run, "uniform"))
    value, opening = _num(final[name].mean, 3), "Held-out accuracy (mean of 8 answers) ended at"
    if gap is None:
        sentence = f"{opening} {value} with {name} ({_count(final[name].n, 'seed')}{_interval(final[name], 3)})."
        return _Finding(value, "held-out accuracy at the end", sentence)
    sentence = (
        f"{opening} {value} with {name} and at {_num(final['uniform'].mean, 3)} with uniform: "
        f"a paired difference of {_gap_words(gap)}"
    )
    label = f"held-out accuracy against uniform ({value} at the end)"
    return _Finding(_num(gap.mean, 3, signed=True), label, sentence, gap.against(0.0), better="higher")


def _others(view: _View, run: Run) -> str:
    """The strategies beside the headline's, in one sentence."""
    ratios = run.estimates("variance_ratio")
    names = [name for name in _strategies(run) if name in ratios and name not in (_subject(ratios), "uniform")]
    parts = [
        f"{name} {_num(ratios[name].mean)} ({_VERDICTS[ratios[name].against(1.0)]}{_interval(ratios[name])})"
        for name in names
    ]
    return view.titled(run, f"in the same measurement, against uniform: {', '.join(parts)}.") if parts else ""


def _between_runs(view: _View) -> list[str]:
    """Final held-out accuracy of every series against the uniform one (or the first), paired by seed."""
    ends = [(view.style(run, s), s, curve.last()) for run, s, curve in view.curves(EVAL)]
    if len(view.runs) == 1 or len(ends) < 2:
        return []
    base = next((end for end in ends if end[1] == "uniform"), ends[0])
    gaps = [(end[0].label, paired_difference(end[2], base[2])) for end in ends if end is not base]
    opening = "Held-out accuracy at the end,"
    return [f"{opening} {name} against {base[0].label}: {_gap_words(gap)}" for name, gap in gaps if gap is not None]


def _gap_words(gap: Estimate) -> str:
    basis = f"n = {_count(gap.n, 'seed')}{_interval(gap, 3, signed=True)}"
    return f"{_num(gap.mean, 3, signed=True)} ({basis}).{_closing(gap)}"


def _closing(gap: Estimate) -> str:
    return {
        "within noise": " The interval includes 0, so the difference is within noise.",
        "unknown": " Without repetitions the noise of this difference is unknown.",
    }.get(gap.against(0.0), "")


def _basis(run: Run, estimate: Estimate, basis: str, digits: int = 2) -> str:
    """What an estimate rests on: sd, n, interval."""
    sd = "" if estimate.sd is None else f"sd {_num(estimate.sd, digits)}, "
    n = f"n = {estimate.n} blocks of steps"
    if basis == "batches":
        seeds = _mapping(run.summary.get("settings")).get("seeds")
        seeds = len(seeds) if isinstance(seeds, list) else seeds or len({row.get("seed") for row in run.rows})
        n = f"n = {_count(estimate.n, 'batch', 'batches')}" + (f" from {_count(seeds, 'seed')}" if seeds else "")
    return sd + n + _interval(estimate, digits)


def _either(run: Run, measured: str, logged: str) -> tuple[dict[str, Estimate], str]:
    """The summary's measurement, else what the training log says, and what one value of it is."""
    if estimates := run.estimates(measured):
        return estimates, "batches"
    curves = {name: run.curve(name, logged) for name in run.strategies}
    blocks = {name: over_blocks(curve.values) for name, curve in curves.items() if curve is not None}
    return {name: estimate for name, estimate in blocks.items() if estimate is not None}, "blocks"


def _shadow_ratios(run: Run) -> dict[str, Estimate]:
    """What the strategies in the shadow of a uniform run would have done."""
    curves = {name: run.curve("uniform", f"vip/shadow/{name}/variance_ratio") for name in run.shadows("uniform")}
    blocks = {name: over_blocks(curve.values) for name, curve in curves.items() if curve is not None}
    return {name: estimate for name, estimate in blocks.items() if estimate is not None}


def _final_accuracy(run: Run) -> dict[str, Estimate]:
    learning = _mapping(run.summary.get("learning"))
    given = {name: Estimate.read(_mapping(entry).get("final_eval")) for name, entry in learning.items()}
    logged = {name: Estimate.of(list(_ends(run, name).values())) for name in run.strategies}
    merged = logged | {name: estimate for name, estimate in given.items() if estimate is not None}
    return {name: estimate for name, estimate in merged.items() if estimate is not None}


def _ends(run: Run, strategy: str) -> dict[int, float]:
    curve = run.curve(strategy, EVAL)
    return {} if curve is None else curve.last()


def _subject(estimates: Mapping[str, Estimate]) -> str | None:
    """The strategy that the headline is about: the default, else the first that is more than a yardstick."""
    names = sorted(estimates, key=lambda name: (name != "default", name == "uniform", name in ("oracle", "random")))
    return names[0] if names else None


# --- sections: None where their data is missing ------------------------------------------------------------


def _variance(view: _View) -> _Section | None:
    drawings = []
    if rows := _rows(view, "variance_ratio"):
        figure = plots.interval_dots(rows, "gradient variance / that of uniform", (1.0, "uniform"))
        drawings.append(_Drawing("variance_ratio", "At the same budget", figure, _DOTS))
    by_step = [(run, run.estimates_by_step("variance_ratio").items()) for run in view.runs]
    series = [(view.style(run, s), points) for run, found in by_step for s, points in found if s != "uniform"]
    if series:
        figure = plots.estimates_by_step(series, "variance / that of uniform", (1.0, "uniform"))
        caption = "Mean over batches and its 95 % interval at each measured step. Dashed: uniform. Lower is better."
        drawings.append(_Drawing("variance_ratio_by_step", "As training goes on", figure, caption))
    lead = (
        "Trace of the gradient's covariance at a fixed policy; all allocations have the same budget and are "
        "judged on the same rollouts. Oracle knows the true success probabilities and shows what can be "
        "reached. The intervals take batches as independent; batches of one seed share a policy, so the true "
        "intervals are somewhat wider."
    )
    words = [sentence for run in view.runs if (sentence := _others(view, run))]
    return _Section("Gradient variance", [lead, *words], drawings) if drawings else None


def _waste(view: _View) -> _Section | None:
    drawings = []
    if rows := _rows(view, "zero_advantage_rollouts"):
        figure = plots.interval_dots(rows, "rollouts without a gradient (%)", percent=True)
        drawings.append(_Drawing("zero_advantage_rollouts", "At the same budget", figure, _DOTS))
    share, key = ("rollouts", WASTED) if view.curves(WASTED) else ("groups", "frac_reward_zero_std")
    if lines := view.lines(key):
        figure = plots.curves(lines, "training step", f"share of {share}")
        drawings.append(_Drawing("zero_advantage_by_step", "While training", figure, _SMOOTHED))
    lead = "A group whose rewards are all equal has advantage zero: its rollouts cost time and teach nothing."
    return _Section("Rollouts without a signal", [lead], drawings) if drawings else None


def _learning(view: _View) -> _Section | None:
    drawings = []
    spread = "Mean over seeds; band: one sd over seeds, where there are several."
    caution = f"{_SMOOTHED} The allocation changes whose rollouts enter this mean: compare by held-out accuracy."
    for key, name, title, ylabel, caption in (
        (EVAL, "heldout_accuracy", "Held-out accuracy", "accuracy (mean of 8 answers)", spread),
        ("reward", "training_reward", "Training reward", "mean reward of the step", caution),
    ):
        spent = all(np.isfinite(curve.rollouts).all() for _, _, curve in view.curves(key))
        if lines := view.lines(key, over_rollouts=spent, smoothed=key != EVAL):
            xlabel = "rollouts spent" if spent else "training step"
            drawings.append(_Drawing(name, title, plots.curves(lines, xlabel, ylabel), caption))
    words = [view.titled(run, found.sentence) for run in view.runs if (found := _learning_finding(run))]
    return _Section("Learning", words + _between_runs(view), drawings) if drawings else None


def _predictions(view: _View) -> _Section | None:
    drawings, words = [], []
    for index, (run, points) in enumerate((run, run.calibration()) for run in view.runs):
        if points is None:
            continue
        predicted, true, seen = points["predicted"], points["true"], ~(points["visits"] <= 0)
        parts = [
            f"{_num(float(np.mean(np.abs(predicted - true)[at])))} for {who} ({int(at.sum())} measured)"
            for at, who in ((seen, "prompts seen before"), (~seen, "new prompts"))
            if at.any()
        ]
        words.append(view.titled(run, f"mean distance of predicted and true probability {' and '.join(parts)}."))
        figure = plots.calibration(predicted, true, seen, plots.colour_of("default"))
        caption = "Filled: prompts seen before; rings: new ones. Bold: mean of each tenth, 95 % interval."
        title = view.titled(run, "predicted against true")
        drawings.append(_Drawing(f"calibration_{index}", title, figure, caption))
    for key, name, title in (("vip/brier", "brier", "Brier score"), ("vip/log_loss", "log_loss", "Log loss")):
        enough = name == "log_loss" and len(drawings) > 1  # both say the same: beside a calibration one will do
        if not enough and (lines := view.lines(key)):
            figure = plots.curves(lines, "training step", title + (" (nats)" if name == "log_loss" else ""))
            drawings.append(_Drawing(name, f"{title} (lower is better)", figure, _SMOOTHED))
    return _Section("Predicted success", words, drawings) if drawings else None


def _counts(view: _View) -> _Section | None:
    drawings, tables = [], ""
    for index, run in enumerate(view.runs):
        points, prompts, even = run.calibration(), run.prompts(), _even_share(run)
        if points is not None and np.isfinite(points["count"]).any():
            known = np.isfinite(points["count"])
            probability, counts, xlabel = (
                points["true"][known],
                points["count"][known],
                "true success probability",
            )
            caption = "One point a prompt and measured step; bold: mean of each tenth."
        elif prompts:
            table = np.array([[visits, spent, right] for _, visits, spent, right in prompts], dtype=np.float64)
            probability, counts = table[:, 2] / table[:, 1], table[:, 1] / table[:, 0]
            xlabel, caption = (
                "observed success rate",
                "One point a prompt, mean over its visits; bold: mean of each tenth.",
            )
        else:
            continue
        figure = plots.counts_by_probability(probability, counts, even, plots.colour_of("default"), xlabel)
        drawings.append(_Drawing(f"counts_{index}", view.titled(run, "rollouts by difficulty"), figure, caption))
    if lines := _count_lines(view):
        figure = plots.curves(lines, "training step", "rollouts of a prompt")
        caption = "Line: mean over the prompts of a step; band: from the fewest to the most, as moving means."
        drawings.append(_Drawing("counts_by_step", "Rollouts of a prompt while training", figure, caption))
    for run in view.runs:
        rows = [
            (_short(text), f"{visits}", f"{spent}", _num(right / spent))
            for text, visits, spent, right in run.prompts()[:6]
        ]
        head = ("prompts with the most rollouts", "visits", "rollouts", "success rate")
        tables += _table(head, rows, run.name if len(view.runs) > 1 else "") if rows else ""
    return _Section("Where the rollouts went", (), drawings, tables) if drawings or tables else None


def _trust(view: _View) -> _Section | None:
    drawings, words = [], []
    for index, (run, name) in enumerate((r, s) for r in view.runs for s in r.strategies):
        style, who = view.style(run, name), f"{run.name} · {name}" if len(view.runs) > 1 else name.capitalize()
        predicted, realised = run.curve(name, PREDICTED), run.curve(name, REALISED)
        if name != "uniform" and (predicted is not None or realised is not None):
            named = (
                (predicted, plots.Style("predicted", plots.INK)),
                (realised, plots.Style("realised", style.colour)),
            )
            lines = [_line(how, curve) for curve, how in named if curve is not None]
            figure = plots.curves(lines, "training step", "variance / that of uniform", (1.0, "uniform"))
            drawings.append(_Drawing(f"trust_{index}", f"{who}: predicted and realised", figure, _SMOOTHED))
        if predicted is not None and realised is not None and name != "uniform":
            words.append(f"{who}: {_trust_words(predicted, realised)}")
        shadows = [(s, run.curve(name, f"vip/shadow/{s}/variance_ratio")) for s in run.shadows(name)]
        if lines := [_line(replace(view.style(run, s), label=s), curve) for s, curve in shadows if curve is not None]:
            figure = plots.curves(lines, "training step", "variance / that of uniform", (1.0, "uniform"))
            caption = f"What other strategies would have done on this run's outcomes. {_SMOOTHED}"
            drawings.append(_Drawing(f"shadow_{index}", f"{who}: strategies in its shadow", figure, caption))
        seconds = run.curve(name, "vip/overhead_seconds")
        if seconds is not None and name != "uniform":
            middle, total = float(np.nanmedian(seconds.values)), float(np.nansum(seconds.values))
            words.append(f"{who}: allocating took {_num(middle, 3)} s a step (median), {_num(total, 1)} s in all.")
    return _Section("Predicted and realised variance", words, drawings) if drawings or words else None


def _numbers(view: _View) -> _Section | None:
    rows = []
    for run in view.runs:
        ratios, ratio_basis = _either(run, "variance_ratio", REALISED)
        shares, share_basis = _either(run, "zero_advantage_rollouts", WASTED)
        final = _final_accuracy(run)
        for name in _strategies(run):
            ratio, share, accuracy = ratios.get(name), shares.get(name), final.get(name)
            verdict = "" if ratio is None or name == "uniform" else _VERDICTS[ratio.against(1.0)]
            share = None if share is None else share.scaled(100)
            cells = (
                "1 by definition" if ratio and name == "uniform" else _cell(ratio, 2, ratio_basis),
                verdict,
                _cell(share, 1, share_basis),
                _cell(accuracy, 3, "seeds"),
            )
            if any(cells):
                rows.append((view.style(run, name).label, *cells))
    head = (
        "strategy",
        "variance ratio",
        "against uniform",
        "rollouts without gradient,\u00a0%",
        "final held-out accuracy",
    )
    return (
        _Section(
            "All numbers", ["Mean ± sd (95 % interval of the mean), and the number of values."], (), _table(head, rows)
        )
        if rows
        else None
    )


def _settings(view: _View) -> _Section | None:
    columns = [_settings_of(run) for run in view.runs]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [(_SETTING_NAMES.get(key, key), *(column.get(key, "") for column in columns)) for key in keys]
    head = ("setting", *(run.name for run in view.runs))
    return _Section("Settings", (), (), _table(head, rows)) if rows else None


def _notes(view: _View) -> _Section | None:
    notes = [f"{run.name}: {note}" for run in view.runs for note in run.notes]
    return _Section("Notes on the data", notes) if notes else None


# --- the parts that sections share -------------------------------------------------------------------------

_VERDICTS = {"lower": "lower", "higher": "higher", "within noise": "within noise", "unknown": "noise unknown"}
_PLURALS = {"batches": ("batch", "batches"), "blocks": ("block of steps", "blocks of steps"), "seeds": ("seed",)}
_SETTING_NAMES = {
    "Q": "prompts a step (Q)",
    "C": "rollouts a step (C)",
    "low": "fewest rollouts of a prompt (low)",
    "high": "most rollouts of a prompt (high)",
    "pool_size": "prompts in the pool",
}


def _strategies(run: Run) -> list[str]:
    """Every strategy that the page may draw: trained, measured or in shadow; yardsticks last."""
    shadows = [shadow for name in run.strategies for shadow in run.shadows(name)]
    measured = [*run.estimates("variance_ratio"), *run.estimates("zero_advantage_rollouts")]
    stepwise = run.estimates_by_step("variance_ratio")
    order = ("default", "paper", "oracle", "uniform", "random")
    names = dict.fromkeys([*run.strategies, *measured, *stepwise, *shadows])
    return sorted(names, key=lambda name: order.index(name) if name in order else 1)


def _rows(view: _View, key: str) -> list[tuple[plots.Style, Estimate]]:
    found = [(run, run.estimates(key)) for run in view.runs]
    return [(view.style(run, s), e[s]) for run, e in found for s in _strategies(run) if s in e]


def _line(style: plots.Style, curve: Curve, over_rollouts: bool = False, smoothed: bool = True) -> plots.Line:
    window = max(1, curve.steps.size // 10) if smoothed else 1
    seeds = np.array([smooth(row, window) for row in curve.values])
    middle, spread = smooth(curve.mean, window), np.std(seeds, axis=0, ddof=1) if len(seeds) > 1 else None
    return plots.Line(
        style,
        curve.rollouts if over_rollouts else curve.steps,
        middle,
        None if spread is None else middle - spread,
        None if spread is None else middle + spread,
        curve.mean if smoothed else None,
    )


def _count_lines(view: _View) -> list[plots.Line]:
    lines = []
    for run, name, mean in view.curves("vip/counts/mean"):
        least, most = run.curve(name, "vip/counts/min"), run.curve(name, "vip/counts/max")
        matched = least is not None and most is not None and least.steps.size == most.steps.size == mean.steps.size
        low = np.nanmin(least.values, axis=0) if matched and least is not None else None
        high = np.nanmax(most.values, axis=0) if matched and most is not None else None
        window = max(1, mean.steps.size // 10)
        band = [None if edge is None else smooth(edge, window) for edge in (low, high)]
        lines.append(plots.Line(view.style(run, name), mean.steps, smooth(mean.mean, window), *band))
    ragged = [x for x in lines if x.low is None or x.high is None or np.nanmax(x.high - x.low) > 0]
    return ragged or lines


def _trust_words(predicted: Curve, realised: Curve) -> str:
    """Whether the predictor's own expectation of the variance ratio is kept."""
    both = np.intersect1d(predicted.steps, realised.steps)
    gap = over_blocks((_at(realised, both) - _at(predicted, both))[None])
    if gap is None:
        return "predicted and realised ratios were never logged together."
    verdict = {
        "higher": "the predictor is too optimistic.",
        "lower": "the predictor is too cautious.",
        "within noise": "within noise of each other.",
    }.get(gap.against(0.0), "the noise of this is unknown.")
    words = f"realised minus predicted ratio {_num(gap.mean, 2, signed=True)}{_interval(gap, 2, signed=True)}"
    return f"{words}: {verdict}"


def _at(curve: Curve, steps: plots.Array) -> plots.Array:
    return curve.mean[np.searchsorted(curve.steps, steps)]


def _even_share(run: Run) -> float | None:
    settings = _mapping(run.summary.get("settings"))
    share = number(settings.get("C")) / (number(settings.get("Q")) or np.nan)
    return share if np.isfinite(share) else None


def _settings_of(run: Run) -> dict[str, str]:
    given = {str(k): v for k, v in _mapping(run.summary.get("settings")).items() if v is not None}
    steps, rollouts = ([n for row in run.rows if np.isfinite(n := number(row.get(k)))] for k in ("step", "rollouts"))
    logged: dict[str, object] = {"strategies trained": ", ".join(run.strategies)} if run.rows else {}
    logged |= {"seeds": len({row.get("seed") for row in run.rows})} if run.rows else {}
    logged |= {"last step": int(max(steps))} if steps else {}
    logged |= {"rollouts spent by one strategy and seed": f"{max(rollouts):,.0f}"} if rollouts else {}
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in (logged | given).items()}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# --- text and HTML -----------------------------------------------------------------------------------------

_GLOSSARY = (
    (
        "Variance ratio",
        "gradient variance of an allocation over that of uniform at the same budget. Below 1 is better.",
    ),
    (
        "Without a gradient",
        "rollouts in groups whose rewards are all equal: every advantage is zero. Less is better.",
    ),
    (
        "95 % interval",
        "where the mean may well lie, given its n values. If it includes “no difference”, it is no finding.",
    ),
)

_STYLE = """
:root{--ink:#1f2328;--muted:#66707b;--grid:#e4e7eb;--page:#fff;--soft:#f6f7f9;--good:#00714f;--bad:#b34a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--muted:#9aa4ae;--grid:#353b42;--page:#15181c;--soft:#1d2126;
--good:#4cc79e;--bad:#f0965a}figure svg{filter:brightness(1.25)}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:56px 32px 96px}
h1{font-size:30px;line-height:1.2;letter-spacing:-.015em;margin:0 0 6px;font-weight:650}
h2{font-size:21px;letter-spacing:-.01em;margin:0 0 8px;font-weight:650}
h3{font-size:15px;margin:0 0 8px;font-weight:600}
p{margin:0 0 10px;max-width:74ch}
.muted,figcaption,dd{color:var(--muted)}
section{margin-top:64px}.run+.run{margin-top:44px}.run h2{margin-top:32px}
.tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:16px;margin:20px 0}
.tile{background:var(--soft);border-radius:10px;padding:20px 22px}
.tile b{display:block;font-size:38px;line-height:1.15;letter-spacing:-.02em;font-weight:650;
font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--muted);font-size:14.5px;line-height:1.4;margin-top:4px}
.tile i{display:inline-block;font-style:normal;font-size:13px;font-weight:600;margin-top:10px;
color:var(--muted)}
.tile i.good{color:var(--good)}.tile i.bad{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:28px 0 0;
font-size:14.5px;max-width:90ch}
dt{font-weight:600}dd{margin:0}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));
gap:40px 48px;margin-top:26px}
figure{margin:0;min-width:0}figure svg{display:block;width:100%;height:auto;overflow:visible}
figure svg text{font-family:inherit!important}
figcaption{font-size:13.5px;line-height:1.45;margin-top:10px}
.scroll{overflow-x:auto;margin-top:22px}
table{border-collapse:collapse;font-size:14.5px;font-variant-numeric:tabular-nums;min-width:min(100%,520px)}
table:has(th:nth-child(5)){min-width:820px}
caption{text-align:left;color:var(--muted);padding-bottom:6px}
th,td{text-align:left;padding:8px 28px 8px 0;border-bottom:1px solid var(--grid);vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:13.5px}
@media(max-width:640px){main{padding:28px 16px 64px}section{margin-top:48px}h1{font-size:25px}
.tiles,dl{grid-template-columns:1fr}dd{margin-bottom:8px}.figures{gap:36px}th,td{padding-right:18px}}
@media print{main{padding:0}figure,.tile,tr{break-inside:avoid}}
"""


def _page(view: _View, sections: Sequence[_Section]) -> str:
    names = ", ".join(run.name for run in view.runs)
    body = "".join(_section_html(index, section) for index, section in enumerate(sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(names)} · viprl report</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>What the allocation bought</h1><p class="muted">{escape(_subtitle(view))}</p>'
        f"{''.join(_headline(view, run) for run in view.runs)}{_glossary()}{body}</main></body></html>\n"
    )


def _headline(view: _View, run: Run) -> str:
    findings = _findings(run)
    title = f"<h2>{escape(run.name)}</h2>" if len(view.runs) > 1 else ""
    if not findings:
        return f"{title}<p>No variance, advantage or evaluation was logged: see the curves below.</p>" * bool(run.rows)
    tiles = "".join(_tile(finding) for finding in findings)
    sentences = "".join(f"<p>{escape(finding.sentence)}</p>" for finding in findings)
    return f'<div class="run">{title}<div class="tiles">{tiles}</div>{sentences}</div>'


def _tile(finding: _Finding) -> str:
    tone = {finding.better: "good", "within noise": "", "unknown": "", "": ""}.get(finding.verdict, "bad")
    beyond = ", beyond noise" if finding.verdict in ("lower", "higher") else ""
    tag = f'<i class="{tone}">{_VERDICTS[finding.verdict]}{beyond}</i>' if finding.verdict else ""
    return f'<div class="tile"><b>{escape(finding.value)}</b><span>{escape(finding.label)}</span>{tag}</div>'


def _glossary() -> str:
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in _GLOSSARY) + "</dl>"


def _section_html(index: int, section: _Section) -> str:
    figures = "".join(
        f"<figure><h3>{escape(drawing.title)}</h3>{plots.inline_svg(drawing.figure, f's{index}f{at}')}"
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
        for at, drawing in enumerate(section.drawings)
    )
    lead = "".join(f"<p>{escape(text)}</p>" for text in section.lead)
    grid = f'<div class="figures">{figures}</div>' if figures else ""
    return f"<section><h2>{escape(section.title)}</h2>{lead}{grid}{section.html}</section>"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table>{title}<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _subtitle(view: _View) -> str:
    names = ("run " if len(view.runs) == 1 else "runs ") + ", ".join(run.name for run in view.runs)
    settings = _mapping(view.runs[0].summary.get("settings")) if len(view.runs) == 1 else {}
    words = (
        ("estimator", "{}"),
        ("Q", "{} prompts a step"),
        ("C", "{} rollouts a step"),
        ("steps", "{} steps"),
    )
    return " · ".join([f"viprl, {names}", *(form.format(settings[key]) for key, form in words if key in settings)])


def _cell(estimate: Estimate | None, digits: int, basis: str) -> str:
    if estimate is None:
        return ""
    spread = "" if estimate.sd is None else f" ± {_num(estimate.sd, digits)}"
    known = estimate.low is not None and estimate.high is not None
    interval = f" ({_num(estimate.low, digits)} to {_num(estimate.high, digits)})" if known else ""
    return f"{_num(estimate.mean, digits)}{spread}{interval}, n = {_count(estimate.n, *_PLURALS[basis])}"


def _interval(estimate: Estimate, digits: int = 2, signed: bool = False) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"; 95 % interval {_num(estimate.low, digits, signed)} to {_num(estimate.high, digits, signed)}"


def _num(value: float | None, digits: int = 2, signed: bool = False) -> str:
    if value is None:
        return "unknown"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def _count(n: object, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
