"""`python -m tests.gallery.first_passes EMBEDDINGS.npz`: other exact ways to search a gallery.

A first pass says of every row how like the probe it can be at most: what it knows of the row, and the length
of what it leaves out. Rows that can be as like as the second best one is are left to be compared. Printed is
how many those are, and the processor's time of the passes over all rows, alternately on one core, beside
reading the 8-bit codes once. NumKong is timed where it is installed. File and rows are those of `recall`.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import simsimd
from onnx import TensorProto, helper, numpy_helper

from edge.core.types import FloatArray
from edge.gallery.int8_matcher import CHUNK, Int8Rows
from edge.lab.bench.search import one_core
from edge.lab.studies.memory.growth import blended
from tests.gallery.remote.recall import people_of

PROBES = 100
"""Of the enrolled, and as many of strangers."""

TURNS, WARM_UP = 25, 5
BLOCK = 65_536
"""Rows an onnxruntime session holds, and rows a call takes where that is tried."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    chosen = parser.parse_args()
    people = people_of(chosen.embeddings)
    others = blended(people.lenders, chosen.rows - len(people.enrolled), np.random.default_rng(7))
    rows = np.concatenate([people.enrolled, others])
    draw = np.random.default_rng(0)
    probes = np.concatenate([draw.permutation(each)[:PROBES] for each in (people.probes, people.strangers)])
    best = np.full((len(probes), 2), -np.inf, np.float32)
    for piece in _pieces(rows):
        best = np.partition(np.hstack([best, probes @ piece.T]), -2, axis=1)[:, -2:]
    for name, pass_ in first_passes(rows).items():
        left = np.zeros(len(probes), int)
        for piece in _pieces(rows):
            left += (pass_(probes, piece) >= best[:, :1] - 1e-6).sum(axis=1)
        known, strangers = np.median(left[:PROBES]), np.percentile(left[PROBES:], (50, 95))
        figures = {"known": int(known), "strangers": strangers.astype(int).tolist()}
        print(json.dumps({"rows": len(rows), "first pass": name, "rows left": figures}), flush=True)
    with one_core():
        for name, (ms, ratio) in times(scans(rows)).items():
            print(json.dumps({"rows": len(rows), "scan": name, "ms": ms, "x read floor": ratio}), flush=True)


def first_passes(rows: FloatArray) -> dict[str, Callable[[FloatArray, FloatArray], FloatArray]]:
    """Return what says how like probes (P, D) and rows (N, D) can be at most, float32 (P, N)."""

    def coded(bits: int) -> Callable[[FloatArray, FloatArray], FloatArray]:
        def upper(probes: FloatArray, piece: FloatArray) -> FloatArray:
            said = _coded(piece, bits)
            return probes @ said.T + np.linalg.norm(piece - said, axis=1)

        return upper

    def leading(count: int) -> Callable[[FloatArray, FloatArray], FloatArray]:
        def upper(probes: FloatArray, piece: FloatArray) -> FloatArray:
            near, far = probes @ axes[:, :count], piece @ axes[:, :count]
            rest = [np.sqrt(np.maximum(0, 1 - np.vecdot(each, each))) for each in (near, far)]
            return near @ far.T + np.outer(*rest)

        return upper

    some = rows[:: len(rows) // 20_000 + 1]
    axes = np.linalg.eigh(some.T @ some)[1][:, ::-1].astype(np.float32)
    passes = {f"{bits} bits": coded(bits) for bits in (8, 5, 4, 3, 2, 1)}
    return passes | {f"{count} axes": leading(count) for count in (32, 64, 96)}


def _coded(rows: FloatArray, bits: int) -> FloatArray:
    """Return what codes of so many bits say, each row with the scale that leaves out least of some."""
    if bits == 1:
        return np.sign(rows) * np.abs(rows).mean(axis=1, keepdims=True)
    low, top = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(axis=1, keepdims=True)
    tried = []
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        scale = largest * np.float32(share / (top + 0.5))
        tried.append(np.clip(np.rint(rows / scale), low, top) * scale)
    lost = np.stack([np.linalg.norm(rows - said, axis=1) for said in tried])
    return np.stack(tried)[lost.argmin(axis=0), np.arange(len(rows))]


def scans(rows: FloatArray) -> dict[str, Callable[[], Any]]:
    """Return passes over all rows that give every row a number, and the read floor."""
    coded = Int8Rows.of(rows)
    codes, count = coded.codes, len(rows)
    probe = codes[:1].copy()
    words = codes.reshape(-1).view(np.int64)

    def by_simsimd(width: int, block: int = count, **how: Any) -> Callable[[], Any]:
        cut, asked = np.ascontiguousarray(codes[:, :width]), probe[:, :width]
        how = {"metric": "dot", "out_dtype": "float32"} | how
        return lambda: [simsimd.cdist(asked, cut[at : at + block], **how) for at in range(0, count, block)]

    found: dict[str, Callable[[], Any]] = {
        "read floor": lambda: np.bitwise_xor.reduce(words),
        "simsimd (taken)": by_simsimd(128),
        "simsimd, 16,384 a call": by_simsimd(128, CHUNK),
        "simsimd, 65,536 a call": by_simsimd(128, BLOCK),
        "simsimd, 64 axes": by_simsimd(64),
        "simsimd, 32 axes": by_simsimd(32),
        "simsimd, 1 bit": by_simsimd(16, metric="hamming", dtype="bin8"),
        "onnxruntime, 8 bits": by_onnxruntime(codes, "MatMulInteger"),
        "onnxruntime, 4 bits": by_onnxruntime(codes, "MatMulNBits"),
    }
    if find_spec("numkong"):
        import numkong

        packed, gallery = numkong.dots_pack(probe), numkong.dots_pack(codes)
        found["NumKong, probe packed"] = lambda: numkong.dots_packed(codes, packed)
        found["NumKong, gallery packed"] = lambda: numkong.dots_packed(probe, gallery)
    return found


def by_onnxruntime(codes: np.ndarray, operator: str) -> Callable[[], Any]:
    """Return a pass by a matrix product whose constant is the gallery, which onnxruntime packs for itself."""
    dim = codes.shape[1]
    sessions = []
    for at in range(0, len(codes), BLOCK):
        block = codes[at : at + BLOCK]
        if operator == "MatMulInteger":
            constants = {"B": np.ascontiguousarray(block.T), "zero": np.array(128, np.uint8)}
            how: dict[str, Any] = {}
            kinds = (TensorProto.UINT8, TensorProto.INT32)
        else:
            # The values do not matter to the time: the first half of the codes' bytes serve as nibbles.
            nibbles = block[:, : dim // 2].view(np.uint8).reshape(len(block), 1, -1)
            constants = {"B": nibbles, "scales": np.ones(len(block), np.float32)}
            how = {"domain": "com.microsoft", "K": dim, "N": len(block), "bits": 4}
            how |= {"block_size": dim, "accuracy_level": 4}
            kinds = (TensorProto.FLOAT, TensorProto.FLOAT)
        graph = helper.make_graph(
            [helper.make_node(operator, ["A", *constants], ["Y"], **how)],
            "scan",
            [helper.make_tensor_value_info("A", kinds[0], [1, dim])],
            [helper.make_tensor_value_info("Y", kinds[1], [1, len(block)])],
            [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in constants.items()],
        )
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        sessions.append(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
    asked = codes[:1].view(np.uint8) ^ 128
    probe = asked if operator == "MatMulInteger" else codes[:1].astype(np.float32)
    return lambda: [session.run(None, {"A": probe}) for session in sessions]


def times(searches: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Return the processor's milliseconds of each, the median, and how many times those of the first."""
    spent_ms: dict[str, list[float]] = {name: [] for name in searches}
    for turn in range(TURNS + WARM_UP):
        for name, search in searches.items():
            search()  # not timed: the one before left its rows in the caches
            begun_s = time.thread_time()
            search()
            if turn >= WARM_UP:
                spent_ms[name].append((time.thread_time() - begun_s) * 1e3)
    middle = {name: float(np.median(each)) for name, each in spent_ms.items()}
    floor = next(iter(middle.values()))
    return {name: (round(ms, 4), round(ms / floor, 2)) for name, ms in middle.items()}


def _pieces(rows: FloatArray) -> Iterator[FloatArray]:
    return (rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK))


if __name__ == "__main__":
    main()
