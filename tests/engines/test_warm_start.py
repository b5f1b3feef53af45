"""Learning from the log of an earlier run: `VIP.from_log`, `observe_counts`, and the warm start of engines."""

import json

import numpy as np
import pytest

from viprl import VIP
from viprl.engines.success import SuccessCriterion
from viprl.engines.warm_start import TrainingRow, matched, warm_start
from viprl.errors import DataError
from viprl.runs.history import PromptHistory

PROMPTS = ["easy one", "hard one", "other one"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def log(tmp_path):
    successes = [[8, 8, 8], [0, 1], [3, 4, 5]]
    numbered = enumerate(zip(PROMPTS, successes, strict=True))
    rows = [{"id": f"n{i}", "prompt": p, "rollouts": 8, "successes": k} for i, (p, k) in numbered]
    return write(tmp_path / "run.jsonl", rows)


def vip(**more):
    return VIP(features="none", cache=None, **more)


def test_a_log_is_observed_visit_by_visit(log):
    warm, by_hand = VIP.from_log(log, features="none", cache=None), vip()
    by_hand.observe(PROMPTS, [[1] * 8, [0] * 8, [1] * 3 + [0] * 5])
    by_hand.observe(PROMPTS, [[1] * 8, [1] + [0] * 7, [1] * 4 + [0] * 4])
    by_hand.observe([PROMPTS[0], PROMPTS[2]], [[1] * 8, [1] * 5 + [0] * 3])
    assert (warm.predict(PROMPTS) == by_hand.predict(PROMPTS)).all()
    assert warm.predict(PROMPTS)[0] > 0.9 > 0.2 > warm.predict(PROMPTS)[1]


def test_prompts_are_recognised_by_content_or_by_id(log):
    by_id = VIP.from_log(log, match="id", features="none", cache=None)
    known = by_id.predict([{"prompt": "worded anew", "id": "n0"}, "easy one"])
    assert known[0] > 0.9 > known[1]


def test_a_log_of_ids_alone_needs_match_id(tmp_path):
    path = write(tmp_path / "ids.jsonl", [{"id": "a", "prompt": "", "rollouts": 2, "successes": [1]}])
    with pytest.raises(ValueError, match="match='id'"):
        VIP.from_log(path, features="none", cache=None)
    with pytest.raises(ValueError, match="'text'"):
        VIP.from_log(path, match="text", features="none", cache=None)


def test_a_log_of_trl_is_learned_from_whatever_counts_as_success(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = {"step": [1] * 4, "prompt": ["p"] * 4, "completion": [""] * 4, "advantage": [0.0] * 4}
    pandas.DataFrame(rows | {"score": [0.2, 0.7, 0.9, 0.8]}).to_parquet(tmp_path / "completions_00001.parquet")
    warm = VIP.from_log(tmp_path, reward="score", success=0.5, features="none", cache=None)
    by_hand = vip()
    by_hand.observe(["p"], [[0.2, 0.7, 0.9, 0.8]])
    assert warm.predict(["p"]) == by_hand.predict(["p"])


def test_counts_are_checked_and_merged():
    one, two = vip(), vip()
    one.observe_counts(["a", "b", "a"], [1, 0, 2], [4, 4, 4])
    two.observe(["a", "b"], [[1, 1, 1] + [0] * 5, [0] * 4])
    assert (one.predict(["a", "b"]) == two.predict(["a", "b"])).all()
    for successes, rollouts in ([1], [4, 4]), ([5, 0], [4, 4]), ([-1, 0], [4, 4]), ([np.nan, 0], [4, 4]):
        with pytest.raises(ValueError, match="2 prompts"):
            one.observe_counts(["a", "b"], successes, rollouts)


def history(prompt, ground_truth=None, *, id=None):
    return PromptHistory(id or f"{prompt}/{ground_truth}", prompt, np.array([8.0]), np.array([4.0]), ground_truth)


def rows(*pairs):
    return [TrainingRow([{"role": "user", "content": f"{i}"}], text, truth) for i, (text, truth) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("logged", "training", "expected"),
    [
        ([("q", None)], [("other", "7"), ("q", "7")], {0: 1}),  # a log without ground truths: by the text alone
        ([("q", "7"), ("q", "8")], [("q", "8"), ("q", "7")], {0: 1, 1: 0}),
        ([("q", "9"), ("r", "7")], [("q", "8"), ("r", None)], {}),  # another or no ground truth: another prompt
    ],
)
def test_a_dump_is_matched_by_text_and_ground_truth(logged, training, expected):
    training = rows(*training)
    found = matched([history(*pair) for pair in logged], training)
    assert {h.ground_truth: h.prompt for h in found} == {logged[i][1]: training[k].prompt for i, k in expected.items()}


def test_a_log_with_a_training_set_is_matched_by_id_and_by_content_too():
    chat = [{"role": "user", "content": "q"}]
    training = [TrainingRow({"prompt": chat, "id": 3}, "<q>"), TrainingRow(chat, "<q>")]
    found = matched([history("worded anew", id="3"), history(chat)], training)
    assert [h.prompt for h in found] == [training[0].prompt, chat]


def test_a_log_of_other_prompts_is_an_error(log):
    with pytest.raises(DataError, match="3 prompts"):
        warm_start(vip(), log, SuccessCriterion(None), training_set=rows(("other", None)))


def test_the_trl_trainers_take_a_log(log, tmp_path):
    pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
    import tiny
    from viprl.engines.trl import VIPRLOOConfig, VIPRLOOTrainer

    data = tiny.dataset()
    first = data["prompt"][0]
    path = write(tmp_path / "tiny.jsonl", [{"id": "0", "prompt": first, "rollouts": 8, "successes": [8, 8, 8]}])
    args = VIPRLOOConfig(
        str(tmp_path / "run"), vip_features="none", vip_warm_start=str(path), num_generations=4,
        per_device_train_batch_size=16, use_cpu=True, bf16=False, report_to=[], beta=0.0,
    )  # fmt: skip
    trainer = VIPRLOOTrainer(tiny.model(), tiny.contains, args, train_dataset=data, processing_class=tiny.tokenizer())
    known, unknown = trainer.vip.predict([first, data["prompt"][1]])
    assert known > 0.9 > unknown


def test_rewards_of_a_log_are_observed_as_rewards(tmp_path):
    rewards = [[[0.1, 1.0, 0.0, 0.1], [0.1, 0.1, 1.0]], [[0.0, 0.0]], [[1.0, 0.1, 1.0], [1.0, 1.0]]]
    rows = [{"id": f"n{i}", "prompt": p, "rewards": r} for i, (p, r) in enumerate(zip(PROMPTS, rewards, strict=True))]
    path, by_hand = write(tmp_path / "run.jsonl", rows), vip()
    by_hand.observe(PROMPTS, [r[0] for r in rewards])
    by_hand.observe([PROMPTS[0], PROMPTS[2]], [rewards[0][1], rewards[2][1]])
    training = [TrainingRow(p, p) for p in PROMPTS]
    started = vip()
    warm_start(started, path, SuccessCriterion(None), training_set=training)
    given = VIP.from_log(path, features="none", cache=None, success=0.5)  # success is for metrics
    named = VIP.from_log(path, features="none", cache=None, match="id")
    for warm, prompts in ((started, PROMPTS), (given, PROMPTS), (named, [{"prompt": "", "id": r["id"]} for r in rows])):
        assert warm.predict(prompts).tolist() == by_hand.predict(PROMPTS).tolist()
        shares = [next(iter(one.propose(of, 24).values())).counts for one, of in ((warm, prompts), (by_hand, PROMPTS))]
        assert shares[0].tolist() == shares[1].tolist()


def test_a_log_may_be_learned_from_while_a_batch_is_planned(log):
    planned = vip()
    planned.allocate(PROMPTS, 24)
    planned.learn_from_log(log)
    assert planned.predict(PROMPTS)[0] > 0.9
    assert planned.observe(PROMPTS, [[1.0] * n for n in [8, 8, 8]]).variance is not None
