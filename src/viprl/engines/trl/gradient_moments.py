"""A cheap estimate of where the second moment of the batch gradient comes from, in a training with TRL.

After each backward pass the gradient accumulated so far is reduced to a sketch of a few thousand numbers
(`viprl.utils.gradient_sketch`), so that differences of sketches are those of the K micro-batches of a step, before
clipping. With the batch gradient G and the micro-batches h_k, sum_k h_k = G (`viprl.analysis.second_moment` has the
symbols S, V_b, V_w):

    |G|^2                                                   E|G|^2 = S + V_b + V_w
    N (N-1)/(N^2 - sum_k b_k^2) (|G|^2 - sum_k |h_k|^2)     S + V_b
    G . G of the step before                                S

b_k are the rollouts of the micro-batches, N their sum; with equal b_k the factor is (K/(K-1)) ((N-1)/N). The second
line holds because TRL shuffles the rollouts of a batch before it splits them: two rollouts in different micro-batches
are a random pair. Pairs of one group share its prompt and hence V_b, but not their noise. Their expected
product is (n^2 - 2n + 2)/(n^2 - n) |g_q|^2 with the leave-one-out baseline, so the line is low by at most a sixth of
mean |g_q|^2 / Q. The third line takes the policy of two consecutive steps as the same; it needs no micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from viprl.metrics import (
    GRADIENT_SECOND_MOMENT,
    GRADIENT_SIGNAL,
    GRADIENT_WITHOUT_ROLLOUTS,
    ROLLOUT_NOISE,
    logged,
)
from viprl.utils.gradient_sketch import GradientSketch

FORGETTING = 0.95
"""Of the running means, whose ratio is logged: a ratio of single steps would be too noisy."""

_Host: Any = object  # for a type checker: a trainer, whose attributes are not declared


@dataclass
class GradientMoments:
    """Sketches of the gradients of a training.

    Args:
        split: whether micro-batches are random parts of the rollouts of a step, whose gradients can be told apart.
        fresh: whether every step has rollouts of its own, so that consecutive gradients are independent.
    """

    split: bool
    fresh: bool
    _sketch: GradientSketch = field(default_factory=GradientSketch)
    _accumulated: torch.Tensor | None = None
    _parts: list[tuple[float, int]] = field(default_factory=list)
    _before: torch.Tensor | None = None
    _means: tuple[float, float] = (0.0, 0.0)

    def add(self, parameters: list[torch.Tensor], rollouts: int, *, last: bool) -> dict[str, float]:
        """Look at the gradients after a backward pass.

        Args:
            parameters: all trainable parameters; one without a gradient has gradient 0.
            rollouts: b_k, of the micro-batch.
            last: whether it was the last of the step.

        Returns: the metrics of the step after the last one, otherwise nothing.
        """
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        sketch = self._sketch(gradients).double()
        part = sketch if self._accumulated is None else sketch - self._accumulated
        self._parts.append((float(part @ part), rollouts))
        self._accumulated = sketch
        return self._finish(sketch) if last else {}

    def _finish(self, sketch: torch.Tensor) -> dict[str, float]:
        total, parts, before = float(sketch @ sketch), self._parts, self._before
        self._accumulated, self._parts, self._before = None, [], sketch
        found = {GRADIENT_SECOND_MOMENT: total}
        if self.fresh and before is not None:
            found[GRADIENT_SIGNAL] = float(sketch @ before)
        squares, sizes = zip(*parts, strict=True)
        N = sum(sizes)
        pairs = N**2 - sum(size**2 for size in sizes)  # of rollouts in different micro-batches
        if self.split and pairs:
            shared = N * (N - 1) / pairs * (total - sum(squares))
            found[GRADIENT_WITHOUT_ROLLOUTS] = shared
            self._means = FORGETTING * self._means[0] + shared, FORGETTING * self._means[1] + total
            if self._means[1] > 0:
                found[ROLLOUT_NOISE] = 1 - self._means[0] / self._means[1]
        return found


class MeasuredSteps(_Host):
    """Mixin to place before a TRL trainer: logs `GradientMoments` with `vip_gradient_moments`."""

    _vip_moments: GradientMoments | None = None

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(model, *args, **kwargs)
        if self.args.vip_gradient_moments and self._vip_readable():
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            values = self._vip_moments_of_run().add(parameters, self._vip_rows, last=self.accelerator.sync_gradients)
            for name, value in logged(values).items():
                self._metrics["train"][name].append(value)
        return loss

    def _vip_readable(self) -> bool:
        """Whether each process holds all gradients, in their own scale."""
        return not (self.is_deepspeed_enabled or self.is_fsdp_enabled or self.accelerator.scaler is not None)

    def _vip_moments_of_run(self) -> GradientMoments:
        if self._vip_moments is None:
            args = self.args
            fresh = args.steps_per_generation == args.gradient_accumulation_steps and args.num_iterations == 1
            # several processes average their gradients after the last backward pass, and only then
            split = fresh and self.accelerator.num_processes == 1
            self._vip_moments = GradientMoments(split, fresh)
        return self._vip_moments
