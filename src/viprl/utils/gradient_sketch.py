"""Random projections of gradients, so that inner products of many of them need little memory.

A gradient is cut into rows of r entries. Each entry gets a random sign, and the rows are added up:

    s(x)_b = sum_i sigma_i x_i  over the entries i = b modulo r

(the count sketch of Charikar, Chen and Farach-Colton, 2002, with buckets at a fixed stride). Two entries in the same
bucket never share a sign, and signs are independent with mean 0, so that

    E s(x).s(y) = x.y,        Var s(x).s(y) <= about (|x|^2 |y|^2 + (x.y)^2) / r.

The cost is one multiplication and one addition for each entry. The memory does not grow with the gradient: all blocks
of `ROWS` rows use the same table of signs, each shifted by one more column.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from viprl.errors import InputError

if TYPE_CHECKING:
    import torch

ROWS = 1024
BUCKETS = 4093
"""r. A prime, so that the stride fits no row of a weight matrix: those have a common structure."""


class Projection(Protocol):
    """A linear map from the parts of a gradient to one vector that keeps inner products, at least on average."""

    def __call__(self, parts: Iterable[torch.Tensor]) -> torch.Tensor: ...


class GradientSketch:
    """A random linear map from gradients to r numbers that keeps inner products without bias.

    Two sketches with the same seed are the same map.

    Args:
        buckets: r. The standard error of an inner product is about sqrt(1/r) of the product of the norms.
        seed: of the signs.
    """

    def __init__(self, buckets: int = BUCKETS, seed: int = 0) -> None:
        import torch

        if buckets < 2:
            raise InputError(f"buckets is {buckets}; expected at least 2")
        self.buckets = buckets
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (ROWS, buckets), generator=generator, dtype=torch.int8) * 2 - 1
        self._signs = signs.repeat(1, 2)  # shifted by any number of columns, without a copy

    def __call__(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """[r] the sketch, float32.

        Args:
            parts: the gradient of each parameter, always in the same order and of the same shapes.

        Raises InputError for gradients with more than r blocks of ROWS x r entries, whose signs would repeat.
        """
        import torch

        total, shift = None, 0
        for part in parts:
            for block in part.detach().reshape(-1).split(ROWS * self.buckets):
                if shift == self.buckets:
                    raise InputError(f"the gradient is too long for {self.buckets} buckets; increase them")
                rows = -(-len(block) // self.buckets)
                padded = torch.nn.functional.pad(block.float(), (0, rows * self.buckets - len(block)))
                signs = self._signs_on(block.device)[:rows, shift : shift + self.buckets]
                added = (padded.view(rows, self.buckets) * signs).sum(0)
                total, shift = added if total is None else total.add_(added.to(total.device)), shift + 1
        return torch.zeros(self.buckets) if total is None else total

    def _signs_on(self, device: torch.device) -> torch.Tensor:
        if self._signs.device != device:
            self._signs = self._signs.to(device)
        return self._signs


def whole_gradient(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """[d] all entries: the projection that loses nothing, for small models."""
    import torch

    return torch.cat([part.detach().reshape(-1).float() for part in parts])
