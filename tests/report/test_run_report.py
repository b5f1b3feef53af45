"""The report of runs: which sections appear, that the page needs nothing else, and that all text is escaped."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import report_data
from report_data import Page, folder_with, text_of
from typer.testing import CliRunner

from log_files import write_lines
from viprl.cli import app
from viprl.errors import InputError, MissingPackageError
from viprl.report.run_report import write_report
from viprl.report.view import View
from viprl.report.waves import waves
from viprl.runs.reader import Run

pytest.importorskip("matplotlib")

SECTIONS = {
    "Gradient variance", "Rollouts without a gradient", "Learning", "Predictions of success", "Rollouts per prompt",
    "Predicted and realised variance", "Second moment of the gradient", "All numbers", "Settings", "Two waves",
}  # fmt: skip


def sections_of(path):
    return SECTIONS & set(Page(path.read_text()).headings)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    return report_data.write_quickstart_run(tmp_path_factory.mktemp("runs") / "quickstart", np.random.default_rng(0))


@pytest.fixture(scope="module")
def page(quickstart):
    return write_report([quickstart], quickstart / "report.html", quickstart / "plots").read_text()


def test_a_full_run_has_every_section_in_well_formed_html_that_refers_to_nothing_outside(page):
    parsed = Page(page)
    assert set(parsed.headings) >= SECTIONS - {"Two waves"}
    assert not parsed.open
    assert parsed.tags.count("svg") == parsed.tags.count("figure") >= 9
    assert "nan" not in text_of(page).lower()
    assert "http" not in page and "@import" not in page
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert parsed.references and all(value.startswith("#") for value in parsed.references)
    used = {value[1:] for value in parsed.references} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(ids)


def test_figures_are_written_as_files_too(quickstart, page):
    names = {file.name for file in (quickstart / "plots").iterdir()}
    assert {"variance_ratio.svg", "variance_ratio.png", "held_out_success.svg", "calibration_0.png"} <= names
    assert len(names) == 2 * Page(page).tags.count("figure")


def test_prompts_names_and_settings_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    rows = report_data.training_rows(np.random.default_rng(0), "default", 0, 12)
    renamed = [row | {"strategy": "a<img src=x>$b$"} for row in rows]
    run = folder_with(tmp_path / "a<b>&c", rows + renamed, {"settings": {"prompts": evil, evil: [evil]}})
    write_lines(run / "history.jsonl.gz", [{"id": "1", "prompt": evil, "rollouts": [4], "successes": [2]}])
    html = write_report([run], tmp_path / "report.html").read_text()
    assert not {"script", "img"} & set(Page(html).tags)
    assert html.count("&lt;script&gt;alert(1)") >= 4
    assert "a&lt;b&gt;&amp;c" in html
    assert re.search(r"<text[^>]*>[^<]*\$b\$</text>", html), "a name in a figure was read as a formula"


def test_the_same_run_gives_the_same_page(tmp_path):
    rows = [{"strategy": "default", "seed": 0, "step": step, "reward": step / 9} for step in range(9)]
    run = folder_with(tmp_path / "run", rows)
    first = write_report([run], tmp_path / "a.html").read_bytes()
    assert first == write_report([run], tmp_path / "b.html").read_bytes()
    assert sorted(file.name for file in tmp_path.glob("*.*")) == ["a.html", "b.html"]
    assert write_report([run], run) == run / "report.html"


def test_a_training_run_is_reported_from_its_log(tmp_path):
    run = report_data.write_training_run(tmp_path / "train", np.random.default_rng(1))
    assert sections_of(write_report([run], tmp_path / "report.html")) == SECTIONS - {
        "Gradient variance",
        "Second moment of the gradient",
        "Two waves",
    }


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("reward", "Learning"),
        ("eval/held_out_success", "Learning"),
        ("vip/zero_advantage_rollouts", "Rollouts without a gradient"),
        ("frac_reward_zero_std", "Rollouts without a gradient"),
        ("vip/brier", "Predictions of success"),
        ("vip/counts/mean", "Rollouts per prompt"),
        ("vip/variance_ratio/realised", "Predicted and realised variance"),
        ("vip/shadow/oracle/variance_ratio", "Predicted and realised variance"),
        ("vip/gradient/rollout_noise", "Second moment of the gradient"),
        ("vip/waves/first_looks", "Two waves"),
    ],
)
def test_each_metric_has_its_section(tmp_path, key, section):
    rows = [{"strategy": "default", "seed": 0, "step": step, key: 0.5} for step in (1, 2, 3)]
    found = sections_of(write_report([folder_with(tmp_path / "run", rows)], tmp_path / "report.html"))
    assert found - {"Settings", "All numbers"} == {section}


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("variance_ratio", "Gradient variance"),
        ("second_moment_ratio", "Second moment of the gradient"),
        ("calibration", "Predictions of success"),
    ],
)
def test_each_entry_of_the_summary_has_its_section(tmp_path, key, section):
    rows = [{"strategy": "default", "seed": 0, "step": 1}]
    whole = report_data.summary(np.random.default_rng(0), 1)
    without = {name: value for name, value in whole.items() if name != key} | {"by_step": {}}
    run = folder_with(tmp_path / "without", rows, without)
    assert section not in sections_of(write_report([run], tmp_path / "report.html"))
    run = folder_with(tmp_path / "with", rows, {key: whole[key]})
    assert section in sections_of(write_report([run], tmp_path / "report.html"))


@pytest.mark.parametrize(("mean", "speed_up"), [(0.64, "1.25"), (1.0, "within noise"), (1.44, None)])
def test_what_follows_from_the_second_moment(tmp_path, mean, speed_up):
    """R^(-1/2), if R is clearly below 1."""
    parts = {name: {"mean": share, "sd": 0.01, "n": 3} for name, share in report_data.SHARES.items()}
    summary = {"second_moment_ratio": {"default": {"mean": mean, "sd": 0.02, "n": 12}}, "second_moment": parts}
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1}], summary)
    words = text_of(write_report([run], tmp_path / "report.html").read_text())
    assert f"R = {mean:.2f}" in words and "60 %" in words and "35 %" in words
    assert ("R^(−1/2)" in words) == (mean < 1)
    if speed_up is not None:
        assert speed_up in words


def test_without_a_measurement_the_history_gives_rollouts_by_difficulty(tmp_path):
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1}])
    write_lines(run / "history.jsonl.gz", report_data.histories(np.random.default_rng(0), 30))
    page = Page(write_report([run], tmp_path / "report.html").read_text())
    assert "Rollouts per prompt" in page.headings and page.tags.count("svg") == 1 and page.tags.count("table") == 2


def test_several_runs_are_shown_side_by_side(tmp_path):
    rng = np.random.default_rng(2)
    folders = [
        report_data.write_training_run(tmp_path / "one" / "run", rng, "default"),
        report_data.write_training_run(tmp_path / "two" / "run", rng, "uniform"),
    ]
    html = write_report(folders, tmp_path / "report.html").read_text()
    assert {"one/run", "two/run"} <= set(Page(html).headings)
    assert "one/run minus two/run" in text_of(html)


def test_unusual_summaries_and_unreadable_rows_do_not_end_the_report(tmp_path):
    odd = {
        "variance_ratio": {"default": {"mean": None}, "paper": 3, "oracle": {"mean": 0.5, "sd": math.nan, "n": 4}},
        "zero_advantage_rollouts": [1, 2],
        "by_step": {"40": 1, "end": {}, "80": {"variance_ratio": {"oracle": {"mean": 0.4, "sd": 0.1, "n": 4}}}},
        "calibration": [{"predicted": 0.5, "true": None}, 7, {"predicted": 0.4, "true": 0.5}],
        "settings": [],
        "learning": {"default": 1, "paired_difference": {"mean": math.nan}},
    }
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1}, {"reward": 1}], odd)
    words = text_of(write_report([run], tmp_path / "report.html").read_text())
    assert "0.50×" in words and "row 2 has no step" in words


@pytest.mark.parametrize("value", [math.inf, 1e308, 10**400, "x", [1], {"a": 1}, True, None, 0, -5])
def test_values_that_cannot_be_drawn_are_left_out(tmp_path, value):
    keys = ("seed", "rollouts", "reward", "vip/counts/mean", "vip/counts/max", "vip/variance_ratio/realised", "epoch")
    good = {"strategy": "default", "seed": 0} | dict.fromkeys(keys[1:], 0.5)
    rows = [good | {"step": step, keys[step % len(keys)]: value} for step in range(1, 9)]
    html = write_report([folder_with(tmp_path / "run", rows)], tmp_path / "report.html").read_text()
    assert "Training reward" in html


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(InputError):
        write_report([], tmp_path / "report.html")
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": 1, "reward": 0.5}])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"viprl\[report\]"):
        write_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("log", ["history.jsonl.gz", "outcomes.jsonl"])
def test_without_success_the_report_shows_rewards(tmp_path, log):
    rows = [
        {"strategy": "default", "seed": 0, "step": step, "vip/reward": 0.4, "vip/reward_variance": 0.1, "rollouts": 8}
        for step in (1, 2, 3)
    ]
    run = folder_with(tmp_path / "run", rows)
    rewards = [[0.1, 0.7], [0.3, 0.3, 0.5]]
    if log == "outcomes.jsonl":
        row = {"step": 1, "ids": ["id:a", "id:b"], "counts": [2, 4], "successes": [None, None], "scorable": [2, 3]}
        write_lines(run / log, [row | {"rewards": rewards}])
    else:
        write_lines(run / log, [{"id": i, "prompt": "p", "rewards": [group]} for i, group in enumerate(rewards)])
    html = write_report([run], tmp_path / "report.html", tmp_path / "plots").read_text()
    names = {file.stem for file in (tmp_path / "plots").glob("*.svg")}
    assert {"prompt_reward", "reward_variance", "counts_0"} <= names and "success_rate" not in names
    assert "mean reward" in text_of(html) and "0.40" in text_of(html) and "success rate" not in text_of(html)
    assert "Notes on the data" not in Page(html).headings


def test_with_success_the_report_shows_no_reward_variance(tmp_path):
    values = {"vip/success_rate": 0.5, "vip/reward": 0.5, "vip/reward_variance": 0.2}
    run = folder_with(tmp_path / "run", [{"strategy": "default", "seed": 0, "step": s} | values for s in (1, 2, 3)])
    write_report([run], tmp_path / "report.html", tmp_path / "plots")
    assert {file.stem for file in (tmp_path / "plots").glob("*.svg")} == {"success_rate", "prompt_reward"}


@pytest.mark.parametrize("trust", [1.0, 0.0])
def test_the_section_on_two_waves(trust):
    """In half of the steps: first looks at .6 of the prompts, .4 of the rollouts in the second wave."""
    shares = {"vip/waves/first_looks": 0.6, "vip/waves/second_wave": 0.4}
    rows = [
        {"strategy": "default", "step": step, "vip/waves/trust": trust} | {k: v * (step > 5) for k, v in shares.items()}
        for step in range(1, 11)
    ]
    section = waves(View.of([Run("run", Path("run"), tuple(rows), {}, (), ())]))
    assert [drawing.name for drawing in section.drawings] == ["first_looks", "second_wave"]
    words = section.lead[1].replace("\u00a0", " ")
    assert all(
        share in words for share in ("50 % of the logged steps", "60 % of their prompts", "40 % of their rollouts")
    )
    assert ("does not use them any more" in words) == (trust < 1)


def test_a_long_word_does_not_widen_the_page(tmp_path):
    run = folder_with(tmp_path / ("x" * 120), [{"strategy": "default", "seed": 0, "step": 1, "reward": 0.5}])
    style = write_report([run], tmp_path / "report.html").read_text().partition("</style>")[0]
    for tag in ("h1", "p", "td:first-child"):
        assert re.search(rf"(^|[,}}\n]){re.escape(tag)}[^{{}}]*{{[^}}]*overflow-wrap:anywhere", style), tag


def test_the_command_writes_figures_and_the_page_of_a_log_of_verl(tmp_path):
    data = {"vip/counts/min": 2, "vip/counts/mean": 4, "vip/counts/max": 9, "vip/reward": 0.5}
    log = write_lines(tmp_path / "logs" / "a.jsonl", [{"step": step, "data": data} for step in range(3)])
    result = CliRunner().invoke(app, ["report", str(log), "--figures", str(tmp_path / "figures")])
    assert result.exit_code == 0 and (tmp_path / "logs" / "report.html").is_file()
    assert {file.suffix for file in (tmp_path / "figures").iterdir()} == {".png", ".svg"}
    assert (tmp_path / "figures" / "prompt_reward.png").read_bytes().startswith(b"\x89PNG")
