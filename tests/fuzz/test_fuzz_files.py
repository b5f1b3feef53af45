"""Files that are damaged, or hold other JSON values than their writer writes: read, left out or refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import damaged, fuzz, json_values, mutated, or_refused
from hypothesis import strategies as st

from viprl.report.diagnosis import diagnose
from viprl.runs import reader
from viprl.runs.engine_logs import from_trl, from_verl, read_history
from viprl.runs.history import PromptHistory
from viprl.runs.reader import load_run
from viprl.utils import state_file
from viprl.vip import STATE_KIND, STATE_VERSION, VIP

HISTORY = [
    {"id": "7", "prompt": "a", "rollouts": 8, "successes": [3, 5], "lengths": [[1, 2, 3, None, 5, 6, 7, 8]] * 2},
    {"id": 8, "prompt": [{"role": "user", "content": "b"}], "rewards": [[0.1, 1.0, None], [1.0]], "ground_truth": "4"},
    {"prompt": "c", "rollouts": [2, 2], "successes": [0, 2], "ground_truth": {"x": 1}},
]
METRICS = [
    {
        "strategy": "default",
        "seed": 0,
        "step": step,
        "rollouts": 8 * step,
        "reward": 0.5,
        "vip/variance_ratio/realised": 0.8,
        "vip/variance_ratio/predicted": 0.7,
        "vip/counts/mean": 8.0,
        "vip/counts/min": 2.0,
        "vip/counts/max": 16.0,
        "vip/frac_zero_advantage_rollouts": 0.3,
        "vip/shadow/paper/variance_ratio/realised": 0.9,
    }
    for step in (1, 2, 3)
]
SUMMARY = {
    "settings": {"prompts": 8, "budget": 64},
    "calibration": [{"predicted": 0.5, "true": 0.4, "count": 8, "visits": 2}],
    "variance": [{"strategy": "default", "seed": 0, "step": 0, "ratio": 0.7}],
}
OUTCOMES = [
    {"step": 1, "ids": ["id:7", "sha:x"], "counts": [2, 2], "successes": [1, 0], "scorable": [2, 2]},
    {
        "step": 2,
        "ids": ["id:7"],
        "counts": [2],
        "successes": [None],
        "scorable": [2],
        "rewards": [[0.5, 1.0]],
        "lengths": [[3.0, None]],
    },
]
PROMPTS = [{"step": 1, "id": "id:7", "prompt": "a"}, {"step": 1, "id": "sha:x", "prompt": "b"}]
VERL = [
    {"input": "a", "output": "x", "score": 1.0, "step": 1, "gts": "4", "uid": "u_0_0", "acc": True},
    {"input": "a", "output": "yy", "score": 0.0, "step": 1, "gts": "4", "uid": "u_1_0", "acc": False},
    {"input": "b", "output": "zz", "score": "0.5", "step": 1, "gts": None, "uid": "v_0_0", "response_length": 3},
]
TRL = [
    {"step": 1, "prompt": "a", "completion": "x", "advantage": 0.5, "accuracy": 1.0},
    {"step": 1, "prompt": "a", "completion": "yy", "advantage": -0.5, "accuracy": 0.0},
]
TRAINER = {
    "global_step": 2,
    "log_history": [
        {"step": 1, "loss": 0.1, "reward": 0.5, "vip/counts/min": 2.0, "vip/counts/max": 4.0},
        {"step": 2, "loss": 0.1, "reward": 0.5},
    ],
}
SETTINGS = b"vip_min_rollouts: 2\nvip_max_rollouts: 8\ntrainer:\n  learning_rate: 1e-5\n"


def lines(rows: Any) -> bytes:
    """JSON lines; whatever is no list of rows becomes one line."""
    rows = rows if isinstance(rows, list) else [rows]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def document(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def content(draw: Callable, value: Any, write: Callable[[Any], bytes] = lines) -> bytes:
    """A file with other values, or with other bytes, or as it should be."""
    kind = draw(st.sampled_from(["values", "values", "bytes", "right"]))
    if kind == "values":
        return write(draw(mutated(value)))
    return draw(damaged(write(value))) if kind == "bytes" else write(value)


def packed(value: Any) -> bytes:
    return gzip.compress(lines(value), mtime=0)


def check_histories(histories: list[PromptHistory]) -> None:
    for history in histories:
        assert history.rollouts.shape == history.successes.shape
        assert (history.rollouts >= 1).all()
        known = ~np.isnan(history.successes)
        assert (history.successes[known] >= 0).all()
        for visit, n in zip(history.rewards or (), history.rollouts, strict=False):
            assert len(visit) == n
            assert np.isfinite(visit).all()


def learn(histories: list[PromptHistory]) -> None:
    """What a warm start makes of them."""
    vip = VIP(features="none", cache=None)
    with or_refused():
        vip.observe_histories(histories)
    assert np.isfinite(vip.allocate(["a", "b"], 12).expected_variance)


def folder(factory: pytest.TempPathFactory, files: dict[str, bytes | None]) -> Path:
    """A folder with these files and no others."""
    place = factory.getbasetemp() / "fuzzed"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    for name, data in files.items():
        if data is not None:
            (place / name).write_bytes(data)
    return place


@fuzz(data=st.one_of(content(HISTORY), content(HISTORY, packed), st.binary(max_size=300)), packed=st.booleans())
def test_history_files(tmp_path_factory: pytest.TempPathFactory, data: bytes, packed: bool) -> None:
    name = "other.jsonl.gz" if packed else "other.jsonl"
    with or_refused() as refused:
        found = read_history(folder(tmp_path_factory, {name: data}) / name)
    if not refused:
        check_histories(found)
        learn(found)


@fuzz(
    visits=st.lists(st.tuples(st.integers(1, 10**12), st.floats(0, 1)), min_size=1, max_size=4),
    lengths=st.none() | st.just([[1, 2, None]]),
)
def test_huge_counts(tmp_path_factory: pytest.TempPathFactory, visits: list[tuple[int, float]], lengths: Any) -> None:
    """Counts up to 10^12 are read, learned from and totalled without an array of that length."""
    n, k = [n for n, _ in visits], [int(n * share) for n, share in visits]
    row = {"prompt": "a", "rollouts": n, "successes": k} | ({} if lengths is None else {"lengths": lengths})
    with or_refused() as refused:
        found = read_history(folder(tmp_path_factory, {"log.jsonl": lines([row])}) / "log.jsonl")
    if not refused:
        total = reader.PromptTotal.of(found[0])
        assert (total.rollouts, total.successes) == (sum(n), sum(k))
        assert total.reward_mean == pytest.approx(sum(k) / sum(n))
        vip = VIP(features="none", cache=None)
        with or_refused():
            vip.observe_histories(found)
        assert np.isfinite(vip.allocate(["a", "b"], 12).expected_variance)


@fuzz(
    metrics=content(METRICS),
    summary=st.none() | content(SUMMARY, document),
    history=st.none() | content(HISTORY, packed),
    outcomes=st.none() | content(OUTCOMES),
    prompts=st.none() | content(PROMPTS),
    settings=st.none() | damaged(SETTINGS),
)
def test_run_folders(tmp_path_factory: pytest.TempPathFactory, **files: bytes | None) -> None:
    names = ("metrics.jsonl", "summary.json", "history.jsonl.gz", "outcomes.jsonl", "prompts.jsonl", "config.yaml")
    place = folder(tmp_path_factory, dict(zip(names, files.values(), strict=True)))
    check_run(place)
    with or_refused() as refused:
        found = read_history(place)
    if not refused:
        check_histories(found)


def check_run(place: Path) -> None:
    with or_refused() as refused:
        run = load_run(place)
    if refused:
        return
    check_histories(list(run.history))
    assert run.logging_steps >= 1
    run.calibration()
    run.prompts()
    for strategy in run.strategies:
        run.shadows(strategy)
        diagnose(run, strategy)


@fuzz(state=content(TRAINER, document))
def test_states_of_trainers(tmp_path_factory: pytest.TempPathFactory, state: bytes) -> None:
    check_run(folder(tmp_path_factory, {"trainer_state.json": state}))


@fuzz(one=content(VERL), two=content(VERL), reward=st.sampled_from([None, "acc", "score>=0.5", "none", ">=", "acc>="]))
def test_dumps_of_verl(tmp_path_factory: pytest.TempPathFactory, one: bytes, two: bytes, reward: str | None) -> None:
    with or_refused() as refused:
        found = from_verl(folder(tmp_path_factory, {"1.jsonl": one, "2.jsonl": two}), reward=reward)
    if not refused:
        check_histories(found)
        learn(found)


@fuzz(data=st.data(), reward=st.sampled_from([None, "accuracy", "accuracy>=0.5", "none"]))
def test_completions_of_trl(tmp_path_factory: pytest.TempPathFactory, data: Any, reward: str | None) -> None:
    place = folder(tmp_path_factory, {})
    file = place / "completions_1.parquet"
    file.write_bytes(parquet(data.draw, TRL))
    with or_refused() as refused:
        found = from_trl(place, reward=reward)
    if not refused:
        check_histories(found)


def parquet(draw: Callable, rows: list[dict[str, Any]]) -> bytes:
    """A parquet file of mutated rows, or a damaged one."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    def written(rows: Any) -> bytes:
        target = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), target)
        return target.getvalue().to_pybytes()

    try:
        data = written(draw(mutated(rows)))
    except Exception:  # rows that are no table
        data = written(rows)
    return draw(damaged(data)) if draw(st.booleans()) else data


@fuzz(data=content({"a": 1}, document) | st.binary(max_size=200) | damaged(b"\x40\0\0\0\0\0\0\0" + b"{}" + b" " * 62))
def test_state_files_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with or_refused() as refused:
        state_file.load(folder(tmp_path_factory, {"state": data}) / "state", kind=STATE_KIND, version=STATE_VERSION)
    assert refused


@fuzz(document=json_values, tensors=st.dictionaries(st.text(max_size=3), st.just(np.ones(2)), max_size=2))
def test_documents_of_states(tmp_path_factory: pytest.TempPathFactory, document: Any, tensors: dict[str, Any]) -> None:
    """Files with the right checksum, which another program wrote."""
    import safetensors.numpy

    text = np.frombuffer(json.dumps(document).encode() or b" ", dtype=np.uint8)
    content = {"document": text, **tensors}
    header = {"format": "viprl-state-1", "kind": STATE_KIND, "version": str(STATE_VERSION)}
    try:
        header["checksum"] = state_file._checksum(content)
        data = safetensors.numpy.save(content, header)
    except Exception:  # names that safetensors refuses
        return
    vip = VIP(features="none", cache=None)
    with or_refused() as refused:
        vip.load(folder(tmp_path_factory, {"state": data}) / "state")
    assert refused
