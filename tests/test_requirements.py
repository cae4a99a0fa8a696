"""The lock has a hash for everything that is installed, and the same versions as the requirements."""

from __future__ import annotations

import importlib.metadata
import re

import pytest

from tests.conftest import ROOT

PINNED = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", re.MULTILINE)
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# A line for each package and, where they differ, Python version or system; its hashes are on the lines after it.
LOCKED = re.findall(r"^([\w.-]+)==(\S+)[^\n]*\n((?: {4}--hash=sha256:[0-9a-f]{64}[^\n]*\n)+)", LOCK, re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_in_the_lock_has_hashes_and_nothing_else_is_in_it():
    shown = "".join(line for line in LOCK.splitlines(keepends=True) if line.startswith("    --hash=sha256:"))
    named = [line for line in LOCK.splitlines() if not line.startswith(" ")]
    assert len(LOCKED) == len(named) > 50
    assert len(LOCK) == len(shown) + sum(len(line) + 1 for line in named)
    assert "://" not in LOCK


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_has_the_versions_of_the_requirements(file):
    locked = {normal(name): version for name, version, _ in LOCKED}
    wanted = {normal(name): version for name, version in PINNED.findall((ROOT / file).read_text(encoding="utf-8"))}
    assert len(wanted) >= 8
    assert wanted == {name: locked.get(name) for name in wanted}


def test_what_they_need_is_locked_too():
    """By the packages installed here, followed from the requirements on."""
    locked, seen = {normal(name) for name, _, _ in LOCKED}, set()
    names = [
        normal(name)
        for file in ("requirements.txt", "requirements-dev.txt")
        for name, _ in PINNED.findall((ROOT / file).read_text())
    ]
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        needs = importlib.metadata.requires(name) or []
        names += [normal(re.findall(r"^[\w.-]+", need)[0]) for need in needs if ";" not in need]
    assert seen <= locked


def test_pip_itself_is_of_a_version_without_known_faults_and_has_a_hash():
    (pip,) = re.findall(
        r"^pip==(\d+)\.\S+ --hash=sha256:[0-9a-f]{64}$", (ROOT / "requirements-pip.txt").read_text(), re.MULTILINE
    )
    assert int(pip) >= 26
