"""What VIP needs of a step's rollouts, read from verl's queue in a process beside the driver.

VIP needs three numbers of each rollout: its reward, its log probability and its length. In the queue they are sums over
tokens, and moving the tokens to the driver takes longer than all the rest of VIP. So a Ray actor on the driver's node
reads the tokens and returns the sums, after verl has read them and while its actors are updated.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import ray
import transfer_queue as tq
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from viprl.engines.verl.rollouts import Outcomes, row_lengths, row_sums

logger = logging.getLogger(__name__)

ROWS = 512
"""Rows of one request to the queue. Its units answer one request at a time, and verl's should not wait long."""
SECONDS = 120.0
"""Time after which the process counts as lost. Reading takes less than a second."""


class Asked(NamedTuple):
    """Rollouts, and what to read of them."""

    keys: Sequence[str]
    """[C] keys of their rows."""
    partition: str
    column: str | None
    """The field of the reward function that decides about success; None: the reward does."""
    logprobs: bool
    """Whether to read log probabilities."""


def read(asked: Asked) -> Outcomes:
    """Read rollouts from the queue in this process."""
    starts = range(0, len(asked.keys), ROWS)
    return Outcomes.joined([_read(asked._replace(keys=asked.keys[start : start + ROWS])) for start in starts])


def _read(asked: Asked) -> Outcomes:
    fields = ["rm_scores", *(("extra_fields",) if asked.column is not None else ())]
    fields += ("old_log_probs", "response_mask") if asked.logprobs else ()
    data = tq.kv_batch_get(keys=list(asked.keys), partition_id=asked.partition, select_fields=fields)
    logprobs = row_sums(data["old_log_probs"], data["response_mask"]) if asked.logprobs else None
    rewards, lengths = row_sums(data["rm_scores"]), row_lengths(data["rm_scores"])
    if asked.column is None:
        return Outcomes(rewards, rewards.tolist(), logprobs, lengths)
    infos = [(getattr(extra, "data", extra) or {}).get("reward_extra_info") or {} for extra in data["extra_fields"]]
    deciding = [info.get(asked.column) for info in infos]
    return Outcomes(rewards, deciding, logprobs, lengths, tuple(dict.fromkeys(name for info in infos for name in info)))


class QueueReader:
    """Reads rollouts beside the driver after `start`, and in the driver's process before it."""

    def __init__(self) -> None:
        self._process: Any = None

    def start(self) -> None:
        """Start the process, for which Ray and the queue must run."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._process = ray.remote(ReaderProcess).options(num_cpus=0, scheduling_strategy=here).remote()

    def stop(self) -> None:
        """Let the process end, if there is one."""
        self._process = None  # Ray ends an actor that nobody refers to

    @property
    def beside(self) -> bool:
        """Whether there is a process that reads."""
        return self._process is not None

    def request(self, asked: Asked) -> Callable[[], Outcomes]:
        """Begin to read rollouts. The function that is returned waits for them when it is first called. Without a
        process they are there already."""
        if self._process is None:
            found = read(asked)
            return lambda: found
        return functools.cache(partial(self._wait, asked, self._process.read.remote(asked)))

    def _wait(self, asked: Asked, future: Any) -> Outcomes:
        try:
            return ray.get(future, timeout=SECONDS)
        except RayError as error:
            logger.warning(
                "the process that reads rollouts from verl's queue failed (%s); from now on the driver reads them "
                "itself, which takes longer",
                type(error).__name__,
            )
            self.stop()
            return read(asked)


class ReaderProcess:
    """What Ray runs on the driver's node."""

    def __init__(self) -> None:
        tq.init()

    def read(self, asked: Asked) -> Outcomes:
        return read(asked)
