"""What pages hold beside Python and commands: configurations, rows, changed lines, links, names of files, options."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import documentation
import viprl
from documentation import PAGES, ROOT, all_blocks, blocks, prose, read
from viprl import metrics
from viprl.errors import MissingPackageError
from viprl.runs.engine_logs import read_history
from viprl.settings import EngineSettings, read_settings
from viprl.train.config import parse_config

CHECKED = {"python", "bash", "console", "yaml", "json", "diff"}
"""Languages whose blocks are run or checked, here and in the files beside."""
NOT_RUN = {
    ("README.md", "bibtex"): "a citation",
    ("CONTRIBUTING.md", "text"): "a drawing",
    ("docs/concepts.md", "text"): "the same drawing",
    ("docs/doctor.md", ""): "what a command prints, shortened",
    ("docs/watch.md", ""): "what a command prints, shortened",
    ("docs/evaluate.md", "text"): "two options of verl; the function that they name is checked below",
}
"""Page and language of blocks that are neither run nor checked -> the reason."""


def test_every_block_is_run_or_checked_or_listed_with_a_reason() -> None:
    others = {(block.page, block.language) for block in all_blocks() if block.language not in CHECKED}
    assert others == set(NOT_RUN)


def test_configurations_are_valid() -> None:
    """Those of docs/train.md are used by its commands; that of docs/data.md is a part of one."""
    pages = {block.page for block in all_blocks("yaml")}
    assert pages == {"docs/data.md", "docs/train.md"}
    (part,) = blocks("docs/data.md", "yaml")
    config = parse_config({"model": "m", "output_dir": "runs/mine"} | yaml.safe_load(part.text))
    assert config.dataset == "reasoning-gym:chain_sum?levels=0-4"
    assert config.reward == ["viprl.data.gym:solved"]


@pytest.mark.parametrize("block", all_blocks("json"), ids=str)
def test_rows_of_logs_can_be_read(block, tmp_path) -> None:
    (tmp_path / "mine.jsonl").write_text(block.text)
    rows = [json.loads(line) for line in block.text.splitlines()]
    histories = read_history(tmp_path / "mine.jsonl")
    assert [history.id for history in histories] == [row["id"] for row in rows]
    assert all(len(history.rollouts) > 1 for history in histories)


@pytest.mark.parametrize("block", all_blocks("diff"), ids=str)
def test_changed_lines_are_possible(block) -> None:
    """Lines of Python run; overrides of verl are those of its page."""
    added = [line[1:].strip() for line in block.text.splitlines() if line.startswith("+")]
    if block.text.startswith("-from"):
        names: dict = {}
        exec("\n".join(added), names)
        assert issubclass(names["GRPOTrainer"], __import__("trl").GRPOTrainer)
    else:
        assert added == ["algorithm.adv_estimator=vip_rloo \\", "trainer.v1.trainer_mode=vip_sync \\"]


def test_options_of_verl_exist() -> None:
    """Every `+trainer.v1.vip_sync.NAME=VALUE` in the pages, with its value."""
    found = {
        (page, *match)
        for page in PAGES
        for match in re.findall(r"\+?trainer\.v1\.vip_sync\.(\w+)=([\w.\"$]+)", read(page))
    }
    assert len(found) > 10
    for page, name, value in found:
        if value.isupper():  # stands for a value
            value = "log" if name == "warm_start" else 1
        assert read_settings({name: yaml.safe_load(str(value))}, where=page)


def test_options_of_trl_exist() -> None:
    from viprl.engines.trl import VIPGRPOConfig

    fields = set(VIPGRPOConfig.__dataclass_fields__)
    arguments = {"vip_group", "vip_rollouts", "vip_wave"}  # of reward functions
    engine = {"vip_sync", "vip_rloo", "vip_dr_grpo", "vip_state"}  # of verl, and a file
    for page in PAGES:
        named = set(re.findall(r"\b(vip_[a-z_]+)\b", read(page))) - arguments - engine
        assert named <= fields, page


def test_names_of_the_package_exist() -> None:
    """Every `viprl.x.y` in a sentence."""
    for page in PAGES:
        for name in set(re.findall(r"`(viprl(?:\.\w+)+)", prose(page))):
            parts, owner = name.split("."), viprl
            for i, part in enumerate(parts[1:], 2):
                if not hasattr(owner, part):
                    try:
                        importlib.import_module(".".join(parts[:i]))
                    except MissingPackageError:  # of an engine that is not installed
                        break
                owner = getattr(owner, part)


def test_files_of_the_method_exist() -> None:
    """The table from equation to file, and every other file of the source or a benchmark that a page names."""
    rows = re.findall(r"^\| [^|]+ \| (`[^|]+) \|$", read("docs/method.md").split("\n## ", 1)[0], re.MULTILINE)
    assert len(rows) > 10
    folder = ""
    for name in re.findall(r"`([\w/.]+)`", " ".join(rows)):
        if name.endswith("/"):
            folder = name
        assert any((ROOT / "src/viprl" / start / name).exists() for start in ("", folder)), name
    for page in PAGES:
        for name in set(
            re.findall(
                r"`((?:allocation|analysis|predictors|weights|engines|features|baselines|utils|rewards)/[\w/.]+)`",
                prose(page),
            )
        ):
            assert any((ROOT / start / name).exists() for start in ("src/viprl", "tests")), f"{page} names {name}"
        for name in set(re.findall(r"\b((?:benchmarks|recipes|examples)/[\w/.-]+\.(?:py|yaml|sh))", read(page))):
            assert (ROOT / name).is_file(), f"{page} names {name}"


def test_sections_of_the_method_have_a_file() -> None:
    page = read("docs/method.md")
    sections = [title.lower() for title in re.findall(r"^## (.*)$", page, re.MULTILINE)]
    table = page.split("\n## ", 1)[0].lower()
    for title in sections:
        words = re.sub(r" \(.*", "", title)
        assert f"| {words}" in table or words == "all strategies", title


LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]*)#?([^)\s]*)(?=\))")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page) -> None:
    """In the repository; `make docs` checks those of the site."""
    for target, anchor in LINK.findall(prose(page)):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


def anchors(path: Path) -> set[str]:
    """Headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", documentation.FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    words = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in words}


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = read("docs/api.md")
    documented = set(re.findall(r"^::: (viprl\.\w+)$", page, re.MULTILINE))
    assert documented | {"viprl.STRATEGIES", "viprl.errors"} == {f"viprl.{name}" for name in viprl.__all__} | {
        "viprl.errors"
    }


def test_strategies_of_the_pages_are_all_there_are() -> None:
    for page in ("docs/method.md", "docs/baselines.md"):
        rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", read(page), re.MULTILINE)
        named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        missing = set(viprl.STRATEGIES) - named
        assert missing <= ({"default"} if page == "docs/baselines.md" else set())


def test_metrics_of_the_pages_exist() -> None:
    known = {value for value in vars(metrics).values() if isinstance(value, str)}
    for page in PAGES:
        named = set(re.findall(r"`vip/([a-z_/]+)`", prose(page)))
        assert {name for name in named if not name.endswith("/")} <= known, page


def test_the_reward_of_verl_exists() -> None:
    (block,) = blocks("docs/evaluate.md", "text")
    path, name = re.findall(r"=(\S+)", block.text)
    module = ast.parse((ROOT / "src" / path.removeprefix("pkg://").replace(".", "/") / "__init__.py").read_text())
    assert name in {alias.name for node in module.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_page_is_in_the_menu_of_the_site() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = set(re.findall(r"([\w/.-]+\.md)$", menu, re.MULTILINE)) - {"overview.md"}  # README.md
    assert named == {page.removeprefix("docs/") for page in PAGES} - {"README.md"}


CODE = re.compile(r"`([^`]+)`")
OTHERS = {"level", "levels", "min_terms", "guard", "n", "loss_agg_mode"}
"""Names before = in sentences that are options of something else: reasoning-gym, viprl.Strategy, vLLM, verl."""


def arguments(function: object) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_arguments_in_sentences_exist() -> None:
    """`name=value` is an option, and `call(name=value)` has the argument."""
    from viprl.engines.trl import VIPGRPOConfig, VIPRLOOConfig

    options = {f.name for f in dataclasses.fields(EngineSettings)}
    configs = {f.name for cls in (VIPGRPOConfig, VIPRLOOConfig) for f in dataclasses.fields(cls)}
    calls = {"with_vip": options | {"prompt"}, "VIPGRPOConfig": configs, "VIPRLOOConfig": configs}
    calls |= dict.fromkeys(("VIP", "viprl.VIP"), options)
    methods = {name for name in dir(viprl.VIP) if name[0] != "_" and inspect.isfunction(getattr(viprl.VIP, name))}
    calls |= {f"{owner}.{name}": arguments(getattr(viprl.VIP, name)) for owner in ("vip", "VIP") for name in methods}
    functions = {name: getattr(viprl, name) for name in viprl.__all__ if inspect.isfunction(getattr(viprl, name))}
    calls |= {start + name: arguments(one) for name, one in functions.items() for start in ("", "viprl.")}
    checked = 0
    for page in PAGES:
        for code in CODE.findall(" ".join(prose(page).split())):
            if call := re.fullmatch(r"(?:\w+ = )?([\w.]+)\((.*)\)", code):
                named = set(re.findall(r"(?:^|[ ,(])(\w+)=(?!=)", call[2]))
                assert named <= calls.get(call[1], named), f"{page}: {code}"
                checked += call[1] in calls
            elif re.match(r"[a-z]\w*=[^=]", code):
                assert set(re.findall(r"(?:^|, )(\w+)=(?!=)", code)) <= options | configs | OTHERS, f"{page}: {code}"
                checked += 1
    assert checked > 100


def test_options_of_benchmarks_exist() -> None:
    for page in PAGES:
        for code in CODE.findall(" ".join(prose(page).split())):
            if script := re.search(r"python (benchmarks/\w+\.py)", code):
                source = (ROOT / script[1]).read_text(encoding="utf-8")
                for option in re.findall(r" (--[a-z-]+)", code):
                    assert option in source or f'"{option[2:]}"' in source, f"{page}: {code}"
