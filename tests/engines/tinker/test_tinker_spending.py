"""`spend` and `cost`: a step has fewer rollouts, and its prompts the weights that they have with all of them."""

import numpy as np
import pytest
from tinker_runs import CHANCE, N, Q, Service, config_in, run, trained

from viprl import VIP
from viprl.engines.tinker import with_vip
from viprl.errors import InputError

QUESTIONS = [str(q) for q in range(len(CHANCE))]


class Wordy(Service):
    """Answers of the hardest questions have four tokens, others one or two."""

    async def sample(self, prompt, num_samples, sampling_params):
        found = await super().sample(prompt, num_samples, sampling_params)
        tokens = 4 if prompt.to_ints()[0] % 6 == 4 else int(self.rng.integers(1, 3))  # 100 + question
        sequence = found.sequences[0]
        sequence.tokens, sequence.logprobs = sequence.tokens * tokens, sequence.logprobs * tokens
        return found


def loo(rewards):
    """Reward minus the mean of the others."""
    return [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]


@pytest.mark.parametrize(
    "options", [{"spend": "match"}, {"cost": "tokens"}, {"spend": "match", "cost": "tokens", "candidates": 2}]
)
def test_the_weights_are_those_of_the_whole_budget(tmp_path, options):
    service, steps = Wordy(), 9
    run(tmp_path, 6, service=service, **options)
    dataset, _, log = run(tmp_path, steps, service=service, **options)  # resumed
    k = options.get("candidates", 1)
    by_hand = VIP(features="none", cache=None, **{name: options[name] for name in options if name != "candidates"})
    assert dataset.step == len(service.steps) == steps
    spent, rows = [], [None] * 6 + log.rows
    for step, data in enumerate(service.steps):
        groups = trained(data)
        if k == 1:
            sampled, weights = [step % 2 * Q + q for q in range(Q)], np.ones(Q)
            planned = by_hand.allocate([QUESTIONS[q] for q in sampled], Q * N)
        else:
            selection = by_hand.select(QUESTIONS, Q * N, Q)
            sampled, weights, planned = selection.positions.tolist(), selection.weights, selection.allocation
        counts = [len(groups[q][0]) for q in sampled]
        assert counts == planned.counts.tolist() and min(counts) >= 2
        for q, n, weight in zip(sampled, counts, weights, strict=True):
            expected = weight * N / n * (1 - 1 / N) * np.array(loo(groups[q][0]))
            np.testing.assert_allclose(groups[q][1], expected, atol=1e-6)
        lengths, logprobs = tokens_and_logprobs(data, sampled)
        by_hand.observe(
            [QUESTIONS[q] for q in sampled],
            [groups[q][0] for q in sampled],
            logprobs=logprobs,
            lengths=lengths,
        )
        spent.append(sum(counts))
        if rows[step] is not None:
            logged = {name: value for name, value in by_hand.metrics().items() if name.startswith("spending/")}
            assert logged["spending/tokens"] == pytest.approx(sum(map(sum, lengths)))
            assert logged["spending/rollouts"] == sum(counts)
            found = {name: rows[step][f"env/all/vip/{name}"] for name in logged}
            assert found == pytest.approx(logged, rel=1e-6)
    assert max(spent) <= Q * N and (min(spent) < 0.95 * Q * N) == ("spend" in options)


def tokens_and_logprobs(data, sampled):
    """[Q][n] tokens and log probabilities of the rollouts of a step."""
    lengths, logprobs = {}, {}
    for datum in data:
        question = datum.model_input.to_ints()[0] - 100
        sampled_logprobs = datum.loss_fn_inputs["logprobs"].tolist()
        lengths.setdefault(question, []).append(len(sampled_logprobs))
        logprobs.setdefault(question, []).append(sum(sampled_logprobs))
    return [lengths[q] for q in sampled], [logprobs[q] for q in sampled]


@pytest.mark.parametrize(
    "given, named",
    [
        ({"spend": "all"}, "spend is 'all'"),
        ({"cost": 2}, "cost is 2"),
        ({"variance_target": 0}, "variance_target is 0"),
    ],
)
def test_values_that_do_not_exist_are_refused_at_once(tmp_path, given, named):
    with pytest.raises(InputError, match=named):
        with_vip(config_in(tmp_path), **given)
