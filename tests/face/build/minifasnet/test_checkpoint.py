"""A checkpoint is a program: every way to make reading one run something, take memory, or tell a lie."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from edge.core.errors import ModelError
from edge.face.build.minifasnet.checkpoint import read_checkpoint

WEIGHT = np.arange(6, dtype="<f4").reshape(2, 3)
COUNT = np.array([41], "<i8")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def group(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


EMPTY_TABLE = b"ccollections\nOrderedDict\n)R"


def storage(key: str = "7", kind: str = "Float", count: int = 6) -> bytes:
    named = f"ctorch\n{kind}Storage\n".encode()
    return group(text("storage"), named, text(key), text("cuda:0"), number(count), b"N") + b"Q"


def tensor(
    values: bytes, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (3, 1), offset: int = 0
) -> bytes:
    sides, steps = (group(*map(number, each)) for each in (shape, strides))
    arguments = group(values, number(offset), sides, steps, b"\x89", EMPTY_TABLE)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def table(**tensors: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + EMPTY_TABLE + b"(" + items + b"u."


def plain(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


HEAD = plain(0x1950A86A20F9469CFC6C) + plain(1001) + plain({"protocol_version": 1001, "little_endian": True})
GOOD_TABLE = table(weight=tensor(storage()), count=tensor(storage("8", "Long", 1), (), ()))
TWICE_AS_OFTEN = b"\x80\x02]N" + b"q\x00h\x00\x86" * 100 + b"a."
"""A list of pairs of pairs and so on: 2^100 values to whoever writes them out."""

SEVEN = struct.pack("<q", 6) + WEIGHT.tobytes()
EIGHT = struct.pack("<q", 1) + COUNT.tobytes()


def stream(pickled: bytes = GOOD_TABLE, keys: object = ("7", "8"), values: bytes = SEVEN + EIGHT) -> bytes:
    """A checkpoint as PyTorch wrote them before 1.6."""
    return HEAD + pickled + plain(list(keys) if isinstance(keys, tuple) else keys) + values


def archive(
    pickled: bytes = GOOD_TABLE,
    *,
    compressed: bool = False,
    order: bytes = b"little",
    seven: bytes | None = None,
) -> bytes:
    """A checkpoint as PyTorch has written them since 1.6."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as out:
        out.writestr("net/data.pkl", pickled)
        out.writestr("net/byteorder", order)
        out.writestr("net/data/7", WEIGHT.tobytes() if seven is None else seven)
        out.writestr("net/data/8", COUNT.tobytes())
    return content.getvalue()


@pytest.mark.parametrize("content", [pytest.param(stream(), id="old"), pytest.param(archive(), id="new")])
def test_tensors_are_read_by_name(content: bytes) -> None:
    found = read_checkpoint(content)
    assert found.keys() == {"weight", "count"}
    assert found["weight"].tolist() == WEIGHT.tolist()
    assert found["count"].shape == ()
    assert found["count"] == 41


def test_two_tensors_may_share_a_storage() -> None:
    pickled = table(first=tensor(storage(), (3,), (1,)), second=tensor(storage(), (3,), (1,), 3))
    found = read_checkpoint(stream(pickled, ("7",), SEVEN))
    assert [each.tolist() for each in found.values()] == [[0, 1, 2], [3, 4, 5]]


RUN = b"cposix\nsystem\n" + group(text("touch /tmp/owned")) + b"R."


@pytest.mark.parametrize(
    ("pickled", "says"),
    [
        pytest.param(b"\x80\x02" + RUN, "names 'posix system'", id="a command"),
        pytest.param(b"\x80\x02cbuiltins\neval\n" + group(text("1")) + b"R.", "builtins eval", id="eval"),
        pytest.param(b"\x80\x02ctorch.hub\nload\n)R.", "torch.hub load", id="a function of torch"),
        pytest.param(
            b"\x80\x04" + text("os") + text("system") + b"\x93.", "STACK_GLOBAL", id="a name made of two"
        ),
        pytest.param(b"\x80\x02(S'x'\nios\nsystem\n.", "STRING", id="an instance by name"),
        pytest.param(b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ", id="a new object"),
        pytest.param(b"\x80\x02\x82\x01.", "EXT1", id="a name of the registry"),
        pytest.param(b"\x80\x02P7\n.", "PERSID", id="a storage by text"),
        pytest.param(
            b"\x80\x02" + EMPTY_TABLE + group(text("a")) + b"R.", "calls something", id="a call of a table"
        ),
        pytest.param(
            b"\x80\x02ccollections\nOrderedDict\n" + group(EMPTY_TABLE) + b"R.",
            "calls something",
            id="a copy",
        ),
        pytest.param(b"\x80\x02ctorch\nFloatStorage\n)R.", "calls something", id="a storage made here"),
        pytest.param(b"\x80\x02" + number(5) + b"}b.", "changes an object", id="a state of a number"),
        pytest.param(
            b"\x80\x02}" + text("a") + number(1) + b"s.", "something else than named", id="no tensor"
        ),
        pytest.param(b"\x80\x02].", "no table of tensors", id="a list"),
        pytest.param(b"\x80\x02}.", "no table of tensors", id="an empty table"),
        pytest.param(b"\x80\x02}}.", "out of order", id="two values"),
        pytest.param(b"\x80\x02(.", "out of order", id="a mark alone"),
        pytest.param(b"\x80\x02.", "out of order", id="nothing"),
        pytest.param(b"\x80\x02}(" + number(1) + number(2) + b"u.", "that is no text", id="a number as key"),
        pytest.param(b"\x80\x02}q\x00h\x00h\x00s.", "that is no text", id="a table inside itself"),
        pytest.param(b"\x80\x02h\x05.", "damaged", id="a memo that is empty"),
        pytest.param(
            b"\x80\x02" + b"\x8b" + struct.pack("<i", 2**31 - 1) + b".", "damaged", id="a huge number"
        ),
        pytest.param(b"\x80\x02" + b"(" * 1_200_000 + b".", "longer than any", id="a million marks"),
    ],
)
def test_a_pickle_that_is_more_than_a_table_is_refused(pickled: bytes, says: str) -> None:
    for content in (stream(pickled), archive(pickled)):
        with pytest.raises(ModelError, match=says) as caught:
            read_checkpoint(content)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(tensor(storage(), (2, 3), (1, 2)), id="columns"),
        pytest.param(tensor(storage(), (2, 3), (0, 0)), id="one value everywhere"),
        pytest.param(tensor(storage(), (100, 100), (100, 1)), id="larger than its storage"),
        pytest.param(tensor(storage(), (2, 3), (3, 1), 1), id="over the end"),
        pytest.param(tensor(storage(), (2, 3), (3, 1), -1), id="before the beginning"),
        pytest.param(tensor(storage(), (-2, -3), (3, 1)), id="negative sides"),
        pytest.param(tensor(storage(), (0, 3), (3, 1)), id="no values"),
        pytest.param(tensor(storage(), (2, 3), (1,)), id="too few strides"),
        pytest.param(tensor(storage(), (1,) * 9, (1,) * 9), id="nine dimensions"),
        pytest.param(tensor(storage(count=2**31 - 1)), id="a storage of 8 GB"),
        pytest.param(tensor(storage(count=-6)), id="a storage of less than nothing"),
        pytest.param(tensor(storage(key="../7")), id="a storage elsewhere"),
        pytest.param(tensor(storage(kind="Half")), id="half floats"),
        pytest.param(tensor(text("7")), id="no storage"),
    ],
)
def test_a_tensor_that_is_none_is_refused(value: bytes) -> None:
    for content in (stream(table(weight=value), ("7",), SEVEN), archive(table(weight=value))):
        with pytest.raises(ModelError, match=r"that is none|no table of tensors needs"):
            read_checkpoint(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "damaged", id="empty"),
        pytest.param(b"GIF89a" + bytes(200), "damaged|needs", id="foreign"),
        pytest.param(plain(1), "no PyTorch checkpoint", id="another pickle"),
        pytest.param(HEAD.replace(b"\x88", b"\x89"), "little-endian", id="big-endian"),
        pytest.param(stream(keys=("7",)), "storages are not those", id="a storage too few"),
        pytest.param(stream(keys=("7", "7", "8")), "storages are not those", id="a storage twice"),
        pytest.param(stream(keys=(7, 8)), "storages are not those", id="keys that are numbers"),
        pytest.param(
            HEAD + GOOD_TABLE + TWICE_AS_OFTEN + SEVEN + EIGHT, "storages are not those", id="keys that grow"
        ),
        pytest.param(stream(keys=5), "storages are not those", id="no keys"),
        pytest.param(stream(values=struct.pack("<q", 7) + SEVEN[8:] + EIGHT), "another size", id="size"),
        pytest.param(stream(values=struct.pack("<q", -1) + SEVEN[8:]), "another size", id="negative size"),
        pytest.param(stream(values=SEVEN), "damaged", id="values missing"),
        pytest.param(stream(values=SEVEN + EIGHT[:-1]), "not whole", id="a byte missing"),
        pytest.param(stream() + b"x", "something follows", id="a byte more"),
        pytest.param(
            stream(table(a=tensor(storage()), b=tensor(storage(count=7))), ("7",), SEVEN),
            "disagree",
            id="disagree",
        ),
        pytest.param(archive(compressed=True), "compressed or too large", id="a bomb"),
        pytest.param(archive(order=b"big"), "little-endian", id="archive of a big-endian machine"),
        pytest.param(archive(seven=bytes(25)), "compressed or too large", id="archive with a longer storage"),
        pytest.param(archive(seven=bytes(23)), "not whole", id="archive with a shorter storage"),
        pytest.param(archive()[:-30], "damaged archive", id="truncated archive"),
        pytest.param(
            archive(table(a=tensor(storage("9")))), "damaged: .*no item", id="archive without a storage"
        ),
    ],
)
def test_a_damaged_file_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_checkpoint(content)


@pytest.mark.parametrize("make", [stream, archive])
def test_every_truncation_is_refused(make: Callable[[], bytes]) -> None:
    content = make()
    for length in range(len(content)):
        with pytest.raises(ModelError):
            read_checkpoint(content[:length])


@pytest.mark.parametrize("make", [stream, archive])
def test_any_byte_may_be_wrong(make: Callable[[], bytes]) -> None:
    content = make()
    for at in range(len(content)):
        for other in (0, 0xFF, content[at] ^ 0x20):
            damaged = content[:at] + bytes([other]) + content[at + 1 :]
            try:
                found = read_checkpoint(damaged)
            except ModelError:
                continue
            assert all(isinstance(value, np.ndarray) for value in found.values())
