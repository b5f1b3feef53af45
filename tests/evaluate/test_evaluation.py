"""Evaluations of a model: reproducible samples, resumed runs, checks before the weights are loaded, and vLLM."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import pytest

import tiny
from child_processes import killed_after
from viprl.data import DataSource
from viprl.errors import StateError, ViprlError
from viprl.evaluate.evaluation import Plan, evaluate_generations, evaluate_model
from viprl.evaluate.generations import read_generations, seed_of
from viprl.evaluate.problems import load_problems, tokenized
from viprl.evaluate.sampling import Sampling, choose_backend


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a model and data.jsonl (12 problems)."""
    tiny.save(tmp_path / "model")
    rows = [{"id": f"p{i}", **row} for i, row in enumerate(tiny.dataset(12).to_list())]
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


def test_samples_depend_on_seed_and_problem_alone(place):
    evaluate_model(plan(place), [1, 6], "exact_match", place / "whole")
    whole = samples(place / "whole")
    evaluate_model(plan(place, batch_size=4), [1], "exact_match", place / "split")
    assert samples(place / "split") == whole
    rows = (place / "data.jsonl").read_text().splitlines(keepends=True)
    (place / "data.jsonl").write_text("".join(rows[:3:-1]))
    evaluate_model(plan(place), [1], "exact_match", place / "some")
    some = samples(place / "some")
    assert len(some) == 8 and all(whole[name] == texts for name, texts in some.items())
    evaluate_model(plan(place, seed=1), [1], "exact_match", place / "other")
    assert sum(whole[name] == texts for name, texts in samples(place / "other").items()) < 5


def test_a_killed_run_is_resumed(place):
    """After SIGKILL, at worst within a line, the same command completes the same samples."""
    evaluate_model(plan(place), [1], "exact_match", place / "whole")
    script = place / "slow.py"
    script.write_text(
        "import sys, time\n"
        "from viprl.evaluate.generations import Store\n"
        "append = Store.append\n"
        "Store.append = lambda store, row: (append(store, row), time.sleep(0.2))\n"
        f"sys.argv = ['viprl', 'evaluate', '--model', {str(place / 'model')!r}, '--dataset', "
        f"{str(place / 'data.jsonl')!r}, '--n', '6', '--max-new-tokens', '3', '--verify', 'exact_match', '--k', '1', "
        f"'--backend', 'transformers', '--out', {str(place / 'killed')!r}]\n"
        "from viprl.cli import main\nmain()\n"
    )
    file = place / "killed" / "samples.jsonl"
    killed_after([sys.executable, str(script)], file, lines=3)
    assert 3 <= file.read_bytes().count(b"\n") < 12
    with file.open("ab") as torn:
        torn.write(b'{"id": "p9", "answ')
    result = evaluate_model(plan(place), [1, 6], "exact_match", place / "killed")
    assert samples(place / "killed") == samples(place / "whole")
    assert [row["id"] for row in result.problems] == [f"p{i}" for i in range(12)]
    again = evaluate_generations(place / "killed" / "samples.jsonl", [1, 6], "exact_match")
    assert again.metrics.keys() == result.metrics.keys()
    assert again.metrics["pass@k"][6].mean == pytest.approx(result.metrics["pass@k"][6].mean)


def test_a_finished_run_needs_no_weights(place):
    first = evaluate_model(plan(place), [1, 6], "exact_match", place / "run")
    weights = next((place / "model").glob("*.safetensors"))
    stamp, size = weights.stat().st_mtime_ns, weights.stat().st_size
    weights.write_bytes(b"\0" * size)
    os.utime(weights, ns=(stamp, stamp))
    assert evaluate_model(plan(place), [1, 6], "exact_match", place / "run") == first


@pytest.mark.parametrize(
    ("changes", "k", "keys"),
    [
        ({"n": 4}, 8, "k is 8"),
        ({"max_new_tokens": 63}, 1, "'p0'.*--max-new-tokens"),
        ({"data": {"chat": True}}, 1, "chat template"),
        ({"data": {"solution_column": "id_"}}, 1, "`id_`"),
    ],
)
def test_mistakes_are_found_before_the_weights_are_loaded(place, monkeypatch, changes, k, keys):
    from transformers import AutoModelForCausalLM

    def load(*_, **__):
        pytest.fail("the weights were loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    if "data" in changes:
        changes = {"data": DataSource(str(place / "data.jsonl"), **changes["data"])}
    with pytest.raises(ViprlError, match=keys):
        evaluate_model(plan(place, **changes), [k], "exact_match", place / "run")
    assert not (place / "run" / "samples.jsonl").exists()


def test_samples_of_other_settings_are_not_mixed(place):
    evaluate_model(plan(place), [1], "exact_match", place / "run")
    with pytest.raises(StateError, match=r"\(seed\)"):
        evaluate_model(plan(place, seed=1), [1], "exact_match", place / "run")
    tiny.model(seed=1).save_pretrained(place / "model")
    with pytest.raises(StateError, match=r"\(weights\)"):
        evaluate_model(plan(place), [1], "exact_match", place / "run")


class FakeVLLM(types.ModuleType):
    """A stand-in with the calls that are used. Every completion is its seed and its number."""

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
    result = evaluate_model(plan(place, backend="auto", batch_size=5), [1], "exact_match", place / "run")
    assert fake.batches == [5, 5, 2]
    assert fake.engines == [
        {"model": str(place / "model"), "tokenizer": str(place / "model"), "seed": 0, "max_model_len": 5,
         "tensor_parallel_size": 1}
    ]  # fmt: skip
    assert samples(place / "run")["p3"] == tuple(f"{seed_of(0, 'p3')} {i}" for i in range(6))
    assert result.problems[0]["truncated"] == 5


def test_options_of_the_chat_template_reach_the_prompts(place):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if enable_thinking is not defined %}a{% endif %}"
    )
    tokenizer.save_pretrained(place / "model")
    lengths = {}
    for name, options in (("plain", {}), ("short", {"enable_thinking": False})):
        problems = tokenized(
            load_problems(DataSource(str(place / "data.jsonl"), chat=True)), tokenizer, "model", options
        )
        lengths[name] = len(problems[0].tokens)
        evaluate_model(plan(place, template_options=options), [1], "exact_match", place / name)
    assert lengths["short"] == lengths["plain"] - 1
    assert samples(place / "plain") != samples(place / "short")
    assert json.loads((place / "short" / "settings.json").read_text())["chat_template_kwargs"] == {
        "enable_thinking": False
    }


def test_a_lora_adapter_is_evaluated_with_transformers(place, monkeypatch):
    peft = pytest.importorskip("peft")
    adapter = peft.get_peft_model(tiny.model(), peft.LoraConfig(r=2, task_type="CAUSAL_LM"))
    adapter.peft_config["default"].base_model_name_or_path = str(place / "model")
    adapter.save_pretrained(place / "adapter")
    tiny.tokenizer().save_pretrained(place / "adapter")
    result = evaluate_model(plan(place, model=str(place / "adapter"), backend="auto"), [1], "exact_match", place / "o")
    assert len(result.problems) == 12
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setattr("viprl.evaluate.evaluation.choose_backend", lambda name: name)
    with pytest.raises(ViprlError, match="LoRA"):
        evaluate_model(plan(place, model=str(place / "adapter"), backend="vllm"), [1], "exact_match", place / "v")
