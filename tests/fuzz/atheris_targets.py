"""Coverage-guided fuzzing of everything that is parsed: `python tests/fuzz/atheris_targets.py [SECONDS] [TARGET ...]`.

Needs `pip install atheris`; without it the script says so and ends. Each target runs SECONDS (default 60) in a process
of its own, from a few sound files that are written on the fly. An exception that is not one of `viprl.errors`, a case
of more than a minute and more than 2 GiB of memory are faults; the input is kept in the folder that is printed. Exit
code 1 with a fault.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 60
Target = tuple[Callable[[bytes], Any], list[bytes]]
"""What is done with the content of a file, and contents to start from."""


def targets(folder: Path) -> dict[str, Target]:
    """Every parser. `folder` is for the files."""
    import numpy as np
    import pyarrow as pa
    import test_fuzz_files as sound
    from pyarrow import parquet

    from viprl.data.gym_answers import final_answer, may_be_checked
    from viprl.data.loading import DataSource, load
    from viprl.errors import ViprlError
    from viprl.evaluate.generations import read_generations
    from viprl.features.vector_file import KEY, VectorFile, VectorFileError
    from viprl.report.diagnosis import diagnose
    from viprl.rewards.grading import extract, inequalities, notation, quick_verdict, rationals
    from viprl.runs.engine_logs import from_trl, from_verl, read_history
    from viprl.runs.reader import load_run
    from viprl.runs.resume import RunFolder, last_checkpoint, read_record
    from viprl.train.config import load_config
    from viprl.utils import state_file
    from viprl.utils.json_lines import read_json_lines
    from viprl.vip import STATE_KIND, STATE_VERSION, VIP

    def at(name: str, data: bytes) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def written(rows: list[dict[str, Any]]) -> bytes:
        target = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(rows), target)
        return target.getvalue().to_pybytes()

    def run_folder(name: str) -> Callable[[bytes], None]:
        def read(data: bytes) -> None:
            at(f"run/{name}", data)
            run = load_run(folder / "run")
            run.prompts()
            for strategy in run.strategies:
                diagnose(run, strategy)

        (folder / "run").mkdir(exist_ok=True)
        at("run/metrics.jsonl", sound.lines(sound.METRICS))
        return read

    def checkpoint(data: bytes) -> None:
        path = at("resumed/checkpoint-2/trainer_state.json", data)
        if last_checkpoint(path.parents[1]) is not None:
            RunFolder(path.parents[1], {}).at_end(path.parent, max_steps=0, num_train_epochs=1.0)

    def vectors(name: str) -> Callable[[bytes], None]:
        def read(data: bytes) -> None:
            for old in (folder / "cache").glob("*"):
                old.write_bytes(sound_cache[old.suffix])
            at(f"cache/one.{name}", data)
            file = VectorFile(folder / "cache" / "one")
            with contextlib.suppress(VectorFileError):  # `FeatureCache` then works in memory
                rows = file.find(keys)
                file.load(keys, rows)
                file.append([b"n" * KEY], np.ones((1, 3)))

        return read

    def answer(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for find in (extract.boxed, extract.last_number, final_answer):
            find(text)
        cleaned = notation.cleaned(extract.whole(text))
        inequalities.region(cleaned)
        rationals.number(cleaned)
        assert quick_verdict.quick_verdict(cleaned, cleaned) is not False
        may_be_checked(text, "4", lambda answer, entry: eval(answer))

    vip = VIP(features="none", cache=None)
    vip.observe(["a", "b"], [[0, 1], [1, 1]])
    vip.save(folder / "state")
    keys = [bytes([i]) * KEY for i in range(3)]
    (folder / "cache").mkdir(exist_ok=True)
    VectorFile(folder / "cache" / "one").append(keys, np.arange(9.0).reshape(3, 3))
    sound_cache = {file.suffix: file.read_bytes() for file in (folder / "cache").glob("*")}
    config = b"model: m\ndataset: d.jsonl\noutput_dir: o\nvip_min_rollouts: 2\npeft: {r: 8}\na: &x [1]\nb: *x\n"
    chat = [{"role": "user", "content": "x"}]
    rows = [{"prompt": "What is 2 + 2?", "solution": "4"}, {"prompt": chat, "solution": 1.5}]
    generations = [{"id": "1", "answer": "4", "completions": ["x", "\\boxed{4}"]}]
    kind = {"kind": STATE_KIND, "version": STATE_VERSION}
    found: dict[str, Target] = {
        "state": (lambda data: state_file.load(at("s", data), **kind), [(folder / "state").read_bytes()]),
        "json_lines": (
            lambda data: [list(read_json_lines(at("l", data), bad=bad)) for bad in (lambda *_: None, None)],
            [sound.lines(sound.OUTCOMES), sound.packed(sound.OUTCOMES)],
        ),
        "history": (lambda data: read_history(at("h.jsonl", data)), [sound.lines(sound.HISTORY)]),
        "metrics": (run_folder("metrics.jsonl"), [sound.lines(sound.METRICS)]),
        "summary": (run_folder("summary.json"), [sound.document(sound.SUMMARY)]),
        "outcomes": (run_folder("outcomes.jsonl"), [sound.lines(sound.OUTCOMES)]),
        "prompts": (run_folder("prompts.jsonl"), [sound.lines(sound.PROMPTS)]),
        "run_settings": (run_folder("config.yaml"), [sound.SETTINGS, config]),
        "record": (lambda data: read_record(at("record/config.yaml", data).parent), [sound.SETTINGS, config]),
        "trainer_state": (checkpoint, [sound.document(sound.TRAINER)]),
        "verl_dump": (lambda data: from_verl(at("verl/1.jsonl", data).parent), [sound.lines(sound.VERL)]),
        "trl_completions": (lambda data: from_trl(at("trl/completions_1.parquet", data).parent), [written(sound.TRL)]),
        "history_parquet": (
            lambda data: read_history(at("h.parquet", data)),
            [written([{"id": "1", "prompt": "a", "rollouts": 8, "successes": [3]}])],
        ),
        "config": (lambda data: load_config(at("c.yaml", data)), [config]),
        "data_jsonl": (lambda data: load(DataSource(str(at("d.jsonl", data)))), [sound.lines(rows[:1])]),
        "data_json": (lambda data: load(DataSource(str(at("d.json", data)))), [json.dumps(rows).encode()]),
        "data_parquet": (lambda data: load(DataSource(str(at("d.parquet", data)))), [written(rows[:1])]),
        "generations": (lambda data: read_generations(at("g.jsonl", data)), [sound.lines(generations)]),
        "keys": (vectors("keys"), [sound_cache[".keys"]]),
        "vectors": (vectors("vectors"), [sound_cache[".vectors"]]),
        "answers": (
            answer,
            [text.encode() for text in ("\\boxed{\\frac{1}{2}}", "#### 1,000", "x > 3 or x ≤ 1", "2½", "1e5")],
        ),
    }

    def guarded(do: Callable[[bytes], Any]) -> Callable[[bytes], None]:
        def one(data: bytes) -> None:
            with contextlib.suppress(ViprlError):
                do(bytes(data))

        return one

    return {name: (guarded(do), seeds) for name, (do, seeds) in found.items()}


def fuzz_one(name: str, seconds: int, folder: Path) -> None:
    """Run one target in this process, which ends with it."""
    import atheris

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent))
    with atheris.instrument_imports(include=["viprl"], enable_loader_override=False):
        do, seeds = targets(folder)[name]
        for seed in seeds:  # imports what is imported late, such as TRL
            do(seed)
    corpus = folder / "corpus"
    corpus.mkdir()
    for at, seed in enumerate(seeds):
        (corpus / str(at)).write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=2048", "-max_len=4096", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/fault-", str(corpus)], do)
    atheris.Fuzz()


def main(words: list[str]) -> int:
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed, so parsers are not fuzzed by coverage: pip install atheris")
        return 0
    seconds = int(words.pop(0)) if words and words[0].isdecimal() else SECONDS
    if len(words) == 2 and words[0] == "--one":
        fuzz_one(words[1], seconds, Path(os.environ["VIPRL_FUZZ_FOLDER"]))
    with tempfile.TemporaryDirectory() as place:
        sys.path.insert(0, str(Path(__file__).parent))
        names = words or list(targets(Path(place)))
    return int(sum(fuzz_apart(name, seconds) for name in names) > 0)


def fuzz_apart(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own and print what came of it. Returns: whether there was a fault."""
    folder = Path(tempfile.mkdtemp(prefix=f"viprl-fuzz-{name}-"))
    command = [sys.executable, __file__, str(seconds), "--one", name]
    environment = os.environ | {"VIPRL_FUZZ_FOLDER": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    executions = max(map(int, re.findall(r"^#(\d+)\s", done.stderr, re.MULTILINE)), default=0)
    coverage = max(map(int, re.findall(r"\bcov: (\d+)", done.stderr)), default=0)
    what = f"fault, kept in {folder}" if done.returncode else "no fault"
    print(f"{name:16} {executions:>9,} executions, coverage {coverage:>5}: {what}", flush=True)
    if done.returncode:
        print("\n".join(f"  {line}" for line in (done.stdout + done.stderr).splitlines()[-30:]), flush=True)
    else:
        shutil.rmtree(folder)
    return bool(done.returncode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
