"""verl's own agent loop worker in this process: its keys, tags and status of prompts, without Ray and a model."""

from __future__ import annotations

import asyncio

import numpy as np
from trainer_steps import Queue, columns
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

POOL = 400


def chance(number: int) -> float:
    """Success probability of a prompt: three of four are hopeless."""
    return 0.2 + 0.6 * number / POOL if number % 4 == 0 else 0.0


class Worker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """Rollouts of one to four tokens; a prompt's number decides about success."""

    def __init__(self, config, seed: int, score) -> None:
        self.config, self.score, self.rng = config, score, np.random.default_rng(seed)
        self.background_tasks: set = set()
        self.processor, self.reward_loop_worker_handles, self.distillation_enabled = None, None, False
        self.failures = 0
        """Of the next rollouts."""

    async def _run_agent_loop(self, sampling_params, trajectory, *, trace, session_id, **prompt):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no answer")
        length = int(self.rng.integers(1, 5))
        output = AgentLoopOutput(
            prompt_ids=[1] * 5,
            response_ids=[2] * length,
            response_mask=[1] * length,
            reward_score=self.score(float(self.rng.random() < chance(int(prompt["index"])))),
            metrics=AgentLoopMetrics(),
            extra_fields={"min_global_steps": 0, "max_global_steps": 0, "reward_extra_info": {"length": length}},
        )
        await self._agent_loop_postprocess(output, trajectory["validate"], session_id=session_id, **prompt)


class AgentLoops:
    """verl's manager of agent loops; a call returns when all rollouts have ended."""

    def __init__(self, queue: Queue, config, seed: int = 0, score=lambda won: won) -> None:
        self.queue, self.worker = queue, Worker(config, seed, score)
        self.calls: list[dict[str, int]] = []
        """Rollouts by uid, of each call."""
        self.numbers: dict[str, int] = {}
        self.fail: dict[int, int] = {}
        """Call -> how many of its rollouts fail."""

    def generate_sequences(self, batch) -> None:
        self.worker.failures = self.fail.get(len(self.calls), 0)
        self.numbers |= {uid: number for uid, number, _ in columns(batch)}
        self.calls.append({uid: n for uid, _, n in columns(batch)})

        async def run() -> None:
            await self.worker.generate_sequences(batch.clone())
            await asyncio.gather(*self.worker.background_tasks)

        asyncio.run(run())
