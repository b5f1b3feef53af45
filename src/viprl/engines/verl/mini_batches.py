"""Where the masked rows of a step go, if fewer rollouts than the budget C were sampled.

verl pads N rollouts to the next multiple of a mini-batch of B rows and appends the masked rows, so that a step would
have ceil(N/B) optimizer steps in place of K = ceil(C/B), and the last one fewer rollouts than the others. The sum of
the mini-batches' gradients would be the same, but AdamW's steps do not grow with the gradient: with 3 mini-batches in
place of 4 a step moves the weights by a factor of 3/4 to sqrt(3/4) less.

So a step is padded to as many rows as C rollouts have, and its masked rows are spread: each mini-batch holds N/K
rollouts, up to one. B stays the divisor of verl's loss, and with rollouts weighted by rollout.n/n_q every mini-batch
has the scale that it has with C rollouts. Masked rows come last in their mini-batch, where they fill whole
micro-batches. They have 128 tokens each and are not sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rows_of_step(rollouts: int, multiple: int) -> int:
    """Rows that verl makes of so many rollouts: the next multiple."""
    return -(-rollouts // multiple) * multiple


def spread(masked: Sequence[bool], ranks: int, mini_batches: int) -> list[int]:
    """The order of a step's rows in which all mini-batches hold equally many rollouts, up to one.

    Args:
        masked: [rows] whether a row is masked; each rank has an equal, contiguous part, and so has each mini-batch of
            it. The number of rows is a multiple of ranks * mini_batches.

    Returns: [rows] positions. Rows stay with their rank, and rollouts keep their order.
    """
    order: list[int] = []
    first = 0  # the mini-batch that has the next rollout beyond an equal share
    for rows in np.split(np.arange(len(masked)), ranks):
        empty = np.asarray(masked)[rows]
        share, extra = divmod(int((~empty).sum()), mini_batches)
        rollouts = share + ((np.arange(mini_batches) - first) % mini_batches < extra)
        mini_batch = np.empty(len(rows), dtype=int)
        mini_batch[~empty] = np.repeat(np.arange(mini_batches), rollouts)
        mini_batch[empty] = np.repeat(np.arange(mini_batches), len(rows) // mini_batches - rollouts)
        order += rows[np.lexsort((empty, mini_batch))].tolist()
        first += extra
    return order
