"""The run report: what it reads, what it says of noise, and that the page stands on its own."""

from __future__ import annotations

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_data

from viprl.analysis import run_reader as runs
from viprl.analysis.run_reader import load_run
from viprl.analysis.statistics import Estimate
from viprl.report import canvas
from viprl.report import figures as plots
from viprl.report.sections import write_report

pytest.importorskip("matplotlib")

SECTIONS = {
    "Gradient variance",
    "Rollouts without a signal",
    "Learning",
    "Predicted success",
    "Where the rollouts went",
    "Predicted and realised variance",
    "All numbers",
    "Settings",
}


class Page(HTMLParser):
    """Headings, attributes and whether every tag is closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def text_of(html: str) -> str:
    """The words of a page: no markup, no style, no figures."""
    without = re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without))


def sections_of(path: Path) -> set[str]:
    return SECTIONS & set(Page(path.read_text()).headings)


def folder_with(folder: Path, rows: list[dict[str, Any]], summary: dict[str, Any] | None = None) -> Path:
    report_data.write_lines(folder / "metrics.jsonl", rows)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def words_with(tmp_path: Path, summary: dict[str, Any]) -> str:
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1}], summary)
    return text_of(write_report([run], tmp_path / "report.html").read_text())


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_data.write_quickstart_run(tmp_path_factory.mktemp("runs") / "quickstart", np.random.default_rng(0))


@pytest.fixture(scope="module")
def page(quickstart: Path) -> str:
    return write_report([quickstart], quickstart / "report.html", quickstart / "plots").read_text()


# --- the page -------------------------------------------------------------------------------------------------


def test_a_full_run_shows_every_section_in_well_formed_html(page: str) -> None:
    parsed = Page(page)
    assert set(parsed.headings) >= SECTIONS
    assert not parsed.open
    assert parsed.tags.count("svg") == parsed.tags.count("figure") >= 9


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    parsed = Page(page)
    assert "http" not in page and "@import" not in page
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    references = [value for name, value in parsed.attributes if name in ("src", "href", "xlink:href")]
    assert references and all(value.startswith("#") for value in references)


def test_ids_are_unique_and_every_reference_hits_one(page: str) -> None:
    attributes = Page(page).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for name, value in attributes if name in ("href", "xlink:href")} | set(
        re.findall(r"url\(#([^)]+)\)", page)
    )
    assert used <= set(ids)


def test_prompts_names_and_settings_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    rows = report_data.training_rows(np.random.default_rng(0), "default", 0, 12)
    renamed = [row | {"strategy": "a<img src=x>$b$"} for row in rows]
    run = folder_with(tmp_path / "a<b>&c", rows + renamed, {"settings": {"prompts": evil, evil: [evil]}})
    report_data.write_history(run, [{"id": "1", "prompt": evil, "rollouts": [4], "successes": [2]}])
    html = write_report([run], tmp_path / "report.html").read_text()
    assert not {"script", "img"} & set(Page(html).tags)
    assert html.count("&lt;script&gt;alert(1)") >= 4
    assert "a&lt;b&gt;&amp;c" in html
    assert re.search(r"<text[^>]*>[^<]*\$b\$</text>", html), "a name in a figure was taken for a formula"


def test_plots_are_written_as_files_too(quickstart: Path, page: str) -> None:
    names = {file.name for file in (quickstart / "plots").iterdir()}
    assert {"variance_ratio.svg", "variance_ratio.png", "heldout_accuracy.svg", "calibration_0.png"} <= names
    assert len(names) == 2 * Page(page).tags.count("figure")


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = folder_with(tmp_path / "run", report_data.training_rows(np.random.default_rng(0), "default", 0, 10))
    first = write_report([run], tmp_path / "a.html").read_bytes()
    assert first == write_report([run], tmp_path / "b.html").read_bytes()
    assert sorted(file.name for file in tmp_path.glob("*.*")) == ["a.html", "b.html"]


def test_a_folder_as_target_gets_report_html(tmp_path: Path) -> None:
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1, "reward": 0.5}])
    assert write_report([run], run) == run / "report.html"


# --- sections come and go with their data -----------------------------------------------------------------------


def test_an_ordinary_training_run_is_reported_from_its_log(tmp_path: Path) -> None:
    run = report_data.write_training_run(tmp_path / "train", np.random.default_rng(1))
    out = write_report([run], tmp_path / "report.html")
    assert sections_of(out) == SECTIONS - {"Gradient variance"}
    assert "Judged by its own training rewards" in text_of(out.read_text())


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("reward", "Learning"),
        ("eval/mean_at_8", "Learning"),
        ("vip/zero_advantage_rollouts", "Rollouts without a signal"),
        ("frac_reward_zero_std", "Rollouts without a signal"),
        ("vip/brier", "Predicted success"),
        ("vip/counts/mean", "Where the rollouts went"),
        ("vip/variance_ratio/realised", "Predicted and realised variance"),
        ("vip/shadow/oracle/variance_ratio", "Predicted and realised variance"),
    ],
)
def test_one_key_brings_its_section_and_no_other(tmp_path: Path, key: str, section: str) -> None:
    rows = [{"strategy": "default", "seed": 0, "step": step, key: 0.5} for step in (1, 2, 3)]
    found = sections_of(write_report([folder_with(tmp_path / "run", rows)], tmp_path / "report.html"))
    assert found - {"Settings", "All numbers"} == {section}


def test_summary_entries_bring_their_sections(tmp_path: Path) -> None:
    rows = [{"strategy": "default", "seed": 0, "step": 1}]
    whole = report_data.summary(np.random.default_rng(0), 1)
    for key, section in (("variance_ratio", "Gradient variance"), ("calibration", "Predicted success")):
        run = folder_with(
            tmp_path / key, rows, {name: value for name, value in whole.items() if name != key} | {"by_step": {}}
        )
        assert section not in sections_of(write_report([run], tmp_path / "without.html"))
        run = folder_with(tmp_path / key, rows, {key: whole[key]})
        assert section in sections_of(write_report([run], tmp_path / "with.html"))


def test_trajectories_stand_in_for_measured_probabilities(tmp_path: Path) -> None:
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1}])
    report_data.write_history(run, report_data.trajectories(np.random.default_rng(0), 30))
    html = write_report([run], tmp_path / "report.html").read_text()
    assert "observed success rate" in html and "prompts with the most rollouts" in html


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    folders = [
        report_data.write_training_run(tmp_path / "one" / "run", rng, "default"),
        report_data.write_training_run(tmp_path / "two" / "run", rng, "uniform"),
    ]
    html = write_report(folders, tmp_path / "report.html").read_text()
    assert {"one/run", "two/run"} <= set(Page(html).headings)
    assert "one/run against two/run" in text_of(html)
    assert "Without repetitions the noise of this difference is unknown" in text_of(html)


def test_a_uniform_run_says_what_its_shadow_would_have_saved(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, size=40)
    rows = [
        {"strategy": "uniform", "seed": 0, "step": i, "vip/shadow/default/variance_ratio": v, "reward": 0.5}
        for i, v in enumerate(values.tolist())
    ]
    html = write_report([folder_with(tmp_path / "run", rows)], tmp_path / "report.html").read_text()
    assert f"the default allocation would have had {np.mean(values):.2f} times" in text_of(html)


# --- what is said of noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "sd", "n", "noise"),
    [
        (0.71, 0.12, 12, False),
        (0.95, 0.12, 12, True),
        (1.30, 0.12, 12, False),
        # t(.975; 3) = 3.182: the half width of sd .2 and n = 4 is .318
        (0.69, 0.20, 4, True),
        (0.68, 0.20, 4, False),
        (0.71, None, 1, False),
    ],
)
def test_variance_is_within_noise_exactly_when_the_interval_includes_one(
    tmp_path: Path, mean: float, sd: float | None, n: int, noise: bool
) -> None:
    words = words_with(tmp_path, {"variance_ratio": {"default": {"mean": mean, "sd": sd, "n": n}}})
    assert ("within noise" in words) == noise
    assert ("worse than uniform" in words) == (mean > 1.2)
    assert ("its noise is unknown" in words) == (sd is None)
    assert f"{mean:.2f} times the gradient variance of uniform" in words


def test_the_headline_states_sd_n_seeds_and_interval(tmp_path: Path) -> None:
    ratios = {"default": {"mean": 0.71, "sd": 0.12, "n": 12}}
    words = words_with(tmp_path, {"variance_ratio": ratios, "settings": {"seeds": 3}})
    # t(.975; 11) = 2.201, half width .0762
    assert "(sd 0.12, n = 12 batches from 3 seeds; 95 % interval 0.63 to 0.79)" in words


def by_seed(key: str, means: dict[str, list[float]]) -> dict[str, Any]:
    """Twelve batches of each seed that agree closely, whatever the seeds do."""
    seeds = range(len(next(iter(means.values()))))
    return {str(s): {key: {n: {"mean": v[s], "sd": 0.01, "n": 12} for n, v in means.items()}} for s in seeds}


def test_with_several_seeds_the_interval_rests_on_their_means(tmp_path: Path) -> None:
    pooled = {"default": {"mean": 0.8, "sd": 0.17, "n": 36}, "uniform": {"mean": 1.0, "sd": 0.0, "n": 36}}
    seeds = by_seed("variance_ratio", {"default": [0.6, 0.8, 1.0], "uniform": [1.0, 1.0, 1.0]})
    words = words_with(tmp_path, {"variance_ratio": pooled, "by_seed": seeds, "settings": {"seeds": 3}})
    # t(.975; 2) = 4.303, half width 4.303 * .2 / sqrt(3) = .497; over the 36 batches it would have been .058
    assert "(sd 0.20, n = 3 seeds; 95 % interval 0.30 to 1.30). The interval includes 1" in words
    assert "0.80 ± 0.20 (0.30 to 1.30), n = 3 seeds" in words
    assert "not independent" not in words and "means of the seeds, which are independent" in words


def test_with_one_seed_batches_stand_in_and_are_said_to_be_dependent(tmp_path: Path) -> None:
    ratios = {"default": {"mean": 0.71, "sd": 0.12, "n": 12}}
    seeds = by_seed("variance_ratio", {"default": [0.71]})
    words = words_with(tmp_path, {"variance_ratio": ratios, "by_seed": seeds, "settings": {"seeds": 1}})
    assert "n = 12 batches from 1 seed" in words
    assert (
        "Batches of one seed share a policy, so they are not independent and the true interval is likely wider."
        in words
    )


def test_wasted_rollouts_of_several_seeds_are_compared_seed_by_seed(tmp_path: Path) -> None:
    # seeds differ by far more than strategies: only pairing shows the difference
    shares = {"default": [0.40, 0.59, 0.81], "uniform": [0.50, 0.70, 0.90]}
    pooled = {name: {"mean": float(np.mean(v)), "sd": 0.2, "n": 36} for name, v in shares.items()}
    seeds = by_seed("zero_advantage_rollouts", shares)
    words = words_with(tmp_path, {"zero_advantage_rollouts": pooled, "by_seed": seeds})
    # differences -10, -11, -9: sd 1, half width 4.303 / sqrt(3) = 2.5
    assert "difference −10.0 percentage points; 95 % interval −12.5 to −7.5" in words


def test_a_difference_over_the_prompts_of_one_seed_is_not_called_one_over_seeds(tmp_path: Path) -> None:
    final = {name: {"final_eval": {"mean": 0.6, "sd": None, "n": 1}} for name in ("default", "uniform")}
    gap = {"mean": -0.003, "low": -0.007, "high": -0.001, "n": 256, "basis": "held-out prompts of one seed"}
    words = words_with(tmp_path, {"learning": final | {"paired_difference": gap}})
    assert "(n = 256 held-out prompts of one seed; 95 % interval −0.007 to −0.001)" in words
    assert "how seeds differ is unknown" in words and "256 seeds" not in words


@pytest.mark.parametrize(("sd", "noise"), [(0.05, False), (0.5, True)])
def test_wasted_rollouts_are_within_noise_exactly_when_the_difference_includes_zero(
    tmp_path: Path, sd: float, noise: bool
) -> None:
    shares = {"default": {"mean": 0.59, "sd": sd, "n": 12}, "uniform": {"mean": 0.80, "sd": sd, "n": 12}}
    words = words_with(tmp_path, {"zero_advantage_rollouts": shares})
    assert ("within noise" in words) == noise
    assert "difference −21.0 percentage points" in words


@pytest.mark.parametrize(("low", "noise"), [(-0.004, True), (0.001, False)])
def test_learning_is_within_noise_exactly_when_the_paired_difference_includes_zero(
    tmp_path: Path, low: float, noise: bool
) -> None:
    final = {
        name: {"final_eval": {"mean": mean, "sd": 0.01, "n": 3}}
        for name, mean in (("default", 0.68), ("uniform", 0.66))
    }
    gap = {"mean": 0.02, "low": low, "high": 0.04, "n": 3}
    words = words_with(tmp_path, {"learning": final | {"paired_difference": gap}})
    assert ("within noise" in words) == noise
    assert "a paired difference of +0.020 (n = 3 seeds" in words


def test_the_paired_difference_is_computed_from_the_log_where_no_summary_gives_it(tmp_path: Path) -> None:
    # seeds differ by far more than strategies: only pairing shows the difference
    rows = [
        {"strategy": name, "seed": seed, "step": 5, "eval/mean_at_8": 0.2 * seed + gain + 0.001 * (seed == 1)}
        for seed in range(3)
        for name, gain in (("default", 0.02 + 0.001 * seed), ("uniform", 0.0))
    ]
    html = write_report([folder_with(tmp_path / "run", rows)], tmp_path / "report.html").read_text()
    assert "a paired difference of +0.021 (n = 3 seeds; 95 % interval +0.019 to +0.023)" in text_of(html)
    assert "within noise" not in text_of(html)


# --- reading ------------------------------------------------------------------------------------------------------


def test_a_truncated_last_line_is_noted_and_left_out(tmp_path: Path) -> None:
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": s, "reward": 0.5} for s in (1, 2)])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"strategy": "default", "seed": 0, "st')
    assert [row["step"] for row in load_run(run).rows] == [1, 2]
    html = write_report([run], tmp_path / "report.html").read_text()
    assert "line 3 was cut short" in html


def test_broken_lines_rows_without_step_and_broken_files_are_noted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "reward": 1}\nnot json\n[1]\n{"reward": 2}\n')
    (run / "summary.json").write_text('{"variance_ratio": ')
    report_data.write_history(run, report_data.trajectories(np.random.default_rng(0), 200))
    packed = (run / "trajectories.jsonl.gz").read_bytes()
    (run / "trajectories.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    loaded = load_run(run)
    notes = " ".join(loaded.notes)
    assert len(loaded.rows) == 1 and loaded.strategies == ("unnamed",)
    assert "line 2 is not a JSON object" in notes and "line 3 is not a JSON object" in notes
    assert "1 line(s) without a step" in notes and "summary.json" in notes and "trajectories.jsonl.gz" in notes
    assert write_report([run], tmp_path / "report.html").exists()


def test_nan_none_infinity_and_text_count_as_not_logged(tmp_path: Path) -> None:
    values: list[Any] = [0.1, None, math.nan, math.inf, "0.3", True, 0.5]
    rows = [{"strategy": "default", "seed": 0, "step": i, "reward": v, "vip/brier": None} for i, v in enumerate(values)]
    run = load_run(folder_with(tmp_path / "run", rows))
    curve = run.curve("default", "reward")
    assert curve is not None
    np.testing.assert_array_equal(curve.steps, [0, 6])
    np.testing.assert_array_equal(curve.values, [[0.1, 0.5]])
    assert run.curve("default", "vip/brier") is None
    html = write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
    assert "nan" not in text_of(html).lower()


def test_odd_summaries_do_not_end_the_report(tmp_path: Path) -> None:
    odd = {
        "variance_ratio": {"default": {"mean": None}, "paper": 3, "oracle": {"mean": 0.5, "sd": math.nan, "n": 4}},
        "zero_advantage_rollouts": [1, 2],
        "by_step": {"40": 1, "end": {}, "80": {"variance_ratio": {"oracle": {"mean": 0.4, "sd": 0.1, "n": 4}}}},
        "calibration": [{"predicted": 0.5, "true": None}, 7, {"predicted": 0.4, "true": 0.5}],
        "settings": [],
        "learning": {"default": 1, "paired_difference": {"mean": math.nan}},
    }
    words = words_with(tmp_path, odd)
    assert "0.50 times the gradient variance" in words and "within noise" not in words


def test_curves_align_seeds_and_interpolate_rollouts_for_evaluations(tmp_path: Path) -> None:
    rows = [
        {"strategy": "default", "seed": s, "step": t, "rollouts": 100 * t, "reward": s + t}
        for s in (0, 1)
        for t in (1, 3)
    ]
    rows += [{"strategy": "default", "seed": 1, "step": 2, "eval/mean_at_8": 0.5}]
    run = load_run(folder_with(tmp_path / "run", rows[:3] + rows[4:]))
    reward, evaluation = run.curve("default", "reward"), run.curve("default", "eval/mean_at_8")
    assert reward is not None and evaluation is not None
    np.testing.assert_array_equal(reward.values, [[1, 3], [2, np.nan]])
    np.testing.assert_array_equal(reward.mean, [1.5, 3])
    np.testing.assert_array_equal(evaluation.rollouts, [200])
    assert evaluation.last() == {1: 0.5}


def test_a_resumed_run_counts_the_last_line_of_a_step(tmp_path: Path) -> None:
    rows = [{"strategy": "default", "seed": 0, "step": 1, "reward": r} for r in (0.1, 0.9)]
    curve = load_run(folder_with(tmp_path / "run", rows)).curve("default", "reward")
    assert curve is not None and curve.values.tolist() == [[0.9]]


def test_what_is_no_run_folder_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run folder .*gone.*viprl train --config"):
        load_run(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"holds no metrics\.jsonl.*viprl quickstart"):
        load_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(NotADirectoryError, match="expected the run folder"):
        load_run(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="no complete line"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="viprl report RUN_DIR"):
        write_report([], tmp_path / "report.html")


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1, "reward": 0.5}])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'^The report .* pip install "viprl\[report\]"$'):
        write_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


# --- the small statistics -----------------------------------------------------------------------------------------


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    estimates = [Estimate.of(rng.normal(1, 2, size=4)) for _ in range(4000)]
    covered = np.mean([e is not None and e.against(1.0) == "within noise" for e in estimates])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_welch_interval_covers_a_difference_of_unequal_spreads() -> None:
    rng = np.random.default_rng(1)
    pairs = [(Estimate.of(rng.normal(2, 1, size=5)), Estimate.of(rng.normal(2, 4, size=12))) for _ in range(4000)]
    inside = [runs.difference(a, b).against(0.0) == "within noise" for a, b in pairs if a and b]
    assert abs(np.mean(inside) - 0.95) < 0.015


def test_blocks_widen_the_interval_of_correlated_steps() -> None:
    noise = np.random.default_rng(2).normal(size=(1, 2000))
    correlated = runs.smooth(noise[0], 40)[None]
    naive, blocks = Estimate.of(correlated), runs.over_blocks(correlated)
    assert naive is not None and blocks is not None and naive.high is not None and blocks.high is not None
    assert math.isclose(naive.mean, blocks.mean)
    assert blocks.high - blocks.mean > 3 * (naive.high - naive.mean)


def test_smoothing_leaves_gaps_out() -> None:
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(runs.smooth(values, 3), [1, 2, 4, 4, 5, np.nan, np.nan])
    np.testing.assert_array_equal(runs.smooth(np.array([2.0]), 9), [2.0])


def test_the_axis_of_ratios_is_made_for_what_is_near_uniform() -> None:
    near = [Estimate(0.8, 4, 0.1, 0.6, 1.1), Estimate(0.5, 4, 0.1, 0.4, 0.6)]
    far, wild = Estimate(3.3, 4, 2.4, 1.8, 4.8), Estimate(1.06, 4, 0.8, -0.2, 2.4)
    assert plots.ratio_range([*near, far]) == plots.ratio_range(near) == pytest.approx((0.344, 1.156))
    low, high = plots.ratio_range([*near, wild])
    assert low == 0.0 and 1.5 < high < 1.7
    low, high = plots.ratio_range([far])
    assert low <= 1.0 and high > 3.3
    assert plots.ratio_range([Estimate(1.9, 1)])[1] > 1.9


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([3.0], [3.0]),
        ([0, 5], [0, 5]),
        ([1, 1], [0.5, 1.5]),
        ([2, 0, 2.2], [1.6, 0, 2.6]),
        ([0, 0, 0.1], None),
    ],
)
def test_labels_are_spread_apart_in_order(heights: list[float], expected: list[float] | None) -> None:
    placed = canvas.spread_labels(heights, gap=1.0)
    if expected is not None:
        np.testing.assert_allclose(placed, expected)
    assert all(b - a > 1 - 1e-9 for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert math.isclose(sum(placed), sum(heights))


def test_styles_tell_strategies_by_colour_and_runs_by_dash() -> None:
    pairs = [(run, name) for run in ("a", "b") for name in ("default", "uniform")]
    found = canvas.styles(pairs)
    assert len({(style.colour, style.dash) for style in found.values()}) == 4
    assert found["a", "default"].colour == found["b", "default"].colour
    assert found["a", "default"].label == "a · default"
    by_run = canvas.styles([("a", "default"), ("b", "default")])
    assert by_run["a", "default"].colour != by_run["b", "default"].colour
    assert canvas.styles([("a", "mine"), ("a", "other")])["a", "mine"].label == "mine"
