"""`viprl variance` on the command line."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import yaml
from typer.testing import CliRunner

import tiny
from viprl import VIP
from viprl.analysis import designs, laboratory
from viprl.cli import app
from viprl.errors import InputError
from viprl.utils.json_lines import write_json_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("variance")
    tiny.save(place / "model")
    write_json_lines(place / "data.jsonl", [row | {"id": str(i)} for i, row in enumerate(tiny.dataset(12).to_list())])
    return place


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(laboratory, "RESAMPLES", 10)
    monkeypatch.setattr(designs, "BATCHES", 16)


def run(*options):
    return CliRunner().invoke(app, ["variance", *map(str, options)])


SMALL = ["--prompts", 8, "--rollouts", 8, "--further-rollouts", 8, "--max-new-tokens", 2]
STEP = ["--step-prompts", 4, "--step-rollouts", 16]


def test_a_model_folder(folder):
    options = ["--model", folder / "model", "--dataset", folder / "data.jsonl", "--reward", "tiny:contains"]
    result = run(*options, *SMALL, *STEP, "--json", folder / "out" / "all.json")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "out" / "all.json").read_text())
    assert set(found["designs"]) == {"uniform", "counts", "match", "selection"}
    assert found["designs"]["uniform"]["R"]["value"] == 1
    total = found["designs"]["counts"]["share_of_uniform"]["total"]
    assert total == found["designs"]["counts"]["R"] and f"{total['value']:.2f}" in result.output
    assert found["pool"] == 12 and len(found["prompts"]) == 8
    assert found["step"] == {
        "prompts": 4, "budget": 16, "candidates": 8, "min_rollouts": 2, "max_rollouts": 24, "floor": 0.05
    }  # fmt: skip


def test_a_run_folder_gives_what_is_not_given(folder):
    """Data, reward, temperature, lengths, the step, its bounds, and the strategy with its state."""
    run_folder = folder / "run"
    checkpoint = run_folder / "checkpoint-3"
    tiny.save(checkpoint)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 3}))
    options = {"strategy": "default", "features": "none", "min_rollouts": 2, "max_rollouts": 12}
    vip = VIP(**options)
    vip.observe([{"id": "0", "prompt": "a a"}, {"id": "1", "prompt": "a b"}], [[1, 0, 1, 0], [0, 0, 0, 0]])
    vip.save(checkpoint / "vip_state.safetensors")
    record = {"model": "m", "output_dir": "o", "dataset": str(folder / "data.jsonl"), "reward": "tiny:contains"}
    record |= {"generation_batch_size": 24, "num_generations": 4, "temperature": 1.5, "max_completion_length": 3}
    record |= {f"vip_{name}": value for name, value in options.items()} | {"vip_id_column": "id"}
    (run_folder / "config.yaml").write_text(yaml.safe_dump(record))
    out = folder / "run.json"
    result = run("--model", run_folder, *SMALL[:-2], "--json", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert set(found["designs"]) == {"uniform", "default (of the run)", "counts", "match", "selection"}
    assert found["settings"]["temperature"] == 1.5 and found["settings"]["max_new_tokens"] == 3
    assert found["settings"]["reward"] == ["tiny:contains"]
    assert {key: found["step"][key] for key in ("prompts", "budget", "max_rollouts")} == {
        "prompts": 6, "budget": 24, "max_rollouts": 12
    }  # fmt: skip
    assert 0 < found["designs"]["default (of the run)"]["rho"]["value"] < 3


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ((), "--dataset"),
        (("--dataset", "DATA", "--step-prompts", 9, "--step-rollouts", 36), "--step-prompts"),
        (("--dataset", "DATA", "--prompts", 40, "--step-prompts", 13, "--step-rollouts", 52), "has 12 prompts"),
        (("--dataset", "DATA", "--reward", "contains"), "'contains'"),
        (("--dataset", "DATA", "--rollouts", 2), "at least 4"),
        (("--dataset", "DATA", "--step-rollouts", 6), "6"),
        (("--dataset", "DATA", "--candidates", 2), "--candidates"),
        (("--dataset", "DATA", "--reward", ","), "--reward"),
    ],
)
def test_unusable_options(folder, options, keys):
    given = [str(folder / "data.jsonl") if option == "DATA" else option for option in options]
    result = run("--model", folder / "model", *SMALL, *STEP, *given)
    with pytest.raises(InputError, match=keys):
        raise result.exception
