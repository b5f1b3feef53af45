"""Everything that writes files: disks that fail, for each error and each writer; and no writer is forgotten."""

from __future__ import annotations

import ast
import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import viprl
from vip_steps import vip
from viprl.errors import FileError
from viprl.features.cache import FeatureCache
from viprl.runs.history import PromptHistory, save_history
from viprl.runs.prompt_texts import PromptTexts
from viprl.runs.resume import copy_model
from viprl.runs.run_log import RunLog, only_writer
from viprl.utils.claim import claim

SOURCE = Path(viprl.__file__).parent
ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO)


class Full:
    """A file to which nothing can be written any more."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, *_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without the name, as from a system


def break_disk(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int) -> None:
    """Let the disk of a folder fail, for root too. Reading works; a full disk can be opened, and not be written."""

    def inside(path: Any) -> bool:
        return isinstance(path, str | Path) and Path(path).absolute().is_relative_to(folder)

    def fails(function: Callable[..., Any]) -> Callable[..., Any]:
        def failing(path: Any, *given: Any, **named: Any) -> Any:
            if inside(path):
                raise OSError(code, os.strerror(code), str(path))
            return function(path, *given, **named)

        return failing

    opens = io.open

    def opening(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        writes = inside(file) and set(mode) & set("wax+")
        if writes and code != errno.ENOSPC:
            raise OSError(code, os.strerror(code), str(file))
        opened = opens(file, mode, *given, **named)
        return Full(opened) if writes else opened

    monkeypatch.setattr(io, "open", opening)
    monkeypatch.setattr(builtins, "open", opening)
    for name in ("mkdir", "rename", "replace"):
        monkeypatch.setattr(os, name, fails(getattr(os, name)))
    if code != errno.ENOSPC:  # a full disk lets files be deleted
        monkeypatch.setattr(os, "unlink", fails(os.unlink))


# --- the writers: functions from a folder to the action that fails ---------------------------------------------------

History = PromptHistory("a", "a", np.array([2.0]), np.array([1.0]))
Writer = Callable[[Path], Callable[[], object]]


def a_log(folder: Path) -> RunLog:
    return RunLog(folder, strategy="default", seed=0)


def rewound_log(folder: Path) -> Callable[[], object]:
    log = a_log(folder)
    log.metrics(1, {"reward": 0.5})
    return lambda: log.rewind(0)


def appended(folder: Path) -> Callable[[], object]:
    log = a_log(folder)
    return lambda: log.outcomes(1, ["a"], [2], [1.0], [2.0])


def metrics(folder: Path) -> Callable[[], object]:
    log = a_log(folder)
    return lambda: log.metrics(1, {})


def lock(folder: Path) -> Callable[[], object]:
    def locks() -> None:
        with only_writer(folder):
            pass

    return locks if os.name == "posix" else lambda: None


def copied(folder: Path) -> Callable[[], object]:
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "model.safetensors").write_bytes(b"weights")
    return lambda: copy_model(folder / "checkpoint-1", folder / "final")


def generations(folder: Path) -> Callable[[], object]:
    evaluate = pytest.importorskip("viprl.evaluate.generations")
    problem = evaluate.Generations("a", "1", ["x"])
    store = evaluate.Store(folder / "generations.jsonl")
    return lambda: store.append(problem)


def cut_generations(folder: Path) -> Callable[[], object]:
    evaluate = pytest.importorskip("viprl.evaluate.generations")
    (folder / "generations.jsonl").write_bytes(b'{"id"')
    return lambda: evaluate.Store(folder / "generations.jsonl")


def results(what: str) -> Writer:
    def writes(folder: Path) -> Callable[[], object]:
        written = pytest.importorskip("viprl.evaluate.results")
        scores = SimpleNamespace(metrics={}, problems=[{"id": "a"}], unscorable=[], n=1)
        where = {"json_file": folder / "m.json", "out": None} if what == "json" else {"json_file": None, "out": folder}
        return lambda: written.write_results(scores, {}, **where)

    return writes


def parquet(folder: Path) -> Callable[[], object]:
    export = pytest.importorskip("viprl.data.export")
    return lambda: export.write_parquet(folder / "train.parquet", [{"prompt": "a"}])


def drawing(folder: Path) -> Callable[[], object]:
    pytest.importorskip("matplotlib")
    from viprl.report.canvas import canvas, save

    figure, _ = canvas()
    return lambda: save(figure, folder, "figure")


def report(folder: Path) -> Callable[[], object]:
    pytest.importorskip("matplotlib")
    from viprl.report.run_report import write_report

    a_log(folder).metrics(1, {"reward": 0.5})
    return lambda: write_report([folder], folder / "report.html")


def comparison(folder: Path) -> Callable[[], object]:
    pytest.importorskip("matplotlib")
    from rich.console import Console

    from viprl.report.comparison import compare

    a_log(folder / "run").metrics(1, {"reward": 0.5})
    runs = [("mine", 0, folder / "run")]
    return lambda: compare(folder, runs, "mine", {}, Console(file=io.StringIO()))


def replayed(what: str) -> Writer:
    def writes(folder: Path) -> Callable[[], object]:
        pytest.importorskip("matplotlib")
        from rich.console import Console

        from viprl.report.replay_command import run_replay

        n = np.full(2, 4.0)
        save_history(folder / "h.jsonl", [PromptHistory(str(i), str(i), n, n * (i % 2)) for i in range(8)])
        options: dict[str, Any] = {"features": None, "console": Console(file=io.StringIO())}
        options |= {"json_file": folder / "n.json"} if what == "json" else {"report": folder / "page"}
        given = {"seeds": 1, "batch_size": 8, "visits": 2}
        return lambda: run_replay(folder / "h.jsonl", ["uniform"], given, **options)

    return writes


def starter(folder: Path) -> Callable[[], object]:
    pytest.importorskip("datasets")
    from viprl.data.loading import DataSource
    from viprl.train.starter import write_starter

    (folder / "data.jsonl").write_text('{"prompt": "1+1?", "solution": "2"}\n' * 4)
    source = DataSource(str(folder / "data.jsonl"))
    return lambda: write_starter(folder / "run" / "run.yaml", source, "no/model", "runs/a")


def sweep_process(folder: Path) -> Callable[[], object]:
    pytest.importorskip("yaml")
    from rich.console import Console

    from viprl.train.processes import Training, run_trainings
    from viprl.utils.progress import progress_bars

    training = Training("a", folder / "a", {"output_dir": str(folder / "a"), "max_steps": 1})

    def runs() -> None:
        with progress_bars(Console(file=io.StringIO())) as bars:
            list(run_trainings([training], bars, jobs=1))

    return runs


WRITERS: dict[str, Writer] = {
    "VIP.save": lambda folder: lambda: vip().save(folder / "vip.state"),
    "VIP.save in a new folder": lambda folder: lambda: vip().save(folder / "checkpoint-1" / "vip.state"),
    "history": lambda folder: lambda: save_history(folder / "history.jsonl.gz", [History]),
    "run folder": lambda folder: lambda: a_log(folder / "run"),
    "metrics.jsonl": metrics,
    "outcomes.jsonl": appended,
    "resumed log": rewound_log,
    "prompts.jsonl": lambda folder: lambda: PromptTexts(folder).add(1, ["a"], ["text"]),
    "lock": lock,
    "final model": copied,
    "settings of results": lambda folder: lambda: claim(folder / "settings.json", {"n": 1}),
    "generations": generations,
    "generations that were cut short": cut_generations,
    "metrics of an evaluation": results("json"),
    "tables of an evaluation": results("out"),
    "exported data": parquet,
    "figure": drawing,
    "report": report,
    "comparison": comparison,
    "numbers of a replay": replayed("json"),
    "page of a replay": replayed("page"),
    "viprl init": starter,
    "training of a sweep": sweep_process,
}


WITHOUT_ROOM = ("lock", "generations that were cut short")


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("writer", WRITERS)
def test_an_error_names_the_file(writer: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    action = WRITERS[writer](tmp_path)
    if writer in WITHOUT_ROOM and code == errno.ENOSPC:
        pytest.skip("takes no room")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        break_disk(patch, tmp_path, code)
        with pytest.raises(FileError, match=f"{tmp_path}.*{os.strerror(code)}"):
            action()
    for path, content in before.items():
        assert path.read_bytes() == content, f"{path} was damaged"


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_a_cache_goes_on_in_memory(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        name = "mine"

        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text), 1.0] for text in texts])

    cache = FeatureCache(Encoder(), tmp_path / "features")
    with monkeypatch.context() as patch:
        break_disk(patch, tmp_path, code)
        with pytest.warns(RuntimeWarning, match="features are kept in memory"):
            assert cache(["ab", "c"]).tolist() == [[2.0, 1.0], [1.0, 1.0]]
    assert cache(["c"]).tolist() == [[1.0, 1.0]]


# --- no writer is forgotten -------------------------------------------------------------------------------------------

WRITE = {
    "mkdir",
    "write_text",
    "write_bytes",
    "unlink",
    "rename",
    "touch",
    "rmtree",
    "copytree",
    "copyfile",
    "symlink_to",
}
WRITE |= {"save_pretrained", "save_model", "write_table", "makedirs"}
NAMED = {"writing", "_explained"}
"""Context managers in which an OSError gets the name of its file."""
ELSEWHERE = {
    "utils/files.py": "writes the files of all others",
    "features/vector_file.py": "_write is called within _explained",
    "runs/parquet.py": "into a buffer",
    "rewards/grading/worker.py": "a pipe",
}


def unnamed_writes(tree: ast.AST, named: bool = False) -> Iterator[ast.Call]:
    """Calls that write files outside the context managers that name them."""
    for node in ast.iter_child_nodes(tree):
        within = named
        if isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            within |= any(isinstance(call.func, ast.Name) and call.func.id in NAMED for call in calls)
        if isinstance(node, ast.Call) and not within and writes(node):
            yield node
        yield from unnamed_writes(node, within)


def writes(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name) and call.func.id != "open":
        return False
    if ast.unparse(call.func).startswith("super()."):  # what an engine writes itself
        return False
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    opens = name in ("open", "fdopen") and any(len(mode) <= 3 and set(mode) & set("wax+") for mode in modes)
    return opens or name in WRITE


def test_every_writer_in_the_package_names_its_file() -> None:
    found = {
        f"{path.relative_to(SOURCE)}:{call.lineno}": ast.unparse(call)
        for path in SOURCE.rglob("*.py")
        if str(path.relative_to(SOURCE)) not in ELSEWHERE
        for call in unnamed_writes(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_writes_are_found() -> None:
    lines = [
        "p.open('wb')",
        "open(p, 'a')",
        "p.open(mode='r+b')",
        "p.unlink()",
        "p.write_text('a')",
        "shutil.copytree(a, b)",
    ]
    for line in lines:
        assert len(list(unnamed_writes(ast.parse(line)))) == 1, line
        assert not list(unnamed_writes(ast.parse(f"with writing(p):\n    {line}")))
    for line in ("p.open('rb')", "p.open()", "write_text(p, 'a')", "p.open(encoding='utf-8')", "super().save_model(p)"):
        assert not list(unnamed_writes(ast.parse(line))), line


def test_the_files_that_are_left_out_exist() -> None:
    assert all((SOURCE / name).is_file() for name in ELSEWHERE)
