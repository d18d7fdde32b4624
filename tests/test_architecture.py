"""The house rules that a machine can hold: who may import whom, and what may stand where."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGE = ROOT / "edge"

ROOMS = (
    *({"core"}, {"camera", "face", "gallery", "mqtt"}, {"recognition"}),
    *({"device"}, {"fleet"}, {"lab"}, {"cli"}, {"__main__"}),
)
"""A room imports from rooms that stand to its left only."""

MOST_ENTRIES = 12
"""Modules and folders in one folder, `__init__.py` apart."""

SMALL_LINES = 60
"""A module below this that serves one other module is a splinter of it."""

SETTINGS_ROOMS = {"device", "lab", "cli", "__main__"}

LIBRARIES = {
    "amqtt": {"lab.demo.broker"},
    "cryptography": {
        "device.checkup.broker_trial",
        "fleet.certificates",
        "fleet.keys",
        "fleet.rollout.config",
        "gallery.format.seal",
        "gallery.remote.signed_rows",
        "mqtt.contract.envelope",
    },
    "distributed": {"fleet.cluster"},
    "matplotlib": {"lab.photos.plots"},
    "onnx": {
        "face.build.fp32",
        "face.build.graph",
        "face.build.heads",
        "face.build.minifasnet.published",
        "face.build.network",
    },
    "onnxruntime": {"face.session"},
    "paho": {"mqtt.connection", "mqtt.client", "mqtt.subscriber"},
    "psycopg": {"fleet.journal.postgres", "gallery.remote.pgvector"},
    "qdrant_client": {"gallery.remote.qdrant"},
    "securesystemslib": {"fleet.keys", "mqtt.contract.envelope"},
    "signal": {"core.process", "__main__"},
    "simsimd": {"gallery.int8_matcher"},
    "sqlite3": {"mqtt.delivery.outbox", "fleet.journal.database"},
    "tuf": {
        "device.sync.fetch",
        "device.sync.sync",
        "device.sync.trust",
        "fleet.repository",
        "fleet.statements",
    },
    "upath": {"camera.photo_store"},
}
"""Foreign libraries and the only modules that may import them."""


@dataclass(frozen=True)
class Module:
    """One file of the package, parsed once."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The dotted name below `edge`: `gallery.store.vault`."""
        return ".".join(self.path.relative_to(PACKAGE).with_suffix("").parts)

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def folder(self) -> str:
        return self.name.rpartition(".")[0]

    def imports(self) -> Iterator[str]:
        """Every name that an import could mean, the module's own functions' imports included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def neighbours(self) -> set[str]:
        """The modules of the package that this one imports, by the name below `edge`."""
        named = (name.removeprefix("edge.") for name in self.imports() if name.startswith("edge."))
        return {name for name in named if name in names()} - {self.name}


@cache
def modules() -> tuple[Module, ...]:
    """Every module but the folders' own `__init__`."""
    files = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return tuple(Module(path, text := path.read_text(), ast.parse(text)) for path in files)


@cache
def names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


@cache
def graph() -> dict[str, set[str]]:
    """Which module imports which."""
    return {module.name: module.neighbours() for module in modules()}


def folders() -> list[Path]:
    return [PACKAGE, *(p for p in sorted(PACKAGE.rglob("*")) if p.is_dir() and p.name != "__pycache__")]


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Return one circle of imports, empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_stands_in_one_of_ten_rooms():
    assert {module.room for module in modules()} == set().union(*ROOMS)


def test_imports_point_to_the_left():
    level = {room: index for index, rooms in enumerate(ROOMS) for room in rooms}
    wrong = [
        f"{importer} imports {imported}"
        for importer, neighbours in graph().items()
        for imported in neighbours
        if (left := imported.split(".")[0]) != (right := importer.split(".")[0])
        and level[left] >= level[right]
    ]
    assert wrong == []


def folder_of(name: str) -> str:
    return name.rpartition(".")[0]


def room_of(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize(
    "grouped",
    [pytest.param(str, id="module"), pytest.param(folder_of, id="folder"), pytest.param(room_of, id="room")],
)
def test_imports_make_no_circle(grouped):
    imports: dict[str, set[str]] = defaultdict(set)
    for importer, neighbours in graph().items():
        imports[grouped(importer)] |= {grouped(name) for name in neighbours} - {grouped(importer)}
    assert circle(imports) == []


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


def test_a_folder_has_at_most_twelve_entries_and_says_its_job():
    wrong = []
    for folder in folders():
        entries = [p for p in folder.iterdir() if p.name not in ("__init__.py", "__pycache__", "models")]
        entries = [p for p in entries if p.is_dir() or p.suffix == ".py"]
        if len(entries) > MOST_ENTRIES:
            wrong.append(f"{folder}: {len(entries)} entries")
        if not (ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "").strip():
            wrong.append(f"{folder}/__init__.py has no docstring")
    assert wrong == []


def test_no_module_is_a_splinter_of_another():
    importers = Counter(name for neighbours in graph().values() for name in neighbours)
    wrong = [
        f"{module.name}: {lines} lines, one importer"
        for module in modules()
        if (lines := len(module.text.splitlines())) < SMALL_LINES and importers[module.name] == 1
    ]
    assert wrong == []


def test_no_two_modules_of_a_room_share_a_name():
    shared = Counter((module.room, module.name.rpartition(".")[2]) for module in modules())
    assert [key for key, count in shared.items() if count > 1] == []


def test_no_two_classes_share_a_name():
    classes = defaultdict(list)
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(module.name)
    assert {name: where for name, where in classes.items() if len(where) > 1} == {}


def test_settings_are_read_at_the_device_and_above():
    users = {
        module.room
        for module in modules()
        if any(name.startswith("edge.device.settings") for name in module.imports())
    }
    assert users <= SETTINGS_ROOMS


def test_only_the_command_line_knows_the_daemon():
    assert {module.room for module in modules() if "device.daemon" in module.neighbours()} <= {"cli"}


@pytest.mark.parametrize(("library", "owners"), LIBRARIES.items())
def test_a_foreign_library_has_one_door(library: str, owners: set[str]):
    users = {module.name for module in modules() if any(n.split(".")[0] == library for n in module.imports())}
    assert users == owners


OPEN_STATE = {"device", "face", "gallery", "mqtt"}
"""Rooms whose files are a device's state: what lies in their place must not make the daemon wait."""


def test_state_files_are_opened_as_regular_files_only():
    """Only `core.files` opens them: a pipe in the place of one would block the main thread for ever."""
    opened = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        if module.room in OPEN_STATE
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        if (isinstance(node.func, ast.Name) and node.func.id == "open")
        or (
            isinstance(node.func, ast.Attribute)
            and (
                node.func.attr in {"read_bytes", "read_text"}
                or (node.func.attr == "open" and _is_path_or_os(node.func.value))
            )
        )
    ]
    assert not opened, "use files.open_regular, files.read_regular or files.read_bounded"


def _is_path_or_os(value: ast.expr) -> bool:
    """Whether `open` is asked of anything but a class of our own (`Outbox.open`)."""
    return not (isinstance(value, ast.Name) and value.id[:1].isupper() and value.id != "Path")


def test_video_capture_lives_in_camera_sources():
    assert {module.name for module in modules() if "VideoCapture(" in module.text} == {"camera.sources"}


def test_the_environment_is_read_in_two_places_only():
    users = {
        module.name
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    }
    assert users <= {"device.settings.load", "core.process"}


def test_nothing_hides_behind_type_checking():
    assert [module.name for module in modules() if "TYPE_CHECKING" in module.text] == []


def test_modules_hold_no_mutable_state_and_do_no_work_when_imported():
    wrong = []
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
                wrong.append(f"{module.name}:{node.lineno} works at import")
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List | ast.Set):
                wrong.append(f"{module.name}:{node.lineno} mutable global")
        if any(isinstance(node, ast.Global) for node in ast.walk(module.tree)):
            wrong.append(f"{module.name} rebinds a global")
    assert wrong == []


def test_no_file_is_called_after_nothing():
    nothing = {"utils", "util", "helpers", "common", "misc", "const"}
    assert [module.name for module in modules() if module.path.stem in nothing] == []


def test_the_project_names_no_registry_and_no_private_index():
    texts = [
        *((module.name, module.text) for module in modules()),
        *((path.name, path.read_text()) for path in sorted(ROOT.glob("requirements*.lock"))),
        *((name, (ROOT / name).read_text()) for name in ("pyproject.toml", "Makefile", "README.md")),
    ]
    words = ("pypi.org", "pythonhosted", "file://", "--index-url", "--find-links")
    found = [
        (name, word)
        for name, text in texts
        for word in words
        if word in text and not (name.startswith("camera.") and word == "file://")
    ]
    assert found == []
