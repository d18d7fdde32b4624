"""What a process did to the files of a directory, in order, recorded by strace; and what it said."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

CALLS = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,renameat,renameat2,fallocate"
LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
FILE = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True)
class Op:
    """`create`, `write`, `truncate`, `unlink` or `sync` of a file, `sync` of the directory, or `say`."""

    kind: str
    name: str = ""
    at: int = 0
    data: bytes = b""


def record(command: list[str], directory: Path, log: Path) -> list[Op]:
    """Run `command` to its end; names are those of files in `directory`, and "." is the directory."""
    trace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={CALLS}"]
    subprocess.run([*trace, *command], check=True, stdout=subprocess.DEVNULL)
    ops: list[Op] = []
    for line in log.read_text().splitlines():
        found = LINE.match(line)
        if found is None:
            assert not line.strip() or "+++" in line or "---" in line, line[:200]
            continue
        call, arguments, result = found[1], found[2], int(found[3])
        if result >= 0:
            ops += _op(call, arguments, directory)
    return ops


def _op(call: str, arguments: str, directory: Path) -> list[Op]:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in TEXT.findall(arguments)]
    file = FILE.match(arguments)
    path = bytes.fromhex(file[1].replace("\\x", "")).decode() if file else ""
    if call == "write" and arguments.startswith("1<"):
        return [Op("say", data=texts[0])]
    if call == "openat":
        opened = Path(texts[-1].decode())
        return [Op("create", opened.name)] if "O_CREAT" in arguments and opened.parent == directory else []
    if call in ("unlink", "unlinkat"):
        gone = Path(texts[-1].decode())
        return [Op("unlink", gone.name)] if gone.parent == directory else []
    name = "." if path == str(directory) else Path(path).name
    if name != "." and Path(path).parent != directory:
        return []
    if call == "pwrite64":
        return [Op("write", name, int(arguments.rsplit(", ", 1)[1]), texts[0])]
    if call == "ftruncate":
        return [Op("truncate", name, int(arguments.rsplit(", ", 1)[1]))]
    if call in ("fsync", "fdatasync"):
        return [Op("sync", name)]
    raise AssertionError(f"{call} on {path} is not understood")
