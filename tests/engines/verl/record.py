"""Writes the plan of a step and the batch of the actor, through verl's checkpoint callback (driver process)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import transfer_queue as tq
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from viprl.prompts import text


class Record(CheckpointCallback):
    """One file record/STEP.json for each saved step: planned counts, weights, expected rewards and first looks by
    prompt, and the advantages of the rows of the batch."""

    def on_save(self, trainer, global_step, checkpoint_dir, async_save=False, **_):
        rows = {key: tag for key, tag in tq.kv_list("train")["train"].items() if not tag.get("is_prompt", False)}
        data = tq.kv_batch_get(keys=list(rows), partition_id="train", select_fields=["advantages", "response_mask"])
        planned = trainer.vip_batch
        record = {
            "uids": dict(zip(planned.uids, map(text, planned.prompts), strict=True)),
            "planned": dict(zip(planned.uids, planned.counts.tolist(), strict=True)),
            "weights": dict(zip(planned.uids, planned.weights.tolist(), strict=True)),
            "expected": None
            if planned.prior is None
            else dict(zip(planned.uids, np.c_[planned.prior.mean, planned.prior.rollouts].tolist(), strict=True)),
            "looks": looks(planned),
            "padding": [key for key, tag in rows.items() if tag.get("is_padding", False)],
            "advantages": {
                key: [advantages.tolist(), mask.tolist()]
                for key, advantages, mask in zip(
                    rows, data["advantages"].unbind(), data["response_mask"].unbind(), strict=True
                )
            },
            "outstanding": len(trainer.vip._pending),
            "read_beside": trainer._vip_reader._process is not None,
            "mode": [trainer.trainer_mode, trainer.config.trainer.v1.trainer_mode],
        }
        folder = Path(checkpoint_dir).parent.parent / "record"
        folder.mkdir(exist_ok=True)
        (folder / f"{global_step}.json").write_text(json.dumps(record))


def looks(planned) -> dict[str, list]:
    """Size, label, share and mean of the first wave of each prompt; empty for a step with one wave."""
    if planned.waves is None:
        return {}
    waves = planned.waves.waves
    found = zip(waves.labels, waves.plan.shares(planned.counts).tolist(), waves.mean.tolist(), strict=True)
    return {
        uid: [look.size, sorted(look.marked), share, mean]
        for uid, (look, share, mean) in zip(planned.uids, found, strict=True)
    }
