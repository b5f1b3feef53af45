"""The trainer's own part of a step, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy
from trainer_steps import N, Q, batches, build, installed, prompt_row, rollout, step
from transfer_queue import KVBatchMeta
from transformers import AutoTokenizer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from log_files import write_lines
from metric_names import unknown
from viprl.advantages import group_advantages
from viprl.engines.prompt_id import identified
from viprl.engines.verl.rollouts import PlannedStep, prompt_order, row_sums
from viprl.engines.verl.sync_trainer import STATE_FILE, VIPTrainerSync
from viprl.errors import DataError, FileError, InputError
from viprl.metrics import PREFIX, REWARD, STEP_TIME
from viprl.prompts import identity
from viprl.report.diagnosis import diagnose
from viprl.runs.reader import load_run


@pytest.fixture
def queue(monkeypatch):
    return installed(monkeypatch)


def test_a_step_from_counts_to_advantages(queue):
    trainer, rng, seen = build(), np.random.default_rng(0), set()
    for _ in range(6):
        counts, metrics = step(trainer, queue, rng, padding=3)
        assert sum(counts) == Q * N and min(counts) >= 2
        assert metrics["vip/rollouts"] == Q * N and metrics["vip/padding_rows"] == 3
        seen |= set(counts)
        for uid, n in zip(trainer.vip_batch.uids, counts, strict=True):
            rows = [queue.rows[f"{uid}_{i}_0"] for i in range(n)]
            expected = group_advantages([float(row["rm_scores"].sum()) for row in rows], [n]) * N / n
            for row, value in zip(rows, expected, strict=True):
                torch.testing.assert_close(row["advantages"], torch.full_like(row["advantages"], value))
    assert len(seen) > 2
    assert len(trainer.vip._pending) == 0 and trainer._vip_step is None


def test_verls_loggers_have_the_names_of_the_metrics(queue, tmp_path, monkeypatch):
    """In TensorBoard as they are, and in the file that `viprl doctor`, `watch` and `report` read."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from verl.utils.tracking import Tracking

    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "events"))
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", str(tmp_path))
    options = ("candidates=2", "spend=match", "cost=tokens", "baseline=expected")
    trainer, rng = build(*(f"+trainer.v1.vip_sync.{option}" for option in options)), np.random.default_rng(0)
    loggers, names = Tracking("project", "run", ["tensorboard", "file"], config={}), set()
    for at in range(1, 4):
        _, metrics = step(trainer, queue, rng, padding=3)
        names |= metrics.keys()
        loggers.log(metrics | {"critic/score/mean": 0.5, "timing_s/step": 2.0, "training/epoch": 0}, step=at)
    loggers.logger["tensorboard"].finish()
    assert unknown(names) == set()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert {tag for tag in events.Tags()["scalars"] if tag.startswith(PREFIX)} == names
    run = load_run(tmp_path / "project" / "run.jsonl")
    assert [row["step"] for row in run.rows] == [1, 2, 3] and names <= run.rows[-1].keys()
    assert run.rows[0][STEP_TIME] == 2.0 and run.rows[0][REWARD] == 0.5
    assert "log" not in {one.name for one in diagnose(run, *run.strategies)}


def selecting(*overrides: str) -> tuple[VIPTrainerSync, list]:
    """A trainer with two candidates for each prompt, and what VIP was offered and selected."""
    trainer, selections = build("+trainer.v1.vip_sync.candidates=2", *overrides), []
    select = trainer.vip.select

    def recorded(candidates, *given, **more):
        selections.append((candidates, select(candidates, *given, **more)))
        return selections[-1][1]

    trainer.vip.select = recorded
    return trainer, selections


def check_rows(queue, trainer: VIPTrainerSync, selection, *, expected: bool, weight=lambda pi: 1 / (2 * pi)):
    """The advantages in verl's queue against the formula, prompt by prompt."""
    prior = selection.allocation.prior
    for q, (uid, n) in enumerate(zip(trainer.vip_batch.uids, selection.allocation.counts, strict=True)):
        rows = [queue.rows[f"{uid}_{i}_0"] for i in range(n)]
        r = np.array([float(row["rm_scores"].sum()) for row in rows])
        mu, kappa = (prior.mean[q], prior.rollouts[q]) if expected and prior is not None else (0.0, 0.0)
        advantages = r - (kappa * mu + r.sum() - r) / (kappa + n - 1)
        factor = weight(selection.inclusion[selection.positions[q]]) * N / n
        for row, value in zip(rows, factor * advantages, strict=True):
            np.testing.assert_allclose(row["advantages"], value, atol=1e-6)


@pytest.mark.parametrize("unbiased, baseline", [(True, "group"), (True, "expected"), (False, "expected")])
def test_a_step_of_selected_prompts(queue, unbiased, baseline):
    trainer, selections = selecting(
        f"+trainer.v1.vip_sync.unbiased={unbiased}", f"+trainer.v1.vip_sync.baseline={baseline}"
    )
    rng, weight = np.random.default_rng(0), (lambda pi: 1 / (2 * pi)) if unbiased else (lambda pi: 1.0)
    for number in range(8):
        counts, metrics = step(trainer, queue, rng, padding=3)
        candidates, selection = selections[-1]
        assert len(candidates) == 2 * Q
        assert trainer.vip_batch.prompts == [candidates[i] for i in selection.positions]
        assert len(counts) == Q and sum(counts) == Q * N and min(counts) >= 2, "those passed over are not in the batch"
        check_rows(queue, trainer, selection, expected=baseline == "expected", weight=weight)
        assert (trainer.vip_batch.prior is not None) == (baseline == "expected" and number > 0)
    assert len(selections) == 8 and np.ptp(selection.inclusion) > 0.2
    assert metrics["vip/selection/squared_weights"] == pytest.approx((selection.weights**2).mean())
    assert {"vip/selection/effective_prompts", "vip/selection/neglected"} <= metrics.keys()
    assert ("vip/shrinkage" in metrics) == (baseline == "expected")


def test_the_check_notices_missing_weights(queue, monkeypatch):
    trainer, selections = selecting()
    monkeypatch.setattr(PlannedStep, "of_groups", lambda plan, uids: (np.ones(len(uids)), None))
    rng = np.random.default_rng(0)
    for _ in range(8):
        step(trainer, queue, rng)
    with pytest.raises(AssertionError):
        check_rows(queue, trainer, selections[-1][1], expected=False)


def loading(tmp_path: Path, *overrides: str) -> VIPTrainerSync:
    """A trainer with verl's own data set and loader: 22 prompts, 4 a step."""
    files, model = tmp_path / "data.parquet", tmp_path / "model"
    if not files.exists():
        toy.save_data(files, 22)
        toy.save_model(model)
    sizes = ("data.train_batch_size=4", "data.seed=3", "data.dataloader_num_workers=0", "trainer.total_epochs=3")
    trainer = build(f"data.train_files={files}", f"data.val_files={files}", *sizes, *overrides)
    trainer.tokenizer, trainer.processor = AutoTokenizer.from_pretrained(model), None
    trainer._init_dataloader()
    return with_workers(trainer, tmp_path, trainer.train_dataloader)


def test_candidates_come_in_verls_order_and_an_epoch_has_fewer_steps(queue, tmp_path):
    """A pass over the data has five batches of four, so that candidates come from the end of one and the start of the
    next. A resumed run selects what the uninterrupted one would have selected."""
    stock = loading(tmp_path)
    given = [PPOTrainerSync._next_train_batch(stock).get("index").tolist() for _ in range(12)]
    trainer = loading(tmp_path, "+trainer.v1.vip_sync.candidates=2")
    assert (stock.steps_per_epoch, stock.total_training_steps) == (5, 15)
    assert (trainer.steps_per_epoch, trainer.total_training_steps) == (2, 6)
    assert trainer.config.actor_rollout_ref.actor.optim.total_training_steps == 6
    assert trainer.config.data.train_batch_size == 4 and len(trainer.train_dataloader) == 5
    rng, offered, chosen, select = np.random.default_rng(0), [], [], trainer.vip.select
    trainer.vip.select = lambda prompts, *sizes, **more: offered.append(prompts) or select(prompts, *sizes, **more)
    for trainer.global_steps in range(1, 7):
        counts, _ = step(trainer, queue, rng)
        chosen.append((trainer.vip_batch.prompts, counts))
        if trainer.global_steps in (3, 5):  # within a pass, and at the end of one
            trainer._save_checkpoint()
    rows = [[trainer._vip_prompt(trainer.train_dataset[i]) for i in first + second]
            for first, second in zip(given[::2], given[1::2], strict=True)]  # fmt: skip
    assert offered == rows

    for done in (3, 5):
        resumed = loading(tmp_path, "+trainer.v1.vip_sync.candidates=2", "trainer.resume_mode=resume_path")
        resumed.config.trainer.resume_from_path = str(tmp_path / f"global_step_{done}")
        resumed._load_checkpoint()
        assert resumed.global_steps == done
        batch = resumed._next_train_batch()
        assert (resumed._vip_step.prompts, batch.get("__rollout_n__").tolist()) == chosen[done]


def test_a_training_set_that_is_too_small_for_the_candidates(tmp_path):
    with pytest.raises(InputError, match=r"7 prompts.*takes 8.*candidates=2"):
        loading(tmp_path, "data.train_max_samples=7", "+trainer.v1.vip_sync.candidates=2")
    assert loading(tmp_path, "data.train_max_samples=7").steps_per_epoch == 1


def test_the_configuration_holds_the_values_that_are_used(queue):
    trainer = build()
    assert trainer.config.trainer.v1.trainer_mode == "vip_sync" and trainer.trainer_mode == "sync"
    namespace = trainer.config.trainer.v1.vip_sync
    assert (namespace.min_rollouts, namespace.max_rollouts, namespace.use_logprobs) == (2, 6 * N, True)
    json.dumps(dict(trainer.config.algorithm.vip))


def test_a_missing_rollout_is_an_error_that_names_it(queue):
    trainer = build()
    batch = trainer._next_train_batch()
    rows = rollout(queue, batch, np.random.default_rng(0))
    short = KVBatchMeta(partition_id="train", keys=rows.keys[1:], tags=rows.tags[1:])
    with pytest.raises(RuntimeError, match=r"1 of 8 prompts .* 31 of 32") as error:
        trainer._compute_advantage(short, {})
    assert "step 1" in error.value.__notes__[0]
    assert trainer.vip.metrics() == {}, "nothing was learned"


def planned(counts=(2, 3)):
    return PlannedStep(["a", "b"], np.array(counts), np.ones(2), ("u", "v"))


def test_rows_come_in_the_order_of_the_prompts():
    assert prompt_order(["v_1_0", "u_0_0", "v_0_0", "u_1_0", "v_2_0"], planned()) == [1, 3, 0, 2, 4]


@pytest.mark.parametrize(
    "keys, message",
    [
        (["u_0_0", "u_0_1", "v_0_0", "v_1_0", "v_2_0"], "several outputs"),
        (["u_0_0", "u_1_0", "v_0_0", "v_1_0", "w_2_0"], "prompt w"),
        (["u_0_0", "u_1_0", "u_2_0", "v_1_0", "v_2_0"], "u has 3, planned 2"),
    ],
)
def test_rows_that_were_not_planned(keys, message):
    with pytest.raises(RuntimeError, match=message):
        prompt_order(keys, planned())


def test_row_sums():
    ragged = [torch.tensor([0.5, 1.0]), torch.tensor([]), torch.tensor([float("nan"), 1.0]), torch.tensor([2.0])]
    nested = torch.nested.as_nested_tensor(ragged, layout=torch.jagged)
    np.testing.assert_array_equal(row_sums(nested), [1.5, 0, np.nan, 2])
    masks = torch.nested.as_nested_tensor(
        [torch.tensor([0.0, 1.0]), *ragged[1:2], *ragged[:1], ragged[3]], layout=torch.jagged
    )
    np.testing.assert_array_equal(row_sums(nested, masks), [1.0, 0, np.nan, 4])


@pytest.mark.parametrize("asked", [True, False])
def test_outcomes_log_probabilities_and_lengths_reach_vip(queue, asked):
    """Prompt by prompt, without padding. A tool's tokens count in the length and in nothing else."""
    trainer, seen = build(f"+trainer.v1.vip_sync.use_logprobs={asked}"), {}
    observe = trainer.vip.observe
    trainer.vip.observe = lambda prompts, rewards, **more: (
        seen.update(more, rewards=rewards) or observe(prompts, rewards, **more)
    )
    batch = trainer._next_train_batch()
    given, counts = rollout(queue, batch, np.random.default_rng(0), padding=2), batch.get("__rollout_n__").tolist()
    for row in list(queue.rows.values())[::3]:
        row["response_mask"][0] = 0
    trainer._compute_advantage(given, {})
    for q, (uid, n) in enumerate(zip(trainer.vip_batch.uids, counts, strict=True)):
        rows = [row for key, row in queue.rows.items() if key.startswith(uid)]
        assert sorted(seen["rewards"][q]) == sorted(float(row["rm_scores"].sum()) for row in rows) and len(rows) == n
        assert sorted(seen["lengths"][q]) == sorted(len(row["rm_scores"]) for row in rows)
        if asked:
            assert sorted(seen["logprobs"][q]) == sorted(-0.5 * int(row["response_mask"].sum()) for row in rows)
    assert (seen["logprobs"] is not None) == asked


def test_success_from_a_field_of_the_reward_function(queue):
    trainer, rng = build("+trainer.v1.vip_sync.success='length>=3'"), np.random.default_rng(0)
    _, metrics = step(trainer, queue, rng)
    assert metrics["vip/unscorable"] == 0
    rates = [
        np.mean([row["extra_fields"]["reward_extra_info"]["length"] >= 3
                 for key, row in queue.rows.items() if key.startswith(uid)])
        for uid in trainer.vip_batch.uids
    ]  # fmt: skip
    assert metrics["vip/success_rate"] == pytest.approx(np.mean(rates))
    assert metrics["vip/success_rate"] != metrics["vip/reward"], "rewards are those of the score"
    wrong = build("+trainer.v1.vip_sync.success=accuracy")
    batch = wrong._next_train_batch()
    with pytest.raises(InputError, match=r"trainer\.v1\.vip_sync\.success.*'accuracy'.*acc, length"):
        wrong._compute_advantage(rollout(queue, batch, rng), {})


def test_rewards_of_any_kind_need_no_option(queue):
    trainer, metrics = build(), {}
    batch = trainer._next_train_batch()
    rows = rollout(queue, batch, np.random.default_rng(0))
    for row in queue.rows.values():
        row["rm_scores"][-1] = 0.1 + 0.2 * row["rm_scores"][-1]
    trainer._compute_advantage(rows, metrics)
    assert metrics["vip/unscorable"] == 0 and 0.1 <= metrics["vip/reward"] <= 0.3
    assert "vip/success_rate" not in metrics and metrics["vip/reward_variance"] > 0


def test_an_infinite_score_is_unscorable_and_means_are_over_prompts(queue):
    trainer, rng, metrics = build("+trainer.v1.vip_sync.strategy=random"), np.random.default_rng(0), {}
    batch = trainer._next_train_batch()
    rows = rollout(queue, batch, rng)
    next(iter(queue.rows.values()))["rm_scores"][-1] = float("inf")
    trainer._compute_advantage(rows, metrics)
    assert all(torch.isfinite(row["advantages"]).all() for row in queue.rows.values())
    assert trainer.vip.unreadable_rewards == 1 and metrics["vip/unscorable"] == pytest.approx(1 / (Q * N))
    scores = [[float(row["rm_scores"].sum()) for key, row in queue.rows.items() if key.startswith(uid)]
              for uid in trainer.vip_batch.uids]  # fmt: skip
    means = [np.mean([score for score in group if np.isfinite(score)]) for group in scores]
    assert metrics["vip/reward"] == metrics["vip/success_rate"] == pytest.approx(np.mean(means))


def test_success_takes_other_comparisons(queue):
    trainer = build("+trainer.v1.vip_sync.success='length<3'")
    step(trainer, queue, np.random.default_rng(0))
    assert trainer._vip_success.column == "length" and trainer._vip_success.rule(2) is True


def test_identity_by_content_or_by_a_named_column(queue):
    row = {"raw_prompt": [{"role": "user", "content": "x"}], "extra_info": {"index": np.int64(7)}}
    assert identity(identified(row["raw_prompt"], row, None, "id_column")).startswith("sha:")
    assert identity(identified(row["raw_prompt"], row, "extra_info.index", "id_column")) == "id:7"
    with pytest.raises(InputError, match=r"id_column is 'extra_info\.id'.*index"):
        identified(row["raw_prompt"], row, "extra_info.id", "id_column")
    trainer = build("+trainer.v1.vip_sync.id_column=extra_info.index")
    trainer._next_train_batch()
    assert identity(trainer._vip_step.prompts[0]).startswith("id:")
    with pytest.raises(InputError, match="'idx'"):
        build("+trainer.v1.vip_sync.id_column=idx")._next_train_batch()


class Workers:
    """verl's worker group while a checkpoint is saved: records whether our state exists before the weights."""

    def __init__(self) -> None:
        self.there: list[bool] = []
        self.fail = False

    def save_checkpoint(self, path, *_, **__):
        self.there.append((Path(path).parent / STATE_FILE).exists())
        if self.fail:
            raise OSError("disk full")

    def load_checkpoint(self, **_):
        pass


def with_workers(trainer: VIPTrainerSync, folder: Path, loader: object = None) -> VIPTrainerSync:
    trainer.config.trainer.default_local_dir = str(folder)
    trainer.actor_rollout_wg = Workers()
    trainer.train_dataloader = loader or SimpleNamespace(state_dict=dict, load_state_dict=lambda _: None)
    return trainer


@pytest.mark.parametrize("options", [["strategy=random"], ["spend=match", "variance_target=1.5", "cost=tokens"]])
def test_the_state_is_written_before_the_marker_and_a_resumed_run_continues(queue, tmp_path, options):
    options = [f"+trainer.v1.vip_sync.{option}" for option in options]
    trainer = with_workers(build(*options), tmp_path)
    rng, later = np.random.default_rng(0), np.random.default_rng(1)
    for trainer.global_steps in range(1, 5):
        step(trainer, queue, rng)
    trainer._save_checkpoint()
    assert trainer.actor_rollout_wg.there == [True]
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "4"
    trainer.train_dataloader_it = batches(seed=5)
    expected = [step(trainer, queue, later)[0] for _ in range(3)]

    for folder, mode in ((tmp_path, "auto"), (tmp_path / "elsewhere", "resume_path")):
        resumed = with_workers(build(*options), folder)
        resumed.config.trainer.resume_mode = mode
        resumed.config.trainer.resume_from_path = str(tmp_path / "global_step_4") if mode == "resume_path" else None
        resumed._load_checkpoint()
        assert resumed.global_steps == 4
        resumed.train_dataloader_it, later = batches(seed=5), np.random.default_rng(1)
        assert [step(resumed, queue, later)[0] for _ in range(3)] == expected


def test_the_state_is_written_while_the_weights_are_trained(queue, tmp_path):
    """After the steps whose checkpoint verl will save; the file is complete before the weights are saved."""
    trainer, started = with_workers(build("trainer.save_freq=2"), tmp_path), []
    trainer.total_training_steps, start = 5, trainer._vip_writer.start
    trainer._vip_writer.start = lambda path: (started.append(trainer.global_steps), start(path))
    for trainer.global_steps in range(1, 6):
        step(trainer, queue, np.random.default_rng(0))
        saved = trainer.global_steps in (2, 4, 5)
        assert (trainer._vip_writer.path is not None) == saved, "before verl begins to save"
        if saved:
            trainer._save_checkpoint()
            assert trainer._vip_writer.path is None
    assert started == [2, 4, 5]
    assert trainer.actor_rollout_wg.there == [True] * 3
    trainer.global_steps = 7
    trainer._save_checkpoint()  # one that was not expected
    assert started[-1] == 7 and trainer.actor_rollout_wg.there[-1]


def test_a_state_that_cannot_be_written_leaves_the_marker(queue, tmp_path):
    trainer = with_workers(build(), tmp_path)
    (tmp_path / "global_step_1").touch()
    trainer.global_steps = 1
    with pytest.raises(FileError, match="global_step_1"):
        trainer._save_checkpoint()
    assert trainer.actor_rollout_wg.there == []
    assert not (tmp_path / "latest_checkpointed_iteration.txt").exists()


def test_a_save_that_fails_leaves_the_marker(queue, tmp_path):
    trainer = with_workers(build(), tmp_path)
    trainer._save_checkpoint()
    trainer.global_steps, trainer.actor_rollout_wg.fail = 2, True
    with pytest.raises(OSError, match="disk full"):
        trainer._save_checkpoint()
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "1"


def test_a_stock_checkpoint_can_be_resumed(queue, tmp_path, caplog):
    (tmp_path / "global_step_3").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    trainer = with_workers(build(), tmp_path)
    trainer._load_checkpoint()
    assert trainer.global_steps == 3 and "global_step_3" in caplog.text


def dump(folder: Path, visits: int = 3) -> Path:
    """A rollout dump of verl: of 24 prompts, which are 12 texts with 2 ground truths, the even ones always succeed."""
    for number in range(1, visits + 1):
        lines = [
            {
                "input": f"<user> prompt {i // 2} <go>",
                "gts": str(i % 2),
                "score": float(i % 2 == 0),
                "uid": f"u{i}_{s}_0",
            }
            for i in range(24)
            for s in range(4)
        ]
        write_lines(folder / f"{number}.jsonl", lines)
    return folder


def fresh(path: Path, tmp_path: Path, prefix: str = "<user>") -> VIPTrainerSync:
    options = [f"+trainer.v1.vip_sync.warm_start={path}", "+trainer.v1.vip_sync.id_column=extra_info.index"]
    trainer = with_workers(build(*options), tmp_path / "none")
    truths = ({"reward_model": {"ground_truth": str(i % 2)}} for i in range(40))
    trainer.train_dataset = [prompt_row(i, i // 2) | truth for i, truth in enumerate(truths)]
    trainer.tokenizer = SimpleNamespace(
        apply_chat_template=lambda messages, **_: messages[0]["content"], decode=lambda ids, **_: f"{prefix} {ids} <go>"
    )
    return trainer


def test_a_warm_start_from_a_dump(queue, tmp_path, caplog):
    trainer = fresh(dump(tmp_path / "dump"), tmp_path)
    trainer._load_checkpoint()
    p = trainer.vip.predict([trainer._vip_prompt(row) for row in trainer.train_dataset])
    assert p[0:24:2].min() > 0.8 and p[1:24:2].max() < 0.2
    assert "24 of 24 prompts" in caplog.text
    with pytest.raises(DataError, match="24 prompts"):  # another chat template
        fresh(tmp_path / "dump", tmp_path, prefix="<system> <user>")._load_checkpoint()
