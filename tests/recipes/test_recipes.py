"""Every recipe passes a dry run, offline, with a tiny model and a small file in the format of DAPO-MATH-17K."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')

import tiny
from viprl.data.named import DAPO_WRAPPER
from viprl.errors import ConfigError
from viprl.strategies import STRATEGIES
from viprl.train.config import load_config
from viprl.train.dry_run import dry_run
from viprl.train.sweep import load_sweep
from viprl.train.trainer_options import trainer_config
from viprl.utils.json_lines import write_json_lines

RECIPES = Path(__file__).parents[2] / "recipes"
MODELS = {
    "qwen2.5-math-1.5b": "Qwen/Qwen2.5-Math-1.5B",
    "qwen2.5-math-7b": "Qwen/Qwen2.5-Math-7B",
    "llama-3.2-3b-instruct": "meta-llama/Llama-3.2-3B-Instruct",
}
ROWS = sorted(path for model in MODELS for path in (RECIPES / model).glob("*.yaml"))
ARMS = ("uniform", "paper", "default")
ABLATIONS = ("inverse_accuracy", "inverse_variance", "ridge", "ema")


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> list[str]:
    """Overrides that replace the model and the data of the Hub by local ones."""
    folder = tmp_path_factory.mktemp("recipes")
    model = tiny.model()
    model.config.max_position_embeddings = 32_768
    model.save_pretrained(folder / "model")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder / "model")
    before, after = DAPO_WRAPPER
    rows = [
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": f"{before}What is {i} + 1?{after}"}],
            "reward_model": {"ground_truth": str(i + 1), "style": "rule-lighteval/MATH_v2"},
        }
        for i in range(600)
    ]
    file = folder / "dapo.jsonl"
    write_json_lines(file, [*rows, *rows[:40]])
    return [f"model={folder / 'model'}", f"dataset={file}"]


def test_there_is_a_recipe_for_every_row_of_the_table():
    wanted = {
        f"{model}/{estimator}-{budget}-{arm}"
        for model in MODELS
        for estimator in ("dr_grpo", "rloo")
        for budget in ("8q", "16q")
        for arm in ARMS
    } | {f"qwen2.5-math-1.5b/rloo-8q-{arm}" for arm in ABLATIONS}
    assert {name_of(path) for path in ROWS} == wanted and len(wanted) == 40


@pytest.mark.parametrize("path", ROWS, ids=name_of)
def test_a_recipe_passes_a_dry_run_and_is_what_its_name_says(path, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, (estimator, budget, arm) = path.parent.name, path.stem.split("-")
    plain = load_config(path)
    assert plain.model == MODELS[model] and plain.dataset == "dapo-math-17k"
    assert plain.output_dir == f"runs/{name_of(path)}"
    config = load_config(path, local)
    args = trainer_config(config, dry_run=True)
    prompts = args.generation_batch_size // args.num_generations
    assert (prompts, args.num_generations) == (512, int(budget.removesuffix("q")))
    assert (args.vip_min_rollouts, args.vip_max_rollouts) == ((4, 16) if budget == "8q" else (8, 32))
    assert (args.vip_strategy, args.vip_estimator, args.vip_prompt_weighting) == (arm, estimator, "prompt")
    assert arm in STRATEGIES
    rollouts_a_prompt = config.update_batch_size / args.num_generations
    assert rollouts_a_prompt == 64 and args.gradient_accumulation_steps == config.update_batch_size
    assert (args.epsilon, args.epsilon_high, args.delta, args.beta) == (0.2, 0.28, 10.0, 0.0)
    assert (args.learning_rate, args.weight_decay, args.warmup_steps, args.max_grad_norm) == (1e-6, 0.1, 5, 1.0)
    assert (args.temperature, args.top_p, args.max_completion_length) == (1.0, 0.99, 15 * 1024)
    assert (args.loss_type, args.scale_rewards, config.max_prompt_length) == ("dapo", "none", 1024)
    facts = dict(dry_run(config))
    assert "600 rows, chat" in facts["data"] and "gives 1 " in facts["reward"]
    assert facts["steps"].startswith(f"8 optimizer steps of {config.update_batch_size:,} rollouts")


def test_arms_differ_only_in_the_strategy():
    """Recipes with the same model, estimator and budget."""
    for path in ROWS:
        uniform = load_config(path.with_name(re.sub(r"-\w+$", "-uniform", path.stem) + ".yaml"))
        theirs, ours = asdict(uniform), asdict(load_config(path))
        for settings in (theirs, ours):
            del settings["output_dir"], settings["trainer"]["vip_strategy"]
            settings["trainer"].pop(
                "vip_register_pool", None
            )  # only for strategies that take a bandwidth from the pool
        assert ours == theirs


def test_each_recipe_has_a_line_in_the_readme():
    text = (RECIPES / "README.md").read_text()
    for path in ROWS:
        command = f"viprl train --config recipes/{name_of(path)}.yaml"
        lines = [line for line in text.splitlines() if line.startswith("|") and f"{command}`" in line]
        assert len(lines) == 1, path
    assert "30.55" in next(line for line in text.splitlines() if "1.5b/rloo-8q-paper.yaml`" in line)


@pytest.mark.parametrize("path", sorted((RECIPES / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_sweep_recipes(path, local):
    sweep = load_sweep(path, local)
    assert len(sweep.runs) == len(sweep.arms) * 3 and sweep.baseline == "uniform"
    main = load_config(RECIPES / "qwen2.5-math-1.5b" / "rloo-8q-paper.yaml", local)
    if path.stem == "qwen2.5-math-1.5b-rloo-8q":
        arm = next(run.config for run in sweep.runs if run.arm == "paper" and run.seed == 0)
        assert {**arm.trainer, "seed": 0} == {**main.trainer, "seed": 0}


def test_a_mistake_in_a_recipe_is_found(local):
    path = ROWS[0]
    with pytest.raises(ConfigError, match="max_completion_length is 40,000"):
        dry_run(load_config(path, [*local, "max_completion_length=40000"]))
    with pytest.raises(ConfigError, match="vip_min_rollouts=9"):
        dry_run(load_config(path, [*local, "vip_min_rollouts=9", "vip_max_rollouts=9"]))


def test_recipes_consist_of_parts():
    for path in ROWS:
        raw = yaml.safe_load(path.read_text())
        assert set(raw) <= {"extends", "vip_strategy", "vip_register_pool", "output_dir"}


def test_overrides_of_verl_have_a_plus_if_the_key_is_new():
    """Hydra refuses an override of a key that does not exist, and the addition of one that exists."""
    folder = RECIPES / "verl"
    known = yaml.safe_load((folder / "paper.yaml").read_text())["trainer"]["v1"]["vip_sync"]
    text = "".join(path.read_text() for path in folder.iterdir())
    found = re.findall(r"(\+?)trainer\.v1\.vip_sync\.(\w+)=", text)
    assert found and all((plus == "") == (key in known) for plus, key in found)
