"""Gradients that are measured on a tiny model, against exact sums over all completions of one token."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("datasets", reason='needs pip install "viprl[eval]"')

import tiny
from analysis.bandits import Bandits
from viprl.analysis.second_moment import second_moment, terms
from viprl.data import DataSource
from viprl.errors import DataError, InputError
from viprl.evaluate.gradients import Subject, measure
from viprl.utils.json_lines import write_json_lines

PROMPTS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("gradients")
    network = tiny.model()
    for parameter in network.parameters():  # less uniform probabilities
        parameter.data *= 4
    network.save_pretrained(place / "model")
    tiny.tokenizer().save_pretrained(place / "model")
    write_json_lines(place / "data.jsonl", tiny.dataset(PROMPTS).to_list())
    return place


def subject(folder, **more):
    settings = {"rewards": ["tiny:contains"], "prompts": PROMPTS, "rollouts": 20, "further": 4, "max_new_tokens": 1}
    return Subject(str(folder / "model"), DataSource(str(folder / "data.jsonl")), **(settings | more))


@pytest.fixture(scope="module")
def exact(folder):
    from transformers import AutoModelForCausalLM

    tokenizer, rows = tiny.tokenizer(), tiny.dataset(PROMPTS)
    words = [tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer))]
    rewards = [tiny.contains(words, words, [right] * len(words)) for right in rows["solution"]]
    network = AutoModelForCausalLM.from_pretrained(folder / "model")
    return Bandits.of_model(network, tokenizer(list(rows["prompt"]))["input_ids"], rewards)


def parts(laws, cross, counts=4):
    found = second_moment(cross, terms(laws, 5, counts), pool=PROMPTS)
    return np.array([found.signal, found.prompts, found.rollouts])


def test_signal_prompts_and_rollouts_are_unbiased(folder, exact):
    found = []
    for seed in range(12):
        made = measure(subject(folder, seed=seed))
        assert made.buckets is None and made.measurement.pool == PROMPTS
        found.append(parts(made.measurement.laws, made.measurement.cross))
    for values, true in zip(np.array(found).T, parts(exact.laws, exact.cross), strict=True):
        assert values.mean() == pytest.approx(true, abs=4 * values.std(ddof=1) / np.sqrt(12))


def test_sketches_change_little(folder):
    """The norms are exact. An inner product has an error of about 1/sqrt(buckets) of the product of the norms."""
    whole, sketched = (measure(subject(folder, buckets=buckets)) for buckets in (0, 509))
    assert sketched.buckets == 509 and whole.buckets is None
    a, b = whole.measurement, sketched.measurement
    assert b.laws.A + b.laws.squared_gradient == pytest.approx(a.laws.A + a.laws.squared_gradient, rel=1e-4)
    error = (a.cross - b.cross)[~np.eye(PROMPTS, dtype=bool)]
    size = np.mean(a.laws.variance(20) + a.laws.squared_gradient)  # of |g^|^2
    assert 0 < np.sqrt(np.mean(error**2)) < 2 * size / np.sqrt(509)
    exact, rough = parts(a.laws, a.cross), parts(b.laws, b.cross)
    assert rough == pytest.approx(exact, abs=0.1 * exact.sum())


def test_some_prompts_of_a_larger_pool(folder):
    made = measure(subject(folder, prompts=4))
    assert len(made.problems) == 4 and made.measurement.pool == PROMPTS and made.measurement.cross.shape == (4, 4)
    again, other = measure(subject(folder, prompts=4)), measure(subject(folder, prompts=4, seed=1))
    assert [p.id for p in again.problems] == [p.id for p in made.problems] != [p.id for p in other.problems]
    assert again.measurement.cross == pytest.approx(made.measurement.cross)


def test_several_rewards_are_added(folder):
    one = measure(subject(folder, prompts=3))
    both = measure(subject(folder, prompts=3, rewards=["tiny:contains", "tiny:contains"], weights=[2, 1]))
    assert pytest.approx(9 * one.measurement.laws.A, rel=1e-4) == both.measurement.laws.A
    assert both.rewards[0] == pytest.approx(3 * one.rewards[0])


def unscorable(prompts, completions, **_):
    return [None] * len(completions)


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"rollouts": 3}, InputError),
        ({"prompts": 1}, InputError),
        ({"weights": [1, 2]}, InputError),
        ({"least": 11}, InputError),
        ({"rewards": ["exakt_match"]}, InputError),
        ({"rewards": ["evaluate.test_gradients:unscorable"]}, DataError),
        ({"max_new_tokens": 100}, DataError),
    ],
)
def test_unusable_subjects(folder, more, kind):
    with pytest.raises(kind):
        measure(subject(folder, **more))
