"""The example examples/smollm2: problems, reward, configurations, supervised rows, and one step of each training."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the examples are run from the repository's root

from examples.smollm2.problems import LEVELS, last_number, sample_problems  # noqa: E402

ARMS = ("default", "uniform", "paper")


def arm(name: str) -> dict:
    return yaml.safe_load((ROOT / "examples" / "smollm2" / f"{name}.yaml").read_text())


def test_the_same_seed_gives_the_same_problems():
    assert sample_problems(40, np.random.default_rng(3)) == sample_problems(40, np.random.default_rng(3))
    assert sample_problems(40, np.random.default_rng(3)) != sample_problems(40, np.random.default_rng(4))


def test_solutions_follow_from_the_texts_and_levels_have_equal_shares():
    problems = sample_problems(203, np.random.default_rng(0))
    assert len({p.id for p in problems}) == 203
    assert sorted(Counter(p.level for p in problems).values()) == [25] * 5 + [26] * 3
    for problem in problems:
        x, y = map(int, re.findall(r"\d+", problem.prompt))
        right = x + y if "buys" in problem.prompt else x - y if "loses" in problem.prompt else x * y
        assert problem.solution == str(right) and right > 0
        low, high = LEVELS[problem.level].x
        assert low <= x <= high and problem.prompt.endswith("? ")


@pytest.mark.parametrize("n", [0, -1, 10_000])
def test_impossible_numbers_of_problems_are_refused(n):
    with pytest.raises(ValueError, match=str(n)):
        sample_problems(n, np.random.default_rng(0))


def test_the_reward_reads_the_last_number():
    texts = ["12", "7 and 5 make 12.", "12 apples, not 7", "", "twelve", "012", "-12", [{"content": "It is 12"}]]
    assert last_number([None] * 8, texts, ["12"] * 8) == [1, 1, 0, 0, 0, 1, 0, 1]


def test_the_arms_differ_only_in_the_strategy():
    free = ("vip_strategy", "vip_shadow", "output_dir")
    common = [{k: v for k, v in arm(name).items() if k not in free} for name in ARMS]
    assert common[0] == common[1] == common[2]
    assert [arm(name)["vip_strategy"] for name in ARMS] == list(ARMS)
    assert len({arm(name)["output_dir"] for name in ARMS}) == len(ARMS)


def test_the_sets_are_disjoint():
    pytest.importorskip("transformers", reason='needs pip install "viprl[trl]"')
    from examples.smollm2.prepare import split

    sets = split(96, 128, 600, 0)
    assert [len(part) for part in sets] == [96, 128, 600]
    assert len({problem.id for part in sets for problem in part}) == 96 + 128 + 600


def test_the_supervised_rows_teach_the_answer_and_its_end_only():
    pytest.importorskip("torch", reason='needs pip install "viprl[trl]"')
    pytest.importorskip("transformers", reason='needs pip install "viprl[trl]"')
    from examples.smollm2.prepare import answer_rows

    class Letters:
        eos_token_id = 0

        def __call__(self, texts):
            return {"input_ids": [[ord(letter) for letter in text] for text in texts]}

    problems = sample_problems(12, np.random.default_rng(0))
    rows = answer_rows(problems, Letters())
    for problem, ids, labels in zip(problems, rows["input_ids"].tolist(), rows["labels"].tolist(), strict=True):
        taught = [(i, label) for i, label in enumerate(labels) if label != -100]
        assert "".join(chr(label) for _, label in taught[:-1]) == problem.solution and taught[-1][1] == 0
        assert taught[0][0] == len(problem.prompt) and all(ids[i] == label for i, label in taught)


@pytest.mark.parametrize("name", ARMS)
def test_one_step_of_every_arm(name, tmp_path, monkeypatch):
    pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
    import tiny
    from viprl.train.config import parse_config
    from viprl.train.training import train
    from viprl.utils.json_lines import log_rows, write_json_lines

    monkeypatch.chdir(ROOT)
    tiny.save(tmp_path / "start")
    write_json_lines(tmp_path / "train.jsonl", map(asdict, sample_problems(20, np.random.default_rng(0))))
    places = {"model": "start", "dataset": "train.jsonl", "output_dir": "run"}
    small = {"max_steps": 1, "save_steps": 50, "vip_features": "length", "bf16": False}
    folder = train(parse_config(arm(name) | {k: str(tmp_path / v) for k, v in places.items()} | small))
    (outcome,) = log_rows(folder / "outcomes.jsonl")
    assert len(outcome["counts"]) == 16 and sum(outcome["counts"]) == 128
    assert all(key.startswith("id:") for key in outcome["ids"])


def test_variance_ratios_computed_by_hand(tmp_path):
    pytest.importorskip("torch", reason='needs pip install "viprl[trl]"')
    from examples.smollm2.measure import interpolated, own_variance, ratios, reward_variance, wasted

    def answers(name: str, right: dict[str, int]) -> Path:
        rows = [{"id": i, "answer": "7", "completions": ["7"] * k + ["8"] * (8 - k)} for i, k in right.items()]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    counts, ids = [[2, 4], [4, 2]], ["id:a", "id:b"]
    steps = [{"step": t + 1, "ids": ids, "counts": n, "scorable": n} for t, n in enumerate(counts)]
    ends = answers("start", {"a": 4, "b": 0}), answers("end", {"a": 4, "b": 8})
    variance = interpolated(reward_variance, *ends, steps)
    assert np.allclose(variance, [[1 / 3, 0], [1 / 3, 0]])  # 2 * 2 / (4 * 3) from every second sample: unbiased
    found = ratios(variance, counts, steps, np.random.default_rng(0))
    # a: v/1 + v/3 against 2 v/2; b has no variance; the second step alone: v/3 against v/2
    assert found["all"]["value"] == pytest.approx(4 / 3) and found["visited_before"]["value"] == pytest.approx(2 / 3)
    assert ratios(variance, [[3, 3]] * 2, steps, np.random.default_rng(0))["all"] == {"value": 1, "low": 1, "high": 1}
    assert np.allclose(own_variance([{"scorable": [2, 4], "successes": [1, 4]}]), [[1 / 2, 0]])
    assert wasted({"scorable": [2, 4], "successes": [1, 4]}) == pytest.approx(4 / 6)
