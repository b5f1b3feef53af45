"""How large rho is: the squared difference of the mean scores of successes and failures, over the variance of a score.

usage: python benchmarks/signal_strength.py FOLDER [--seeds 4] [--steps 0,30,60,120]
       python benchmarks/signal_strength.py FOLDER --smollm2 [--prompts 7] [--rollouts 24] [--lengths 8,32]

    symbol  meaning
    p       success probability of a prompt
    Z       score of a completion, the gradient of its log probability over all parameters
    d       E[Z | success] - E[Z | failure]; the gradient of the prompt is g = p(1-p) d
    s1, s0  variance (trace) of the scores of successes and of failures
    rho     |d|^2 / ((1-p) s1 + p s0), the variance as the gradient has it: n V = (p(1-p))^2 (s1/p + s0/(1-p))
    pooled  sum |d|^2 (p(1-p))^2 / sum ((1-p) s1 + p s0) (p(1-p))^2, what the rule needs for a batch

FOLDER caches the policy. Without options: the policy and pool of the learning benchmark, after some steps of uniform
training; p and the score of the only right answer are exact, s0 comes from 64 rollouts. All successes are the same
completion there, so that s1 = 0.

With --smollm2: SmolLM2-135M-Instruct (needs the package gguf). Sums with three examples, answers of 1 to 3 tokens; and
free text of several lengths that must have no comma. |d|^2 is without bias, from pairs of different rollouts.
Prints one JSON object for each setting.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from viprl.utils.arrays import FloatArray

LIVE = (0.02, 0.98)
"""p of the prompts that are measured."""
BINS = (0.02, 0.1, 0.3, 0.7, 0.98)


@dataclass(frozen=True)
class Strength:
    """Of one prompt."""

    p: float
    d2: float
    s1: float
    s0: float
    tokens: float

    @property
    def noise(self) -> float:
        return (1 - self.p) * self.s1 + self.p * self.s0


Score = tuple[torch.Tensor, ...]
"""By parameter."""


def product(one: Score, other: Score) -> float:
    return sum(float(a.reshape(-1) @ b.reshape(-1)) for a, b in zip(one, other, strict=True))


class Scores:
    """Sums of the scores of one outcome."""

    def __init__(self) -> None:
        self.count, self.squares = 0, 0.0
        self.total: Score = ()

    def add(self, z: Score, times: int) -> None:
        self.count += times
        self.squares += times * product(z, z)
        self.total = self.total or tuple(torch.zeros_like(part) for part in z)
        for total, part in zip(self.total, z, strict=True):
            total.add_(part, alpha=times)

    def mean_square(self) -> float:
        """|E Z|^2 without bias, from pairs."""
        return (product(self.total, self.total) - self.squares) / (self.count * (self.count - 1))

    def variance(self) -> float:
        """Trace, without bias."""
        return (self.squares - product(self.total, self.total) / self.count) / (self.count - 1)


def strength(success: Scores, failure: Scores, tokens: float) -> Strength:
    cross = product(success.total, failure.total) / (success.count * failure.count)
    p = success.count / (success.count + failure.count)
    d2 = success.mean_square() + failure.mean_square() - 2 * cross
    return Strength(p, d2, success.variance(), failure.variance(), tokens)


def summary(found: list[Strength], seed: int = 0) -> dict:
    """Pooled rho with its error over prompts, and quantiles of the prompts."""
    p, d2, noise, tokens = (np.array([getattr(one, name) for one in found]) for name in ("p", "d2", "noise", "tokens"))
    rho, weight = d2 / noise, (p * (1 - p)) ** 2

    def pooled(rows: FloatArray) -> float:
        return float((d2 * weight)[rows].sum() / (noise * weight)[rows].sum())

    rng, every = np.random.default_rng(seed), np.arange(len(p))
    resampled = [pooled(rng.integers(len(p), size=len(p))) for _ in range(1000)]
    by_p = {
        f"{low:g} to {high:g}": [int(inside.sum()), round(pooled(every[inside]), 3)]
        for low, high in itertools.pairwise(BINS)
        if (inside := (p >= low) & (p < high)).any()
    }
    by_length = {
        f"{low} to {high - 1}": [int(inside.sum()), round(pooled(every[inside]), 3)]
        for low, high in ((1, 3), (3, 5), (5, 9))
        if (inside := (tokens >= low) & (tokens < high)).any()
    }
    return {
        "prompts": len(found),
        "mean p": round(float(p.mean()), 3),
        "tokens": round(float(tokens.mean()), 1),
        "pooled rho": [round(pooled(every), 3), round(float(np.std(resampled)), 3)],
        "rho, quantiles .1 .25 .5 .75 .9": np.round(np.quantile(rho, (0.1, 0.25, 0.5, 0.75, 0.9)), 3).tolist(),
        "pooled rho by p": by_p,
        "pooled rho by tokens": by_length,
    }


def small_policy(run, rng: torch.Generator, rollouts: int = 64) -> list[Strength]:
    """Each live prompt of the learning benchmark, with the exact score of the only right completion."""
    chances, found = run.policy.success(run.pool), []
    live = np.flatnonzero((chances > LIVE[0]) & (chances < LIVE[1]))
    drawn = run.policy.sample([run.pool[q].prompt for q in live], np.full(len(live), rollouts), rng)
    for q, group in zip(live.tolist(), drawn, strict=True):
        task, p, wrong = run.pool[q], float(chances[q]), Scores()

        def score(completion: tuple[int, ...], prompt: tuple[int, ...] = task.prompt) -> Score:
            return torch.autograd.grad(run.policy.logprobs([prompt], [completion])[0], run.policy.parameters)

        for one in group:
            if one.tokens != task.solution:
                wrong.add(score(one.tokens), one.times)
        if wrong.count > 1:
            right = score(task.solution)
            z1, z0 = product(right, right), wrong.squares / wrong.count
            found.append(Strength(p, z1 / (1 - p) ** 2, 0.0, z0 - (p / (1 - p)) ** 2 * z1, len(task.solution)))
    return found


def learning_benchmark(folder: Path, seeds: int, steps: list[int]) -> None:
    from learning.arms import ARMS
    from learning.experiment import _pool
    from learning.training import Run, Setting, train

    start, pool, held_out = _pool("late", folder)
    found: dict[int, list[Strength]] = {step: [] for step in steps}
    each: dict[int, list[float]] = {step: [] for step in steps}
    for seed in range(seeds):
        setting = Setting(steps=max(steps) or 1, every=10)
        run = Run(start.copy(), pool, setting, seed, False)
        arm = ARMS["uniform"].build(lambda texts: np.zeros((len(texts), 1)), seed)
        for point in train(run, arm, held_out, ARMS["uniform"].lr):
            if point.step in steps:
                new = small_policy(run, torch.Generator().manual_seed(1000 * seed + point.step))
                found[point.step] += new
                each[point.step].append(summary(new)["pooled rho"][0])
    for step in steps:
        row = {"setting": "learning benchmark", "step": step} | summary(found[step])
        print(json.dumps(row | {"pooled rho of each seed": each[step]}), flush=True)


TOPICS = ("the sea", "a dog", "winter", "a good friend", "the moon", "bread", "my garden", "a train", "music", "school")
SHOTS = "2 + 5 = 7\n6 + 3 = 9\n4 + 4 = 8\n"


class Pretrained:
    """SmolLM2-135M-Instruct, read as plain text."""

    def __init__(self, folder: Path) -> None:
        from examples.smollm2.prepare import fetch, load_gguf

        self.model, self.tokenizer = load_gguf(fetch(folder, None))
        self.parameters = list(self.model.eval().parameters())

    def sample(self, prompt: torch.Tensor, rollouts: int, most: int, one_line: bool) -> Counter[tuple[int, ...]]:
        """How often each completion of [1, n] tokens was drawn; with the token that ends it."""
        end, mask = self.tokenizer.eos_token_id, torch.ones(rollouts, prompt.shape[1], dtype=torch.long)
        options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": most}
        with torch.no_grad():
            rows = self.model.generate(
                prompt.expand(rollouts, -1), attention_mask=mask, pad_token_id=end, **options
            )[:, prompt.shape[1] :]  # fmt: skip

        def last(token: int) -> bool:
            return token == end or (one_line and "\n" in self.tokenizer.decode([token]))

        cut = [next((i + 1 for i, token in enumerate(row) if last(token)), most) for row in rows.tolist()]
        return Counter(tuple(row[:n]) for row, n in zip(rows.tolist(), cut, strict=True))

    def strength(
        self, text: str, right: Callable[[str], bool], rollouts: int, most: int, one_line: bool = False
    ) -> Strength | None:
        """None for a prompt with fewer than three successes or failures."""
        prompt = torch.tensor([self.tokenizer(text)["input_ids"]])
        drawn = self.sample(prompt, rollouts, most, one_line)
        good = {tokens: right(self.tokenizer.decode(list(tokens), skip_special_tokens=True)) for tokens in drawn}
        if not 3 <= sum(times for tokens, times in drawn.items() if good[tokens]) <= rollouts - 3:
            return None
        scores = {True: Scores(), False: Scores()}
        for tokens, times in drawn.items():
            ids = torch.tensor([tokens])
            logits = self.model(torch.cat([prompt, ids], 1)[:, :-1]).logits[0, prompt.shape[1] - 1 :]
            logp = logits.log_softmax(-1).gather(1, ids.T).sum()
            scores[good[tokens]].add(torch.autograd.grad(logp, self.parameters), times)
        length = sum(len(tokens) * times for tokens, times in drawn.items()) / rollouts
        return strength(scores[True], scores[False], length)


def _equal(answer: str, text: str) -> bool:
    return text.strip() == answer


def pretrained(folder: Path, prompts: int, rollouts: int, lengths: list[int], seed: int = 0) -> None:
    torch.manual_seed(seed)
    policy = Pretrained(folder)

    def sums() -> Iterator[Strength | None]:
        for a, b in np.random.default_rng(seed).integers(4, 13, (prompts, 2)).tolist():
            right = functools.partial(_equal, str(a + b))
            yield policy.strength(f"{SHOTS}{a} + {b} =", right, rollouts, 4, one_line=True)

    def texts(most: int) -> Iterator[Strength | None]:
        for topic in TOPICS[:prompts]:
            yield policy.strength(f"A few words about {topic}:", lambda text: "," not in text, rollouts, most)

    for name, each in [("sums", sums()), *((f"text without a comma, {most} tokens", texts(most)) for most in lengths)]:
        live = [one for one in each if one is not None]
        print(json.dumps({"setting": f"SmolLM2-135M, {name}", "rollouts": rollouts} | summary(live)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", default="0,30,60,120")
    parser.add_argument("--prompts", type=int, default=7)
    parser.add_argument("--rollouts", type=int, default=24)
    parser.add_argument("--lengths", default="8,32")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.smollm2:
        pretrained(given.folder, given.prompts, given.rollouts, [int(n) for n in given.lengths.split(",") if n])
    else:
        learning_benchmark(given.folder, given.seeds, [int(n) for n in given.steps.split(",")])


if __name__ == "__main__":
    main()
