"""`extends`, `--set`, duplicate keys."""

from __future__ import annotations

import pytest

from refused import refused
from viprl.errors import ConfigError
from viprl.train.yaml_files import read_yaml, with_overrides
from viprl.utils.safe_yaml import LARGEST


def bomb(form: str) -> str:
    """Eight levels of nine aliases each."""
    levels = [form.format(", ".join(9 * [f"*a{i}"])) for i in range(8)]
    return "a0: &a0 {x: 1}\n" + "".join(f"a{i + 1}: &a{i + 1} {level}\n" for i, level in enumerate(levels))


def test_a_byte_order_mark_and_line_ends_of_windows(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfmodel: m\r\nx:\r\n  y: 1\r\n")
    assert read_yaml(tmp_path / "a.yaml") == {"model": "m", "x": {"y": 1}}


def test_a_file_extends_others_and_overrides_come_last(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.yaml").write_text("x: 1\ny: 1\nm: {a: 1, b: 1}\n")
    (tmp_path / "parts" / "b.yaml").write_text("extends: a.yaml\ny: 2\nm: {b: 2}\n")
    (tmp_path / "c.yaml").write_text("extends: [parts/b.yaml, parts/d.yaml]\nz: 3\n")
    (tmp_path / "parts" / "d.yaml").write_text("y: 4\n")
    raw = read_yaml(tmp_path / "c.yaml")
    assert raw == {"x": 1, "y": 4, "z": 3, "m": {"a": 1, "b": 2}}
    over = with_overrides(raw, ["m.b=[1, 2]", "w=1e-6", "z=null", "n.o.p=true"])
    assert over == {"x": 1, "y": 4, "z": None, "w": "1e-6", "m": {"a": 1, "b": [1, 2]}, "n": {"o": {"p": True}}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\nb: 2\na: 3\n", ["`a`", "lines 1 and 3"]),
        ("m:\n  a: 1\n  a: 2\n", ["`a`", "lines 2 and 3"]),
        ("extends: self.yaml\n", ["self.yaml -> self.yaml"]),
        ("extends: none.yaml\n", ["none.yaml", "`extends`"]),
        ("extends: {a: 1}\n", ["extends is {'a': 1}"]),
        ("3: a\n", ["key 3"]),
        ("? [a]\n: 1\n", ["not valid YAML"]),
        ("model: [1\n", ["not valid YAML", "line 2"]),
        ("- 1\n- 2\n", ["list"]),
        ("model: m\n\tdataset: d\n", ["line 2", "spaces"]),
        ("", ["nothing"]),
        ("a: \xe4\n".encode("latin-1"), ["UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["UTF-16"]),
        ("a: " + "[" * 5000, ["nested too deeply"]),
        ("a: " + "9" * 5000, ["line 1", "4300"]),
        ("a: 1\nb: 2024-13-45\n", ["line 2"]),
        ("a: !!timestamp x\n", ["line 1"]),
        ("a: &a [*a]\n", ["contains itself"]),
        (bomb("[{}]"), ["100,000"]),
        (bomb("{{<<: [{}]}}"), ["100,000"]),
        ("#" * (LARGEST + 1), ["larger"]),
        (None, ["self.yaml", "no such file"]),
    ],
)
def test_files_that_are_refused(tmp_path, text, parts):
    if text is not None:
        (tmp_path / "self.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(ConfigError, *parts):
        read_yaml(tmp_path / "self.yaml")


def test_a_run_folder_in_the_place_of_a_file(tmp_path):
    with refused(ConfigError, "is a folder", "FILE.yaml"):
        read_yaml(tmp_path)
    (tmp_path / "config.yaml").write_text("model: m\n")
    with refused(ConfigError, "is a folder", f"--config {tmp_path / 'config.yaml'}"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("override", ["vip_strategy", "=3", "a=[1", "a={b: 1, b: 2}"])
def test_overrides_that_are_refused(override):
    with refused(ConfigError, override):
        with_overrides({}, [override])
