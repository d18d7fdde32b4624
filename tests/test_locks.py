"""What is installed is locked: each lock holds the smaller ones, and a door's has nothing that measures."""

import re

import pytest

from tests.support.places import ROOT

LOCKS = ("requirements.lock", "requirements-demo.lock", "requirements-dev.lock")
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;]+)(?: ; [^\\]+)? \\$")

NOT_AT_A_DOOR = {
    *("amqtt", "grpcio", "hypothesis", "matplotlib", "mypy", "onnx", "pytest", "qdrant-client", "ruff"),
    *("scikit-learn", "scipy"),
}


def pins(name: str) -> set[tuple[str, str]]:
    """Package and version of every line that is not a hash; fails where a line is neither."""
    lines = (ROOT / name).read_text().splitlines()
    found = [line for line in lines if not line.startswith("    --hash=sha256:")]
    matches = [PIN.match(line) for line in found]
    assert [line for line, match in zip(found, matches, strict=True) if match is None] == []
    return {(match[1], match[2]) for match in matches if match}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_by_version_and_hash(name: str):
    text = (ROOT / name).read_text()
    assert pins(name)
    assert re.findall(r"==[^\n]*\n(?!    --hash=sha256:[0-9a-f]{64})", text) == []


def test_a_package_has_the_same_version_in_every_lock():
    door, demo, everything = map(pins, LOCKS)
    assert door < demo < everything


def test_a_door_carries_nothing_that_measures_builds_or_tests():
    assert {package for package, _ in pins("requirements.lock")} & (NOT_AT_A_DOOR | {"setuptools"}) == set()
    assert {package for package, _ in pins("requirements-dev.lock")} > NOT_AT_A_DOOR


def test_every_package_was_looked_at_for_what_it_sends_or_keeps_by_itself():
    guide = (ROOT / "deploy/SECURITY.md").read_text()
    section = guide.split("### What libraries do by themselves")[1].split("\n#")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    looked_at = [name for row in rows if row.strip() != "package" for name in row.strip().split(", ")]
    assert sorted(looked_at) == sorted({package for package, _ in pins("requirements-dev.lock")})
