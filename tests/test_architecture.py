"""The house rules that a machine can hold: who may import whom, and what may stand where."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edge"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {
        "types",
        "errors",
        "metrics",
        "health",
        "clock",
        "eventids",
        "logs",
        "photo",
        "download",
        "settings",
        "settings_gallery",
        "settings_mqtt",
        "memory",
        "instance",
        "signals",
        "redact",
        "worker",
        "safefile",
        "printable",
        "slug",
        "strictjson",
        "children",
        "access",
        "envelope",
        "audit",
        "outcome",
        "guard",
    },
    {"config", "face", "gallery", "camera", "mqtt", "tracker", "presence", "visit", "annotate"},
    {"recognizer", "twin"},
    {"shadow", "inquiries", "pushed"},
    {"configuring", "probation", "stores", "answers", "lasting"},
    {"pipeline", "enroll", "assembly", "delivery", "selection", "roster", "remoting", "removal"},
    {"bulk", "reembed"},
    {
        "pushing",
        "strangers",
        "commands",
        "rollout",
        "arrival",
        "cameras",
        "fleet",
        "consumer",
        "following",
        "syncing",
        "inference",
        "replay",
        "evaluate",
        "vitals",
    },
    {"keeper", "verbs"},
    {"control"},
    {"daemon", "demo"},
    {"bench"},
    {"cli"},
    {"__main__"},
]
"""What stands lower is imported, never imports upward. Within a layer only what SIBLINGS names."""

SIBLINGS = {
    ("config", "settings"),
    ("assembly", "pipeline"),
    ("assembly", "selection"),
    ("assembly", "remoting"),
    ("presence", "visit"),
    ("photo", "errors"),
    ("evaluate", "replay"),
    ("reembed", "bulk"),
}

FORBIDDEN = [
    ("face", "gallery"),
    ("gallery", "face"),
    ("mqtt", "face"),
    ("mqtt", "gallery"),
    ("mqtt", "camera"),
    ("fleet", "face"),
    ("fleet", "camera"),
    ("fleet", "mqtt"),
    ("consumer", "face"),
    ("consumer", "gallery"),
    ("consumer", "camera"),
    ("evaluate", "mqtt"),
    ("evaluate", "daemon"),
]

LIBRARIES = {
    "onnxruntime": {"face/session.py"},
    "paho": {"mqtt/link.py", "mqtt/listener.py", "mqtt/session.py"},
    "sqlite3": {"mqtt/outbox.py", "consumer/database.py"},
    "simsimd": {"gallery/quantized.py"},
    "qdrant_client": {"gallery/remote.py"},
    "securesystemslib": {"envelope.py", "fleet/keyring.py", "fleet/repository.py"},
    "tuf": {
        "fleet/repository.py",
        "fleet/statements.py",
        "gallery/fetch.py",
        "gallery/sync.py",
        "gallery/trust.py",
    },
    "signal": {"signals.py", "camera/pipe.py"},
}
"""Foreign libraries and the only files that may import them. `camera/pipe` only sends a signal."""


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ([node.module] if node.module != "edge" else (f"edge.{a.name}" for a in node.names))


def edges() -> Iterator[tuple[Path, str]]:
    for path in FILES:
        for module in imports(path):
            if module.startswith("edge."):
                yield path, module.split(".")[1]


def layer(part_name: str) -> int:
    return next(i for i, parts in enumerate(LAYERS) if part_name in parts)


def test_every_part_has_a_layer():
    known = set().union(*LAYERS)
    assert {part(path) for path in FILES} - known - {"__init__"} == set()


def test_imports_point_one_way():
    wrong = [
        f"{name(path)} imports {target}"
        for path, target in edges()
        if target not in ("__version__", part(path))
        and layer(part(path)) <= layer(target)
        and not (layer(part(path)) == layer(target) and layer(target) == 0)
        and (part(path), target) not in SIBLINGS
    ]
    assert wrong == []


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN)
def test_strangers_stay_strangers(importer: str, imported: str):
    assert [name(path) for path, target in edges() if part(path) == importer and target == imported] == []


def test_only_the_command_line_knows_the_daemon():
    assert {part(path) for path, target in edges() if target == "daemon"} <= {"cli"}


def test_settings_stay_at_assembly_and_above():
    users = {part(path) for path, target in edges() if target.startswith(("config", "settings"))}
    of_settings = {"config", "settings_gallery", "settings_mqtt", "twin", "pushed", "configuring", "pushing"}
    of_parts = {
        "stores",
        "lasting",
        "assembly",
        "remoting",
        "removal",
        "delivery",
        "selection",
        "cameras",
        "keeper",
        "reembed",
        "verbs",
        "vitals",
        "control",
    }
    assert users <= of_settings | of_parts | {"daemon", "cli", "demo", "bench", "__main__"}


@pytest.mark.parametrize(("library", "owners"), LIBRARIES.items())
def test_a_foreign_library_has_one_door(library: str, owners: set[str]):
    users = {name(path) for path in FILES for module in imports(path) if module.split(".")[0] == library}
    assert users <= owners


def test_video_capture_lives_in_camera_sources():
    users = {name(path) for path in FILES if "VideoCapture(" in path.read_text()}
    assert users <= {"camera/sources.py"}


def test_the_environment_is_read_in_config_and_health_only():
    users = {
        name(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    }
    assert users <= {"config.py", "health.py"}


def test_nothing_hides_behind_type_checking():
    assert [name(path) for path in FILES if "TYPE_CHECKING" in path.read_text()] == []


def test_modules_hold_no_mutable_state_and_do_no_work_when_imported():
    wrong = []
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
                if name(path) != "cli/app.py" or not ast.unparse(node).startswith("app."):
                    wrong.append(f"{name(path)}:{node.lineno} works at import")
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List | ast.Set):
                wrong.append(f"{name(path)}:{node.lineno} mutable global")
        if any(isinstance(node, ast.Global) for node in ast.walk(ast.parse(path.read_text()))):
            wrong.append(f"{name(path)} rebinds a global")
    assert wrong == []


def test_no_file_is_called_after_nothing():
    assert [p for p in FILES if p.stem in ("utils", "util", "helpers", "common", "misc", "const")] == []


def test_no_file_hides_two():
    assert [(name(p), n) for p in FILES if (n := len(p.read_text().splitlines())) > 300] == []


def test_the_project_names_no_registry_and_no_private_index():
    texts = [
        *FILES,
        ROOT / "requirements.lock",
        ROOT / "pyproject.toml",
        ROOT / "Makefile",
        ROOT / "README.md",
    ]
    words = ("pypi.org", "pythonhosted", "file://", "--index-url", "--find-links")
    allowed = {("camera", "file://")}
    found = [
        (path.name, word)
        for path in texts
        for word in words
        if word in path.read_text() and (path.parent.name, word) not in allowed
    ]
    assert found == []
