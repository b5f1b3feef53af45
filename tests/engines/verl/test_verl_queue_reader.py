"""Outcomes are read beside the driver: with a real queue and a real process, and with a stand-in that fails."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from ray.exceptions import GetTimeoutError, RayActorError
from test_verl_config import config
from test_verl_waves import looking
from test_verl_waves import step as whole_step
from trainer_steps import build, installed, rollout, row_of
from trainer_steps import step as first_half
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from viprl.engines.verl import queue_reader
from viprl.engines.verl.consistency import masks_change
from viprl.engines.verl.queue_reader import Asked, QueueReader, read


def same(one, other) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("rewards", "deciding", "logprobs", "lengths")]
    return one.fields == other.fields and all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture
def real():
    """TransferQueue on a Ray of its own, with rows of a length that no request holds."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, namespace=str(uuid.uuid4()))
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
    rng = np.random.default_rng(0)
    rows = [row_of(f"u{i}", float(i % 3), rng) for i in range(queue_reader.ROWS + 8)]
    for row in rows:
        row["old_log_probs"] = -torch.rand(len(row["rm_scores"]))
        row["response_mask"] = torch.randint(0, 2, (len(row["rm_scores"]),))
    keys = [f"{row['uid']}_0_0" for row in rows]
    tags = [{"status": "success"} for _ in rows]
    tq.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(rows), tags=tags)
    yield [keys[i] for i in rng.permutation(len(keys))], dict(zip(keys, rows, strict=True))
    tq.close()
    ray.shutdown()


def test_a_real_process_reads_what_the_driver_would_read_and_may_be_lost(real, caplog):
    keys, rows = real
    reader, asked = QueueReader(), Asked(keys, "train", "length", logprobs=True)
    reader.start()
    found = reader.request(asked)()
    given = [rows[key] for key in keys]
    assert found.rewards.tolist() == [float(row["rm_scores"].sum()) for row in given]
    assert found.lengths.tolist() == found.deciding == [len(row["rm_scores"]) for row in given]
    expected = [float((row["old_log_probs"] * row["response_mask"]).sum()) for row in given]
    np.testing.assert_allclose(found.logprobs, expected, rtol=1e-6)
    assert found.fields == ("acc", "length") and same(found, read(asked))
    assert reader._process is not None and "failed" not in caplog.text
    ray.kill(reader._process)
    assert same(reader.request(asked)(), found)
    assert "failed" in caplog.text and reader._process is None


class Beside:
    """In place of Ray and the process: reads when the driver waits, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.reads, self.read = error, 0, self

    def remote(self, asked):
        return asked

    def get(self, asked, timeout):
        self.reads += 1
        if self.error is not None:
            raise self.error
        return read(asked)


def step(trainer, queue, rng, **more):
    """With what verl's `step` does at its end."""
    counts, metrics = first_half(trainer, queue, rng, **more)
    assert trainer.vip_batch is not None or trainer._vip_learning is not None
    return counts, metrics | trainer._vip_learned()


@pytest.fixture
def queue(monkeypatch):
    return installed(monkeypatch)


def beside(monkeypatch, *overrides: str, error: Exception | None = None):
    """A trainer that reads beside the driver."""
    trainer, process = build(*overrides), Beside(error)
    trainer._vip_reader._process = process
    monkeypatch.setattr(queue_reader, "ray", process)
    return trainer, process


@pytest.mark.parametrize(
    "options", [(), ("success='length>=3'", "use_logprobs=False"), ("spend=match", "candidates=2")]
)
def test_a_run_is_the_same_whoever_reads(queue, monkeypatch, options):
    options, runs = [f"+trainer.v1.vip_sync.{option}" for option in options], []
    for rows in (queue_reader.ROWS, 5):
        monkeypatch.setattr(queue_reader, "ROWS", rows)
        trainer, process = beside(monkeypatch, *options) if rows == 5 else (build(*options), None)
        rng = np.random.default_rng(0)
        steps = [step(trainer, queue, rng, padding=2) for _ in range(5)]
        for _, metrics in steps:
            metrics.pop("vip/overhead_seconds")
        runs.append((steps, [row.get("advantages") for row in queue.rows.values()]))
    assert process.reads == 5
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(one, other) for one, other in zip(runs[0][1], runs[1][1], strict=True))


def test_a_step_of_verl_ends_when_vip_has_learned(queue, monkeypatch):
    """VIP learns while the actors are updated."""
    trainer, process, waiting = looking(queue, waves=1), Beside(), []
    trainer._vip_reader._process = process
    monkeypatch.setattr(queue_reader, "ray", process)
    trainer._update_actor = lambda batch, metrics: waiting.append(trainer._vip_learning) or batch
    for trainer.global_steps in (1, 2):
        rows, metrics, _ = whole_step(trainer, queue)
        assert metrics["vip/rollouts"] == len(rows) == trainer.vip_batch.counts.sum()
        assert trainer._vip_learning is None and len(trainer.vip._pending) == 0
    assert None not in waiting and process.reads == 2


@pytest.mark.parametrize("error", [RayActorError(), GetTimeoutError("nothing after 120 s")])
def test_the_driver_reads_itself_when_the_process_is_lost(queue, monkeypatch, caplog, error):
    trainer, process = beside(monkeypatch, error=error)
    rng = np.random.default_rng(0)
    for _ in range(2):
        step(trainer, queue, rng)
    assert process.reads == 1 and trainer._vip_reader._process is None
    assert type(error).__name__ in caplog.text
    assert trainer.vip.metrics()["counts/max"] >= 2, "the step was learned from"


def test_masks_are_read_before_verl_changes_them(queue, monkeypatch):
    assert not masks_change(config())
    for overrides in ((), ("algorithm.rollout_correction.rollout_rs=token_k1",)):
        trainer, _ = beside(monkeypatch, *overrides)
        assert masks_change(trainer.config) == bool(overrides)
        seen = {}
        observe = trainer.vip.observe
        trainer.vip.observe = lambda *given, seen=seen, observe=observe, **more: (
            seen.update(more) or observe(*given, **more)
        )
        given = rollout(queue, trainer._next_train_batch(), np.random.default_rng(0))
        put = queue.kv_batch_put

        def rejecting(keys, partition_id, fields=None, tags=None, put=put):
            for key in keys:
                queue.rows[key]["response_mask"] = torch.zeros_like(queue.rows[key]["response_mask"])
            return put(keys, partition_id, fields, tags)

        monkeypatch.setattr(queue, "kv_batch_put", rejecting)
        trainer._compute_advantage(given, {})
        trainer._vip_learned()
        monkeypatch.setattr(queue, "kv_batch_put", put)
        known = any(value for group in seen["logprobs"] for value in group)
        assert known == bool(overrides), "the stand-in reads late unless the trainer waits"
