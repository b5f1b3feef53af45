"""Every block of Python in the documentation runs, in the order of its page.

`SETTINGS` says, page by page, what stands for the reader's own model, data and functions, what is replaced in the text
of the blocks, and what must come out. Blocks of one page share a namespace and a temporary folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import documentation
import viprl
from documentation import PAGES, blocks
from viprl.features import encoders
from viprl.runs.history import PromptHistory, save_history
from viprl.utils.json_lines import write_json_lines

RNG = np.random.default_rng(0)
PROMPTS = [f"What is {i} + {i}?" for i in range(64)]
CHANCE = dict(zip(PROMPTS, np.tile([0.5, 0.0, 1.0, 0.1], 16), strict=True))
ELSEWHERE = {"docs/tinker.md": "tests/engines/tinker/test_tinker_docs.py"}
"""Page -> the test that runs its blocks."""


def sample(prompt: str, n: int) -> list[float]:
    """Stands for a model and a reward function."""
    return (RNG.random(n) < CHANCE[prompt]).astype(float).tolist()


@dataclass(frozen=True)
class Setting:
    """What the blocks of a page need.

    Args:
        given: from the temporary folder, and a patch for packages that are not installed, to the names of the reader.
        needs: block of the page, from 0 -> a package without which it is left out.
        changes: block -> (text, replacement), ....
        check: of the namespace and the values of the blocks' last lines.
    """

    given: Callable[[Path, pytest.MonkeyPatch], dict[str, Any]] = lambda folder, patch: {}
    needs: dict[int, str] = field(default_factory=dict)
    changes: dict[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    check: Callable[[dict[str, Any], list[Any]], None] = lambda names, values: None


def the_core(_: Path, *_unused: Any) -> dict[str, Any]:
    return {"viprl": viprl, "prompts": PROMPTS, "sample": sample, "sample_and_score": sample, "p": [*CHANCE.values()]}


def readme(folder: Path, *_unused: Any) -> dict[str, Any]:
    if importlib.util.find_spec("trl"):
        import tiny

        tiny.save(folder / "model")
        write_json_lines(folder / "train.jsonl", tiny.dataset(32).to_list())
    return the_core(folder)


def readme_trained(names: dict[str, Any], values: list[Any]) -> None:
    assert names["plan"].counts.sum() == 512 == len(names["advantages"])
    assert names["vip"].metrics()["counts/mean"] == 8
    assert 0.3 < values[-1] < 0.7
    if "trainer" in names:
        assert names["trainer"].state.global_step == 1
        assert names["trainer"].args.vip_max_rollouts == 48


def on_a_cpu(folder: Path, *_unused: Any) -> dict[str, Any]:
    """The configs of a machine without a GPU."""
    if not importlib.util.find_spec("trl"):
        return {}
    from viprl.engines.trl import VIPGRPOConfig, VIPRLOOConfig

    options = {"use_cpu": True, "bf16": False, "output_dir": str(folder)}
    return {"VIPGRPOConfig": partial(VIPGRPOConfig, **options), "VIPRLOOConfig": partial(VIPRLOOConfig, **options)}


def selecting(folder: Path, *_unused: Any) -> dict[str, Any]:
    return the_core(folder) | on_a_cpu(folder) | {"candidates": PROMPTS * 2}


def engine(folder: Path, *_unused: Any) -> dict[str, Any]:
    batches, trained = [PROMPTS[:32], PROMPTS[32:]] * 3, []
    return {"batches": batches, "sample_and_score": sample, "trained": trained, "train": trained.append}


def check_engine(names: dict[str, Any], _: list[Any]) -> None:
    assert [len(step) for step in names["trained"]] == [256] * 6
    assert Path("checkpoint/vip_state.safetensors").is_file()


def waves(_: Path, *_unused: Any) -> dict[str, Any]:
    """Two batches of prompts that are mostly never solved were seen; the prompts of the block are new."""
    vip = viprl.VIP(features="none", cache=None)
    for batch in range(4):
        seen = [f"{batch}: {prompt}" for prompt in PROMPTS * 2]
        seen = [f"{i}, {prompt}" for i, prompt in enumerate(seen)]
        vip.observe(seen, hopeless(seen, vip.allocate(seen, budget=1024).counts))
    prompts = [f"{i} - {i} = ?" for i in range(128)]
    return {"viprl": viprl, "vip": vip, "prompts": prompts, "sample_and_score": hopeless}


def hopeless(prompts: list[str], counts: Any) -> list[list[float]]:
    chance = np.where(RNG.random(len(prompts)) < 0.75, 0, 0.5)
    return [(RNG.random(n) < p).astype(float).tolist() for n, p in zip(counts, chance, strict=True)]


def histories(folder: Path) -> Path:
    rates = RNG.beta(0.3, 0.5, 64)
    file = folder / "runs" / "mine" / "history.jsonl.gz"
    file.parent.mkdir(parents=True)
    prompts = [
        PromptHistory(str(i), f"prompt {i}", np.full(16, 8.0), RNG.binomial(8, p, 16).astype(float))
        for i, p in enumerate(rates)
    ]
    save_history(file, prompts)
    return file


def predictors(folder: Path, *_unused: Any) -> dict[str, Any]:
    histories(folder)
    return {}


def check_predictors(names: dict[str, Any], _: list[Any]) -> None:
    assert list(names["vip"].strategies) == ["mine", "default"]
    assert list(names["results"]) == ["mine", "default", "uniform"]
    assert names["results"]["mine"][-1].scores["capture"].mean > 0.2
    check_contracts(names, _)


def check_contracts(names: dict[str, Any], _: list[Any]) -> None:
    """Run the tests that the classes `Test...` of a page inherit."""
    written = [value for name, value in names.items() if name.startswith("Test")]
    tests = [(one, name) for one in written for name in dir(one) if name.startswith("test_")]
    for one, name in tests:
        getattr(one(), name)()
    assert len(tests) > 5


def replaying(folder: Path, *_unused: Any) -> dict[str, Any]:
    from log_files import write_parquet
    from viprl.baselines.moving_average import MovingAverage

    histories(folder)
    for step in range(1, 5):
        rows = [{"step": step, "prompt": p, "completion": "x", "accuracy": r} for p in PROMPTS for r in sample(p, 4)]
        write_parquet(folder / "OUTPUT_DIR" / "completions" / f"completions_{step:05d}.parquet", rows)
    return {"MyPredictor": MovingAverage}


def check_replaying(names: dict[str, Any], _: list[Any]) -> None:
    assert list(names["results"]) == ["default", "mine"]
    assert names["vip"].predict(PROMPTS)[:3] == pytest.approx([0.5, 0, 1], abs=0.25)


def check_choosing(names: dict[str, Any], _: list[Any]) -> None:
    """The tables of the page."""
    page = documentation.read("docs/choosing.md")

    def cells(row: str) -> list[str]:
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {row} |"))
        return [cell.strip() for cell in line.strip("|").split("|")][1:]

    def text(value: float) -> str:
        return f"{value:.2f}".removeprefix("0")

    p = names["p"]
    for average in (2, 3, 4, 6, 8, 16):
        most = 6 * average
        plan = viprl.allocate(p, budget=64 * average, min_rollouts=2, max_rollouts=most)
        saved = viprl.allocate(p, match_uniform=64 * average, max_rollouts=most).saved
        assert cells(str(average)) == [text(plan.variance_ratio), f"{100 * saved:.0f} %"]
    bounds = [(2, 48), (2, 32), (2, 16), (4, 16), (6, 10), (2, 8)]
    assert cells("bounds") == [f"[{low}, {high}]" for low, high in bounds]
    name = "| variance relative to uniform counts |"
    by_share, by_bounds = (line for line in page.splitlines() if line.startswith(name) and "[" not in line)
    ratios = [viprl.allocate(p, budget=512, min_rollouts=low, max_rollouts=high).variance_ratio for low, high in bounds]
    assert by_bounds.split("|")[2:-1] == [f" {text(ratio)} " for ratio in ratios]
    live = [np.concatenate([np.linspace(0.05, 0.95, n), np.zeros(64 - n)]) for n in (64, 48, 32, 16, 8)]
    ratios = [viprl.allocate(p, budget=512, min_rollouts=2, max_rollouts=48).variance_ratio for p in live]
    assert by_share.split("|")[2:-1] == [f" {text(ratio)} " for ratio in ratios]


def laws(_: Path, *_unused: Any) -> dict[str, Any]:
    from viprl.analysis.gradient_variance import VarianceLaw

    scores = RNG.normal(size=(64, 8)) * RNG.random((64, 1))
    cross = scores @ scores.T
    squared = np.diag(cross).copy()
    return {"laws": VarianceLaw(A=4 * squared, B=squared, squared_gradient=squared), "cross": cross}


def check_laws(names: dict[str, Any], values: list[Any]) -> None:
    assert 0.2 < names["mine"].total / names["even"].total < 1
    assert values[-1] == pytest.approx(0.875)


def check_equal(name: str, expected: Any) -> Callable[[dict[str, Any], list[Any]], None]:
    def check(names: dict[str, Any], _: list[Any]) -> None:
        np.testing.assert_array_equal(eval(name, names), expected)

    return check


def check_waves(names: dict[str, Any], _: list[Any]) -> None:
    assert sum(map(len, names["first"])) < 1024 == sum(map(len, names["rewards"])) == len(names["advantages"])


def check_spending(names: dict[str, Any], values: list[Any]) -> None:
    if "args" in names:
        assert names["args"].vip_spend == "match"
    assert values[-1].counts @ [1, 3, 3, 1] <= 60


def check_concepts(names: dict[str, Any], _: list[Any]) -> None:
    assert names["plan"].counts.tolist() == [17, 11, 2, 2]
    assert names["plan"].variance_ratio == pytest.approx(0.51, abs=0.005)
    assert len(names["advantages"]) == 10


def check_selecting(names: dict[str, Any], _: list[Any]) -> None:
    assert names["selection"].allocation.counts.sum() == 128 == len(names["advantages"])
    if "args" in names:
        assert names["args"].vip_candidates == 2


def puzzles(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """reasoning-gym, or rows in its form."""
    if not importlib.util.find_spec("reasoning_gym"):
        rows = [{"question": f"{i} + {i} = ?", "answer": str(2 * i), "metadata": {}} for i in range(1_000)]
        patch.setattr("viprl.data.gym._generator", lambda *_: rows)
    return {}


def check_rows(names: dict[str, Any], _: list[Any]) -> None:
    from viprl.utils.json_lines import read_json_lines

    assert len(list(read_json_lines(Path("held_out.jsonl")))) == 200


TINY_RUN = (
    ('"Qwen/Qwen2.5-0.5B-Instruct"', '"model"'),
    (
        "gradient_accumulation_steps=4)",
        "gradient_accumulation_steps=4, max_steps=1, max_completion_length=4, use_cpu=True, bf16=False)",
    ),
)
SETTINGS = {
    "CONTRIBUTING.md": Setting(check=check_contracts),
    "README.md": Setting(readme, needs={0: "trl"}, changes={0: TINY_RUN}, check=readme_trained),
    "docs/api.md": Setting(),
    "docs/baselines.md": Setting(check=check_equal("list(vip.strategies)", ["uniform", "default", "greso", "beta"])),
    "docs/choosing.md": Setting(check=check_choosing),
    "docs/concepts.md": Setting(check=check_concepts),
    "docs/data.md": Setting(puzzles, needs={0: "datasets"}, check=check_rows),
    "docs/engines.md": Setting(engine, check=check_engine),
    "docs/index.md": Setting(check=check_equal("plan.counts[:4]", [15, 4, 4, 7])),
    "docs/predictors.md": Setting(predictors, check=check_predictors),
    "docs/replay.md": Setting(replaying, needs={0: "pyarrow"}, check=check_replaying),
    "docs/selection.md": Setting(selecting, needs={0: "trl"}, check=check_selecting),
    "docs/spending.md": Setting(on_a_cpu, needs={0: "trl"}, check=check_spending),
    "docs/trl.md": Setting(on_a_cpu, needs={0: "trl", 1: "trl", 2: "trl"}),
    "docs/variance.md": Setting(laws, check=check_laws),
    "docs/waves.md": Setting(waves, check=check_waves),
}


def test_every_page_with_python_has_a_setting() -> None:
    assert {page for page in PAGES if blocks(page, "python")} <= set(SETTINGS) | set(ELSEWHERE)
    for test in ELSEWHERE.values():
        assert (documentation.ROOT / test).is_file()


@pytest.fixture(autouse=True)
def without_embeddings(monkeypatch):
    """As if sentence-transformers were not installed: its model takes seconds to load."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "sentence_transformers" else find(name, *rest)
    )
    encoders.auto_features.cache_clear()
    yield
    encoders.auto_features.cache_clear()


@pytest.mark.parametrize("page", SETTINGS)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VIPRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state  # whatever ran before
    setting = SETTINGS[page]
    found = blocks(page, "python")
    missing = {i for i, package in setting.needs.items() if importlib.util.find_spec(package) is None}
    if missing == set(range(len(found))) and missing:
        pytest.skip(f"needs {', '.join(set(setting.needs.values()))}")
    names = setting.given(tmp_path, monkeypatch)
    values = [
        documentation.run(block, names, setting.changes.get(i, ())) for i, block in enumerate(found) if i not in missing
    ]
    setting.check(names, values)
