"""Build the Debian package: `make deb`. The result is out/edge-recognizer_VERSION_ARCH.deb.

The package has its own environment below /opt/edge with what `requirements.lock` names and nothing else, the
default models, the units, and the settings file. Wheels are unpacked for the architecture asked for, and
nothing of them runs, so that a package for a board is built on any machine. Needs pip, dpkg-deb and the
models (`edge models fetch`).
"""

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from email.utils import formatdate
from pathlib import Path
from string import Template

from edge import __version__
from edge.core.download import PinnedFile
from edge.device.settings.load import Settings
from edge.face.manifest import load_manifest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = "edge-recognizer"
MODELS = ("yunet", "sface-int8")
"""Models that the package brings: what an `edge.toml` that names none uses."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's name of an architecture, and the wheels'."""

GLIBC = (28, 27, 26, 24, 17)
"""Minor versions of glibc 2 that wheels may be made for; Debian 11 has 2.31."""


def main() -> int:
    """Build one package and return the exit code."""
    parser = argparse.ArgumentParser(prog="make deb", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", choices=MACHINES, default=host_arch())
    parser.add_argument("--python", default="3.11", help="of the Debian release it is for (bookworm: 3.11)")
    parser.add_argument("--level", type=int, default=6, help="of xz, 0-9; 0 is fast and a quarter larger")
    parser.add_argument("--out", type=Path, default=ROOT / "out")
    chosen = parser.parse_args()
    tree = chosen.out / f"deb-{chosen.arch}"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    wheel = build_wheel(chosen.out)
    unpack_wheels(tree, wheel, chosen.arch, chosen.python)
    make_environment(tree, chosen.python)
    copy_models(tree / "opt/edge/models", Settings().models_path)
    copy_files(tree)
    write_control(tree, chosen.arch, chosen.python)
    package = chosen.out / f"{PACKAGE}_{__version__}_{chosen.arch}.deb"
    say(f"compressing {size_mb(tree):.0f} MB")
    # xz, not zstd: it is what every Debian unpacks, and a tenth smaller.
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", f"-z{chosen.level}", "--build", tree, package],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(tree)
    say(f"{package}: {package.stat().st_size / 1e6:.0f} MB")
    return 0


def host_arch() -> str:
    """Return Debian's name of this machine's architecture."""
    asked = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
    return asked.stdout.strip()


def build_wheel(out: Path) -> Path:
    """Build the wheel of this checkout into `out` and return its path."""
    say("building the wheel")
    place = out / "wheel"
    shutil.rmtree(place, ignore_errors=True)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, ROOT)
    (wheel,) = place.glob("*.whl")
    return wheel


def unpack_wheels(tree: Path, wheel: Path, arch: str, python: str) -> None:
    """Put what the runtime lock names, and this wheel, where the package's interpreter looks."""
    say(f"unpacking the wheels for {arch} and Python {python}")
    target = site_packages(tree, python)
    unpack(target, arch, python, "--require-hashes", "-r", ROOT / "requirements.lock")
    unpack(target, arch, python, "--no-deps", "--upgrade", wheel)
    before_mb = size_mb(target)
    shutil.rmtree(target / "bin")  # their commands, with this machine's interpreter
    subprocess.run(["sh", ROOT / "deploy/slim", tree / "opt/edge"], check=True)
    say(f"{before_mb:.0f} MB of wheels, {size_mb(target):.0f} MB of them carried")


def unpack(target: Path, arch: str, python: str, *what: str | Path) -> None:
    """Let pip unpack wheels for an architecture into `target`; nothing of them runs."""
    platforms = [f"--platform=manylinux_2_{minor}_{MACHINES[arch]}" for minor in GLIBC]
    platforms += [f"--platform=manylinux2014_{MACHINES[arch]}", "--only-binary", ":all:"]
    version = ("--python-version", python, "--implementation", "cp")
    pip("install", "--no-compile", "--target", target, *version, *platforms, *what)


def make_environment(tree: Path, python: str) -> None:
    """Write what makes /opt/edge a virtual environment of Debian's interpreter, and its command."""
    opt = tree / "opt/edge"
    (opt / "bin").mkdir(parents=True)
    (opt / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    )
    (opt / "bin/python").symlink_to(f"/usr/bin/python{python}")
    write(
        opt / "bin/edge",
        "#!/opt/edge/bin/python\nimport sys\n\nfrom edge.__main__ import main\n\nsys.exit(main())\n",
        0o755,
    )


def copy_models(place: Path, installed: Path) -> None:
    """Copy the default models, each only if it is the pinned file.

    Raises:
        SystemExit: One is not installed here, or is another file.
    """
    place.mkdir(parents=True)
    for name in MODELS:
        pinned: PinnedFile = load_manifest(name, installed).pinned
        if not pinned.is_at(installed / pinned.name):
            raise SystemExit(f"{name}: {installed / pinned.name} is not there; run `edge models fetch`")
        shutil.copy(installed / pinned.name, place / pinned.name)
        (place / pinned.name).chmod(0o644)


def copy_files(tree: Path) -> None:
    """Copy units, settings, users and guides to where Debian has them."""
    for name in ("edge.service", "edge-sync.service", "edge-sync.timer"):
        write(tree / "lib/systemd/system" / name, (ROOT / "systemd" / name).read_text())
    write(tree / "usr/sbin/edge-command", (ROOT / "systemd/edge-command").read_text(), 0o755)
    write(tree / f"usr/lib/sysusers.d/{PACKAGE}.conf", (HERE / "sysusers.conf").read_text())
    write(tree / f"usr/lib/tmpfiles.d/{PACKAGE}.conf", (HERE / "tmpfiles.conf").read_text())
    write(tree / "etc/edge/edge.toml", (HERE / "edge.toml").read_text(), 0o640)
    write(tree / f"usr/share/lintian/overrides/{PACKAGE}", (HERE / "lintian-overrides").read_text())
    doc = tree / "usr/share/doc" / PACKAGE
    write(doc / "copyright", (HERE / "copyright").read_text())
    for name in ("README.md", "deploy/OPERATING.md", "deploy/MQTT.md", "deploy/SECURITY.md"):
        write(doc / Path(name).name, (ROOT / name).read_text())
    write(doc / "examples/edge.example.toml", (ROOT / "deploy/edge.example.toml").read_text())
    for name in ("mosquitto.conf", "acl"):
        write(doc / "examples/mosquitto" / name, (ROOT / "deploy/mosquitto" / name).read_text())
    entry = (
        f"{PACKAGE} ({__version__}) stable; urgency=medium\n\n"
        "  * What changed stands in the project's deploy/CHANGELOG.md.\n\n"
        f" -- edge maintainers <edge@localhost>  {formatdate(build_time_s())}\n"
    )
    changelog = doc / "changelog.gz"
    changelog.write_bytes(gzip.compress(entry.encode(), mtime=0))
    changelog.chmod(0o644)


def write_control(tree: Path, arch: str, python: str) -> None:
    """Write the control files, and give every file its time and rights."""
    debian = tree / "DEBIAN"
    debian.mkdir()
    major, minor = python.split(".")
    values = {
        "version": __version__,
        "arch": arch,
        "size_kb": str(round(size_mb(tree) * 1e6 / 1024)),
        "python": python,
        "next_python": f"{major}.{int(minor) + 1}",
    }
    write(debian / "control", Template((HERE / "control").read_text()).substitute(values))
    write(debian / "conffiles", "/etc/edge/edge.toml\n")
    for script in ("postinst", "prerm", "postrm"):
        write(debian / script, (HERE / script).read_text(), 0o755)
    sums = []
    at_s = build_time_s()
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_symlink():
            os.utime(path, (at_s, at_s), follow_symlinks=False)
            continue
        if path.is_file():
            if path.parent != debian and not name.startswith("etc/"):
                sums.append(f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {name}\n")
            if name.startswith("opt/") and not name.startswith("opt/edge/bin/"):
                path.chmod(0o644)
        else:
            path.chmod(0o755)
    write(debian / "md5sums", "".join(sums))
    for path in tree.rglob("*"):
        os.utime(path, (at_s, at_s), follow_symlinks=False)


def build_time_s() -> int:
    """Return the time that files get: SOURCE_DATE_EPOCH, or that of the last change of this checkout."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    asked = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], check=True, capture_output=True, text=True
    )
    return int(asked.stdout)


def site_packages(tree: Path, python: str) -> Path:
    """Return where the package's interpreter looks for packages, in the tree."""
    return tree / f"opt/edge/lib/python{python}/site-packages"


def pip(*arguments: str | Path) -> None:
    """Run pip with what it is told.

    Raises:
        subprocess.CalledProcessError: It failed; it has said why.
    """
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file with these rights, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def size_mb(tree: Path) -> float:
    """Return how large the files below a directory are, in MB."""
    return sum(path.lstat().st_size for path in tree.rglob("*") if not path.is_dir()) / 1e6


def say(line: str) -> None:
    """Tell what is done now."""
    print(f"deb: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
