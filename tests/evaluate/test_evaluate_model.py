"""Sampling for an evaluation: the right distribution, the same samples again, and a killed run that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason='needs pip install "viprl[trl]"')
pytest.importorskip("pyarrow", reason='needs pip install "viprl[eval]"')

import torch

import tiny
from viprl.data import DataSource
from viprl.evaluate.drawing import NUCLEUS, DrawByNumbers, nucleus_quantile
from viprl.evaluate.evaluation import Plan, evaluate_generations, evaluate_model
from viprl.evaluate.generations import read_generations, seed_of
from viprl.evaluate.problems import Task
from viprl.evaluate.sampling import Sampling, choose_backend, transformers_sampler

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a model and data.jsonl (24 problems)."""
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    rows = [{"id": f"p{i}", **row} for i, row in enumerate(tiny.dataset(24).to_list())]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def plan(place: Path, **changes) -> Plan:
    sampling = {"n": 6, "max_new_tokens": 3} | {k: v for k, v in changes.items() if k in Sampling.__dataclass_fields__}
    rest = {k: v for k, v in changes.items() if k not in Sampling.__dataclass_fields__}
    data = DataSource(str(place / "data.jsonl"))
    return Plan(
        **({"model": str(place / "model"), "data": data, "backend": "transformers"} | rest),
        sampling=Sampling(**sampling),
    )


def samples(folder: Path) -> dict[str, tuple[str, ...]]:
    return {problem.id: problem.completions for problem in read_generations(folder / "samples.jsonl")}


# --- the distribution ---


@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.2])
def test_a_quantile_of_the_nucleus(top_p):
    """By definition: the tokens' shares of a fine grid of numbers are their renormalised probabilities."""
    logits = torch.tensor([2.0, -1.0, 1.5, 0.0, 1.0])
    probabilities = logits.double().softmax(-1).numpy()
    order = np.argsort(-probabilities)
    inside = order[: int(np.searchsorted(np.cumsum(probabilities[order]), top_p - 1e-9)) + 1]
    grid = torch.arange(20_000) / 20_000
    drawn = Counter(nucleus_quantile(logits.repeat(len(grid), 1), top_p, grid).tolist())
    assert set(drawn) == set(inside.tolist())
    for token in inside:
        assert drawn[int(token)] / len(grid) == pytest.approx(
            probabilities[token] / probabilities[inside].sum(), abs=2e-4
        )


def test_a_flat_distribution_needs_the_whole_vocabulary():
    tokens = nucleus_quantile(torch.zeros(1000, 4 * NUCLEUS), 0.9, torch.arange(1000) / 1000)
    assert len(set(tokens.tolist())) == 1000


def test_the_last_number_stays_inside():
    assert nucleus_quantile(torch.tensor([[0.0, 0.0, -torch.inf]]), 1.0, torch.tensor([1.0])).item() in (0, 1)


def test_steps_and_rows_have_their_own_numbers():
    draw = DrawByNumbers(np.array([[0.0, 0.99], [0.99, 0.0]]), prompt_length=2, temperature=1.0, top_p=1.0)
    scores = torch.tensor([[1.0, 0.0]] * 2)
    steps = [draw(torch.zeros(2, 2 + step, dtype=torch.long), scores).argmax(-1).tolist() for step in (0, 1)]
    assert steps == [[0, 1], [1, 0]]


def test_samples_follow_the_model(place):
    """First tokens of 4,000 completions against the model's own probabilities at temperature 2, top-p .7."""
    settings = Sampling(n=4000, temperature=2.0, top_p=0.7, max_new_tokens=1)
    tokenizer, network = tiny.tokenizer(), tiny.model().eval()
    task = Task("p", "a", tuple(tokenizer("a b")["input_ids"]))
    made = next(transformers_sampler(str(place / "model"), tokenizer, settings, batch_size=4000, device="cpu")([task]))
    with torch.no_grad():
        probabilities = (network(torch.tensor([task.tokens])).logits[0, -1].double() / 2.0).softmax(-1).numpy()
    order = np.argsort(-probabilities)
    inside = order[: int(np.searchsorted(np.cumsum(probabilities[order]), 0.7)) + 1]
    found = Counter(made.completions)
    for token in inside:
        text = tokenizer.decode([int(token)], skip_special_tokens=True)
        if text:  # special tokens have none, and several share it
            expected = probabilities[token] / probabilities[inside].sum()
            assert found[text] / 4000 == pytest.approx(expected, abs=4 * np.sqrt(expected / 4000))
    assert set(found) <= {tokenizer.decode([int(t)], skip_special_tokens=True) for t in inside}


def test_the_model_s_own_sampling_defaults_are_left_out(place):
    file = place / "model" / "generation_config.json"
    settings = Sampling(n=64, top_p=1.0, max_new_tokens=4)
    task = Task("p", "a", (3, 4))
    runs = []
    for changes in (
        {},
        {"top_k": 1, "do_sample": True, "repetition_penalty": 9.0, "temperature": 0.01, "min_new_tokens": 4},
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        runs.append(list(transformers_sampler(str(place / "model"), tiny.tokenizer(), settings, batch_size=64)([task])))
    assert runs[0] == runs[1] and len(set(runs[0][0].completions)) > 20


# --- the same samples again ---


def test_samples_depend_on_seed_and_problem_alone(place):
    evaluate_model(plan(place), [1, 6], "exact_match", place / "whole")
    whole = samples(place / "whole")
    evaluate_model(plan(place, batch_size=4), [1], "exact_match", place / "split")
    assert samples(place / "split") == whole
    rows = (place / "data.jsonl").read_text().splitlines(keepends=True)
    (place / "data.jsonl").write_text("".join(rows[:3:-1]))
    evaluate_model(plan(place), [1], "exact_match", place / "some")
    some = samples(place / "some")
    assert len(some) == 20 and all(whole[name] == texts for name, texts in some.items())
    evaluate_model(plan(place, seed=1), [1], "exact_match", place / "other")
    assert sum(whole[name] == texts for name, texts in samples(place / "other").items()) < 5


def test_a_killed_run_goes_on(place):
    """SIGKILL somewhere in the middle, at worst within a line; the same command finishes with the same samples."""
    evaluate_model(plan(place), [1], "exact_match", place / "whole")
    script = place / "slow.py"
    script.write_text(
        "import sys, time\n"
        "from viprl.evaluate import sampling, run\n"
        "from viprl.evaluate.generations import Store\n"
        "append = Store.append\n"
        "Store.append = lambda store, row: (append(store, row), time.sleep(0.2))\n"
        f"sys.argv = ['viprl', 'evaluate', '--model', {str(place / 'model')!r}, '--dataset', "
        f"{str(place / 'data.jsonl')!r}, '--n', '6', '--max-new-tokens', '3', '--verify', 'exact_match', '--k', '1', "
        f"'--backend', 'transformers', '--out', {str(place / 'killed')!r}]\n"
        "from viprl.cli import main\nmain()\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file = place / "killed" / "samples.jsonl"
    deadline = time.monotonic() + 240
    while not (file.exists() and file.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended or hangs"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= file.read_bytes().count(b"\n") < 24
    with file.open("ab") as torn:
        torn.write(b'{"id": "p9", "answ')
    result = evaluate_model(plan(place), [1, 6], "exact_match", place / "killed")
    assert samples(place / "killed") == samples(place / "whole")
    assert [row["id"] for row in result.problems] == [f"p{i}" for i in range(24)]
    again = evaluate_generations(place / "killed" / "samples.jsonl", [1, 6], "exact_match")
    assert again.metrics.keys() == result.metrics.keys()
    assert again.metrics["pass@k"][6].value == pytest.approx(result.metrics["pass@k"][6].value)


def test_a_finished_run_needs_no_weights(place):
    first = evaluate_model(plan(place), [1, 6], "exact_match", place / "run")
    weights = next((place / "model").glob("*.safetensors"))
    stamp, size = weights.stat().st_mtime_ns, weights.stat().st_size
    weights.write_bytes(b"\0" * size)
    os.utime(weights, ns=(stamp, stamp))
    assert evaluate_model(plan(place), [1, 6], "exact_match", place / "run") == first


# --- prompts ---


def test_a_chat_template_and_an_instruction_are_used_where_the_model_has_one(place):
    from viprl.data.lengths import load_tokenizer
    from viprl.evaluate.problems import format_for, load_problems, tokenized

    spec = DataSource(str(place / "data.jsonl"))
    plain = load_tokenizer(str(place / "model"))
    assert format_for(spec, plain, False) == spec
    asked = load_problems(format_for(spec, plain, True), 1)[0].prompt
    assert asked.startswith("a a") and "\\boxed" in asked
    plain.chat_template = TEMPLATE
    asked = load_problems(format_for(spec, plain, True), 1)
    assert asked[0].prompt[0]["role"] == "user" and "\\boxed" in asked[0].prompt[0]["content"]
    assert tokenized(asked, plain, "m")[0].tokens[:2] == (3, 3)
    (place / "data.jsonl").write_text(json.dumps({"prompt": "say \\boxed", "solution": "a"}) + "\n")
    assert load_problems(format_for(spec, plain, True))[0].prompt[0]["content"] == "say \\boxed"


# --- what is refused before any weights are loaded ---


@pytest.mark.parametrize(
    ("changes", "ks", "message"),
    [
        ({"n": 4}, [8], "k = 8 needs at least 8 completions a problem, but there are 4"),
        ({"max_new_tokens": 63}, [1], "'p0' has 2 tokens; with 63 new ones .* 64 tokens; set --max-new-tokens to 62"),
        ({"chat": True}, [1], "the prompts are chats, but .* has no chat template; --no-chat"),
        ({"backend": "tgi"}, [1], "expected auto, vllm or transformers"),
        ({"backend": "vllm"}, [1], "vLLM is not installed: pip install vllm"),
        ({"rows": [{"id": "a", "prompt": "a", "solution": None}]}, [1], "row is bad|all 1 rows are bad"),
        ({"rows": [{"id": "a", "prompt": "a b"}]}, [1], "no column that is known to hold the answer"),
        ({"rows": [{"id": "a", "prompt": p, "solution": "b"} for p in ("a", "b")]}, [1], "same id 'a'"),
        ({"rows": [{"id": "a", "prompt": "a " * 80, "solution": "b"}]}, [1], "has 80 tokens; .*leave the problem out"),
    ],
)  # fmt: skip
def test_mistakes(place, monkeypatch, changes, ks, message):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the weights were loaded")
    )
    changes = dict(changes)
    if rows := changes.pop("rows", None):
        (place / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if changes.pop("chat", False):
        changes["data"] = DataSource(str(place / "data.jsonl"), chat=True)
    with pytest.raises(ValueError, match=message):
        evaluate_model(plan(place, **changes), ks, "exact_match", place / "run")
    assert not (place / "run" / "samples.jsonl").exists()


@pytest.mark.parametrize("verify", ["exact_match", "math"])
def test_an_endless_source_is_refused_before_a_row_is_made(place, monkeypatch, verify):
    pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')
    monkeypatch.setattr("viprl.data.gym._source", lambda *_: pytest.fail("the task was made"))
    with pytest.raises(ValueError, match=r"chain_sum is endless.*write some of its rows to a file"):
        evaluate_model(plan(place, data=DataSource("reasoning-gym:chain_sum")), [1], verify, place / "run")


@pytest.mark.parametrize("bad", [{"n": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_new_tokens": 0}])
def test_impossible_sampling(bad):
    with pytest.raises(ValueError, match="expected"):
        Sampling(**bad)


def test_samples_of_other_settings_are_not_mixed(place):
    evaluate_model(plan(place), [1], "exact_match", place / "run")
    with pytest.raises(ValueError, match=r"other settings \(seed\)"):
        evaluate_model(plan(place, seed=1), [1], "exact_match", place / "run")
    tiny.model(seed=1).save_pretrained(place / "model")
    with pytest.raises(ValueError, match=r"other settings \(weights\)"):
        evaluate_model(plan(place), [1], "exact_match", place / "run")


# --- vLLM, by a stand-in with the calls that are used ---


class FakeVLLM(types.ModuleType):
    """Completes every prompt with its seed and the sample's number; notes what it was given."""

    def __init__(self) -> None:
        super().__init__("vllm")
        self.engines: list[dict] = []
        self.batches: list[int] = []
        fake = self

        class SamplingParams:
            def __init__(self, *, n, temperature, top_p, max_tokens, seed):
                self.n, self.seed, self.rest = n, seed, (temperature, top_p, max_tokens)

        class LLM:
            def __init__(self, **options):
                fake.engines.append(options)

            def generate(self, prompts, parameters, use_tqdm):
                fake.batches.append(len(prompts))
                assert all(set(prompt) == {"prompt_token_ids"} for prompt in prompts)
                return [
                    types.SimpleNamespace(outputs=[self._output(p, i) for i in reversed(range(p.n))])
                    for p in parameters
                ]

            def _output(self, parameters, i):
                assert parameters.rest == (1.0, 0.7, 3)
                return types.SimpleNamespace(
                    index=i, text=f"{parameters.seed} {i}", finish_reason="length" if i else "stop"
                )

        self.LLM, self.SamplingParams = LLM, SamplingParams


def test_vllm(place, monkeypatch):
    import importlib.util

    fake = FakeVLLM()
    monkeypatch.setitem(sys.modules, "vllm", fake)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: True if name == "vllm" else find(name, *rest))
    assert choose_backend("auto") == "vllm"
    result = evaluate_model(plan(place, backend="auto", batch_size=10), [1], "exact_match", place / "run")
    assert fake.batches == [10, 10, 4]
    assert fake.engines == [
        {"model": str(place / "model"), "tokenizer": str(place / "model"), "seed": 0, "max_model_len": 5,
         "tensor_parallel_size": 1}
    ]  # fmt: skip
    assert samples(place / "run")["p3"] == tuple(f"{seed_of(0, 'p3')} {i}" for i in range(6))
    assert result.problems[0]["truncated"] == 5
