"""Steps of the trainer without Ray: verl's real methods with a dictionary as queue."""

from __future__ import annotations

import numpy as np
import torch
from tensordict import TensorDict
from test_verl_config import config
from transfer_queue import KVBatchMeta
from verl.trainer.ppo import padding_utils
from verl.trainer.ppo.v1 import agent_loop_tq, replay_buffer, trainer_base
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn

from viprl.engines.verl import queue_reader, sync_trainer
from viprl.engines.verl.sync_trainer import VIPTrainerSync

Q, N = 8, 4
OVERRIDES = (f"data.train_batch_size={Q}", f"actor_rollout_ref.rollout.n={N}", "+trainer.v1.vip_sync.features=none")


class Queue:
    """The part of TransferQueue that the trainer uses."""

    def __init__(self) -> None:
        self.rows: dict[str, dict] = {}
        self.tags: dict[str, dict] = {}

    def kv_batch_get(self, keys, partition_id, select_fields=None):
        out = {}
        for field in select_fields or self.rows[keys[0]]:
            if all(field in self.rows[key] for key in keys):
                values = [self.rows[key][field] for key in keys]
                tensors = isinstance(values[0], torch.Tensor)
                out[field] = torch.nested.as_nested_tensor(values, layout=torch.jagged) if tensors else values
        plain = {field: values for field, values in out.items() if isinstance(values, list)}
        found = TensorDict({f: v for f, v in out.items() if f not in plain}, batch_size=len(keys))
        for field, values in plain.items():
            tu.assign_non_tensor_stack(found, field, values)
        return found

    async def async_kv_put(self, key, partition_id, tag):
        self.kv_batch_put([key], partition_id, tags=[tag])

    async def async_kv_batch_put(self, keys, fields, tags, partition_id):
        assert not set(keys) & set(self.rows), "rows are replaced"
        self.kv_batch_put(keys, partition_id, fields, tags)

    def kv_list(self):
        return {"train": {key: dict(tag) for key, tag in self.tags.items()}}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.rows.pop(key, None)
            self.tags.pop(key, None)

    def kv_batch_put(self, keys, partition_id, fields=None, tags=None):
        for key, tag in zip(keys, tags or [], strict=False):
            self.tags.setdefault(key, {}).update(tag)
        for field in () if fields is None else fields.keys():
            column = fields.get(field)
            values = column.unbind() if isinstance(column, torch.Tensor) else column.tolist()
            for key, value in zip(keys, values, strict=True):
                self.rows.setdefault(key, {})[field] = value
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[self.tags.get(key, {}) for key in keys])


def installed(monkeypatch) -> Queue:
    """A queue in place of verl's."""
    queue = Queue()
    for user in (sync_trainer, queue_reader, trainer_base, padding_utils, replay_buffer, agent_loop_tq):
        monkeypatch.setattr(user, "tq", queue)
    return queue


def build(*overrides: str) -> VIPTrainerSync:
    trainer = VIPTrainerSync(config(*OVERRIDES, *overrides))
    trainer.global_steps = 1
    trainer.train_dataloader_it = batches()
    return trainer


def batches(seed: int = 0, size: int = Q, pool: int = 24):
    """What verl's data loader gives: `size` of `pool` prompts a step."""
    rng = np.random.default_rng(seed)
    while True:
        chosen = rng.choice(pool, size, False).tolist()
        yield collate_fn([{**prompt_row(i), "index": i, "dummy_tensor": torch.zeros(1)} for i in chosen])


def prompt_row(i: int, name: object = None) -> dict:
    content = f"prompt {i if name is None else name}"
    return {"raw_prompt": [{"role": "user", "content": content}], "extra_info": {"index": i}}


def columns(batch):
    """uid, number and rollouts of each prompt that the agent loops get."""
    return zip(*(batch.get(name).tolist() for name in ("uid", "index", "__rollout_n__")), strict=True)


def row_of(uid: str, score: float, rng) -> dict:
    length = int(rng.integers(1, 5))
    scores = torch.zeros(length)
    scores[-1] = score
    return {
        "uid": uid,
        "rm_scores": scores,
        "response_mask": torch.ones(length, dtype=torch.int64),
        "old_log_probs": torch.full((length,), -0.5),
        "extra_fields": {"reward_extra_info": {"acc": score, "length": length}},
    }


def rollout(queue: Queue, batch, rng, padding: int = 0) -> KVBatchMeta:
    """The rows that verl's agent loops would put, in any order; success is decided by the prompt's number."""
    queue.rows.clear()
    for uid, index, n in columns(batch):
        for session in range(n):
            queue.rows[f"{uid}_{session}_0"] = row_of(uid, float(rng.random() < index / 24), rng)
    keys = [list(queue.rows)[i] for i in rng.permutation(len(queue.rows))]
    for i in range(padding):
        zeros = {"rm_scores": torch.zeros(1), "old_log_probs": torch.zeros(1), "response_mask": torch.zeros(1).long()}
        queue.rows[f"padx_{i}_0"] = zeros | {"uid": "padx", "extra_fields": {}}
        keys.append(f"padx_{i}_0")
    tags = [{"is_padding": key.startswith("pad"), "seq_len": 9 + len(queue.rows[key]["rm_scores"])} for key in keys]
    return KVBatchMeta(partition_id="train", keys=keys, tags=tags)


def step(trainer, queue, rng, **more):
    batch = trainer._next_train_batch()
    metrics: dict[str, float] = {}
    trainer._compute_advantage(rollout(queue, batch, rng, **more), metrics)
    return batch.get("__rollout_n__").tolist(), metrics
