"""`viprl init`: a configuration that passes the check of `viprl train`."""

from __future__ import annotations

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')
pytest.importorskip("math_verify", reason='needs pip install "viprl[eval]"')

import tiny
from refused import refused
from viprl.data import DataSource
from viprl.errors import DataError, FileError, ViprlError
from viprl.settings import EngineSettings, options
from viprl.train.config import load_config
from viprl.train.dry_run import dry_run
from viprl.train.starter import suggest, write_starter
from viprl.utils.json_lines import write_json_lines


@pytest.fixture
def model(tmp_path) -> str:
    return str(tiny.save(tmp_path / "model"))


def source(tmp_path, rows: list[dict], **given) -> DataSource:
    write_json_lines(tmp_path / "rows.jsonl", rows)
    return DataSource(str(tmp_path / "rows.jsonl"), **given)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        ([{"prompt": f"a {i}", "solution": "a b"} for i in range(40)], {}, ("exact_match", 16)),
        ([{"prompt": f"a {i}", "solution": f"{i:,}.5"} for i in range(5)], {}, ("math_last_number", 4)),
        ([{"prompt": f"a {i}", "solution": f"{i}x^2"} for i in range(3)], {}, ("math", 2)),
        (
            [{"ask": f"a {i}", "say": "b"} for i in range(9)],
            {"prompt_column": "ask", "solution_column": "say"},
            ("exact_match", 8),
        ),
    ],
)
def test_the_file_passes_the_check(tmp_path, model, rows, columns, expected):
    file = tmp_path / "new" / "mine.yaml"
    write_starter(file, source(tmp_path, rows, **columns), model, str(tmp_path / "run"))
    config = load_config(file)
    reward, prompts = expected
    assert config.reward == [reward] and config.trainer["per_device_train_batch_size"] == prompts * 8
    facts = dict(dry_run(config))
    assert facts["batch"].startswith(f"{prompts} prompts, {prompts * 8} rollouts")
    with refused(FileError, file, "exists"):
        write_starter(file, source(tmp_path, rows, **columns), model, "run")


def test_every_option_of_vip_is_explained(tmp_path, model):
    file = tmp_path / "mine.yaml"
    write_starter(file, DataSource("gsm8k"), model, "run")
    text = file.read_text()
    for option in options(EngineSettings, without=("estimator", "seed")):
        assert f"# vip_{option.name}: " in text
    uncommented = yaml.safe_load(text.replace("# vip_", "vip_"))
    assert uncommented["vip_strategy"] == "default" and uncommented["vip_success"] is None
    assert uncommented["learning_rate"] == "1e-6" and uncommented["reward"] == "math_last_number"


def test_own_rewards_and_data_that_are_not_read(tmp_path, model):
    assert suggest(DataSource("aime24"), model, "mine:f").reward == "mine:f"
    assert suggest(DataSource("someone/data"), "someone/model").notes
    assert suggest(DataSource("reasoning-gym:chain_sum"), model).reward == "viprl.data.gym:solved"


@pytest.mark.parametrize(
    ("name", "kind"), [("no/file.jsonl", FileError), ("nofile", FileError), ("./no/folder", ViprlError)]
)
def test_data_that_do_not_exist(tmp_path, monkeypatch, model, name, kind):
    monkeypatch.chdir(tmp_path)
    with refused(kind, name):
        write_starter(tmp_path / "mine.yaml", DataSource(name), model, "run")
    assert not (tmp_path / "mine.yaml").exists()


def test_columns_that_are_not_known(tmp_path, model):
    with refused(DataError, "ask, say", "prompt_column"):
        write_starter(tmp_path / "m.yaml", source(tmp_path, [{"ask": "a", "say": "b"}]), model, "run")
