"""Builds the sdist and from it the wheel, checks their content, and uses each in a clean environment.

usage (see `make test-release`): python tests/release.py TESTS ...

TESTS are run from the unpacked sdist with the installed wheel and its required dependencies alone. The environments
are temporary. Ends with exit code 1 at the first check that fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LARGEST_WHEEL = 1_000_000  # bytes
USE = "import viprl; print(viprl.__version__, viprl.allocate([0.5, 0.9, 0.0], budget=24, max_rollouts=12).counts)"
TYPED = "import viprl\n\nnumber: int = viprl.allocate([0.5], budget=8)\n"  # refused by who reads viprl's types


def run(*command: str | Path, cwd: Path = ROOT, expected: int = 0) -> str:
    """Standard output of a command; ends the script with all of its output if the exit code is not the expected one."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, text=True, capture_output=True)
    if done.returncode != expected:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"release: {what}")


def tracked_files(folder: Path) -> Path:
    """A copy of what git tracks, so that nothing that lies in the clone besides can reach a package."""
    for name in run("git", "ls-files", "-z").split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def environment(folder: Path, *packages: str | Path) -> Path:
    """The Python of a new environment with these packages."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pinned = ["--constraint", ROOT / "requirements.lock"]
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *pinned, *packages)
    return python


def check_versions(source: Path, built: str) -> None:
    """pyproject.toml, the package, the citation and the changelog name the version that was built."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    code = re.search(r'^__version__ = "(.*)"', (source / "src/viprl/__init__.py").read_text(), re.M)
    citation = re.search(r"^version: (.*)$", (source / "CITATION.cff").read_text(), re.M)
    changes = re.search(r"^## (\S+)", (source / "CHANGELOG.md").read_text(), re.M)
    named = {project, *(found and found[1] for found in (code, citation, changes))}
    check(named == {built}, f"versions differ: {named}, built {built}")


def check_wheel(wheel: Path, source: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(source / "src")) for path in (source / "src/viprl").rglob("*") if path.is_file()}
    check(wheel.stat().st_size < LARGEST_WHEEL, f"the wheel has {wheel.stat().st_size} bytes")
    check(modules <= names, f"the wheel lacks {sorted(modules - names)}")
    extra = {name for name in names - modules if ".dist-info/" not in name}
    check(not extra, f"the wheel has files besides the package: {sorted(extra)}")
    for needed in ("licenses/LICENSE", "licenses/NOTICE"):
        check(any(name.endswith(needed) for name in names), f"the wheel lacks {needed}")


def main(tests: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = tracked_files(folder / "source")
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", source)
        (sdist,) = (folder / "dist").glob("*.tar.gz")
        (wheel,) = (folder / "dist").glob("*.whl")
        version = wheel.name.split("-")[1]
        check_versions(source, version)
        check_wheel(wheel, source)
        print(f"viprl {version}: wheel {wheel.stat().st_size:,} bytes, sdist {sdist.stat().st_size:,} bytes")

        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        python = environment(folder / "of_sdist", sdist)
        print("installed from the sdist:", run(python, "-c", USE, cwd=elsewhere).strip())
        print("its command:", run(folder / "of_sdist/bin/viprl", "--version", cwd=elsewhere).strip())

        python = environment(folder / "of_wheel", wheel, "pytest", "hypothesis")
        place = Path(run(python, "-c", "import viprl; print(viprl.__file__)", cwd=elsewhere).strip())
        check(place.is_relative_to(folder / "of_wheel"), f"viprl comes from {place}")
        (elsewhere / "typed.py").write_text(TYPED)
        mypy = [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", folder / "mypy", "typed.py"]
        types = run(*mypy, cwd=elsewhere, expected=1)
        check("[assignment]" in types, f"the types of the installed wheel are not read: {types}")

        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        unpacked = folder / sdist.name.removesuffix(".tar.gz")
        report = run(python, "-m", "pytest", "-p", "no:cacheprovider", *tests, cwd=unpacked)
        print("installed from the wheel:", report.strip().splitlines()[-1])


if __name__ == "__main__":
    main(sys.argv[1:])
