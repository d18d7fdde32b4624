import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.core.errors import ModelError, ModelIntegrityError, ModelShapeError
from edge.core.process import rss_mb
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.manifest import (
    EXECUTION_PROVIDERS,
    ON_CPU,
    Input,
    Manifest,
    Output,
    Provider,
    load_manifest,
    model_names,
    parts_of,
)
from edge.face.session import Session, pattern, read_golden, sample, self_test
from edge.face.weights import load_verified
from tests.support.accelerator import BESIDE, fails_in_runs, lose

TOY_INPUT = Input(name="data", size=(4, 4), colour="rgb")
TOY_OUTPUT = Output(names=("sum",), dim=8)


def toy(
    *, name: str = "data", shape: tuple[int | str, ...] = (1, 3, 4, 4), output: str = "sum", dim: int = 8
) -> bytes:
    graph = GraphWriter()
    flat = graph.node("Flatten", [name], "flat")
    graph.node("MatMul", [flat, graph.constant("w", np.ones((48, dim), np.float32))], output)
    return graph.finish([float_tensor(name, list(shape))], [float_tensor(output, [1, dim])], name="toy")


def test_a_session_answers_with_its_declared_outputs() -> None:
    session = Session(toy(), inputs=TOY_INPUT, outputs=TOY_OUTPUT, threads=1)
    [result] = session.run(np.full((1, 3, 4, 4), 0.5, np.float32))
    assert result.tolist() == [[24.0] * 8]
    assert session.output_names == ("sum",)
    assert session.provider == "CPUExecutionProvider"


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), id="foreign"),
        pytest.param(toy()[:-20], id="truncated"),
    ],
)
def test_what_is_no_model_is_refused(model: bytes) -> None:
    with pytest.raises(ModelError, match="onnxruntime cannot load the model") as error:
        Session(model, inputs=TOY_INPUT, outputs=TOY_OUTPUT, threads=1)
    assert "\n" not in str(error.value)


def large_inside(values: int) -> bytes:
    graph = GraphWriter()
    flat = graph.node("Flatten", ["data"], "flat")
    one = graph.node("MatMul", [flat, graph.constant("w", np.ones((48, 1), np.float32))], "one")
    many = graph.node("Expand", [one, graph.constant("wide", np.array([1, values], np.int64))], "many")
    mean = graph.node("ReduceMean", [many], "mean", axes=[1])
    graph.node("Expand", [mean, graph.constant("narrow", np.array([1, 8], np.int64))], "sum")
    return graph.finish([float_tensor("data", [1, 3, 4, 4])], [float_tensor("sum", [1, 8])], name="large")


def test_runs_of_all_sessions_share_their_buffers() -> None:
    held_mb = 40
    first, second = (
        Session(large_inside(held_mb * 250_000), inputs=TOY_INPUT, outputs=TOY_OUTPUT, threads=1)
        for _ in range(2)
    )
    image = np.zeros((1, 3, 4, 4), np.float32)
    first.run(image)
    before_mb, faults = rss_mb(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for session in (first, second):
        session.run(image)
    assert rss_mb() - before_mb < held_mb / 2
    fresh_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) * resource.getpagesize() / 1e6
    assert fresh_mb < held_mb / 2, "nothing was asked of the kernel again"


def two_inputs() -> bytes:
    graph = GraphWriter()
    graph.node("Add", ["data", "more"], "sum")
    tensors = [float_tensor(name, [1, 3, 4, 4]) for name in ("data", "more")]
    return graph.finish(tensors, [float_tensor("sum", [1, 3, 4, 4])], name="toy")


def bytes_input() -> bytes:
    graph = GraphWriter()
    graph.node("Cast", ["data"], "sum", to=TensorProto.FLOAT)
    data = helper.make_tensor_value_info("data", TensorProto.UINT8, [1, 3, 4, 4])
    return graph.finish([data], [float_tensor("sum", [1, 3, 4, 4])], name="toy")


def greedy() -> bytes:
    """An input of 48 numbers that becomes 4 billion."""
    graph = GraphWriter()
    shape = graph.constant("shape", np.array([48, 100_000_000], np.int64))
    flat = graph.node("Reshape", ["data", graph.constant("column", np.array([48, 1], np.int64))], "flat")
    graph.node("Expand", [flat, shape], "sum")
    return graph.finish(
        [float_tensor("data", [1, 3, 4, 4])], [float_tensor("sum", [48, 100_000_000])], name="toy"
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(toy(name="x"), r"inputs are \[x\], the manifest declares \[data\]", id="input name"),
        pytest.param(two_inputs(), r"inputs are \[data, more\]", id="two inputs"),
        pytest.param(bytes_input(), r"input tensor\(uint8\)", id="input type"),
        pytest.param(toy(shape=(1, 3, 2, 8)), r"input \[1, 3, 2, 8\] is not \(1, 3, 4, 4\)", id="size"),
        pytest.param(toy(shape=(1, 48, 1, 1)), r"is not float32 \(1, 3, 4, 4\)", id="channels"),
        pytest.param(toy(shape=(1, 3, "h", "w")), r"is not float32 \(1, 3, 4, 4\)", id="free size"),
        pytest.param(toy(output="other"), "has no output sum", id="output name"),
        pytest.param(toy(dim=16), r"output sum \[1, 16\] is not \[1, 8\]", id="dim"),
        pytest.param(greedy(), "absurdly large", id="absurd output"),
    ],
)
def test_a_model_with_other_inputs_or_outputs_is_refused(model: bytes, message: str) -> None:
    with pytest.raises(ModelShapeError, match=message):
        Session(model, inputs=TOY_INPUT, outputs=TOY_OUTPUT, threads=1)


def test_a_fixed_model_cannot_pose_as_one_of_free_size() -> None:
    inputs = Input(name="data", multiple_of_px=4, colour="bgr")
    with pytest.raises(ModelShapeError, match="H and W free multiples of 4"):
        Session(toy(), inputs=inputs, outputs=TOY_OUTPUT, threads=1)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.zeros((1, 3, 4, 4)), id="float64"),
        pytest.param(np.zeros((1, 3, 4, 4), np.uint8), id="uint8"),
        pytest.param(np.zeros((1, 3, 4, 5), np.float32), id="other width"),
        pytest.param(np.zeros((2, 3, 4, 4), np.float32), id="batch of two"),
        pytest.param(np.zeros((4, 4, 3), np.float32), id="an image"),
    ],
)
def test_an_array_that_was_not_declared_is_refused(array: np.ndarray) -> None:  # type: ignore[type-arg]
    session = Session(toy(), inputs=TOY_INPUT, outputs=TOY_OUTPUT, threads=1)
    session.run(np.zeros((1, 3, 4, 4), np.float32))
    with pytest.raises(ModelShapeError, match=r"is not float32 \(1, 3, 4, 4\)"):
        session.run(array)


def test_a_model_that_fails_while_running_is_a_model_error() -> None:
    inputs = Input(name="data", multiple_of_px=4, colour="bgr")
    session = Session(fails_in_runs(), inputs=inputs, outputs=Output(names=("sum",)), threads=1)
    with pytest.raises(ModelError, match="onnxruntime failed"):
        session.run(np.zeros((1, 3, 4, 4), np.float32))


@pytest.mark.parametrize("name", model_names())
def test_every_installed_model_passes_its_self_test(name: str, request: pytest.FixtureRequest) -> None:
    manifest = load_manifest(name)
    models_dir = request.getfixturevalue("recommended_dir" if manifest.optional else "models_dir")
    for part in parts_of(manifest):
        session = Session.of(part, load_verified(part, models_dir), threads=1)
        self_test(session, part)


def with_noise(model: bytes, tensor: str) -> bytes:
    """Return a model that loads and runs but has one constant negated."""
    proto = onnx.load_model_from_string(model)
    constant = next(c for c in proto.graph.initializer if c.name == tensor)
    constant.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(constant), tensor))
    return bytes(proto.SerializeToString())


def test_a_model_that_computes_something_else_fails_its_self_test(models_dir: Path) -> None:
    manifest = load_manifest("sface-int8")
    model = with_noise(load_verified(manifest, models_dir), "conv_7_w")
    session = Session.of(manifest, model, threads=1)
    with pytest.raises(ModelIntegrityError, match="self-test failed: output fc1 has cosine"):
        self_test(session, manifest)


def test_a_model_that_answers_nothing_fails_its_self_test(tmp_path: Path) -> None:
    graph = GraphWriter()
    flat = graph.node("Flatten", ["data"], "flat")
    zeros = graph.constant("w", np.zeros((3 * 112 * 112, 128), np.float32))
    graph.node("MatMul", [flat, zeros], "fc1")
    tensors = [float_tensor("data", [1, 3, 112, 112])], [float_tensor("fc1", [1, 128])]
    manifest = load_manifest("sface-fp32")
    session = Session.of(manifest, graph.finish(*tensors, name="zero"), threads=1)
    with pytest.raises(ModelIntegrityError, match="cosine nan"):
        self_test(session, manifest)


def test_a_foreign_golden_file_is_refused(models_dir: Path) -> None:
    yunet, sface = load_manifest("yunet"), load_manifest("sface-fp32")
    session = Session.of(sface, load_verified(sface, models_dir), threads=1)
    foreign: Manifest = sface.model_copy(update={"directory": yunet.directory})
    with pytest.raises(ModelError):
        self_test(session, foreign)


@pytest.mark.parametrize(
    "text",
    [pytest.param("", id="empty"), pytest.param("{}", id="no keys"), pytest.param("[[[", id="no JSON")],
)
def test_a_damaged_golden_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "golden.json").write_text(text)
    with pytest.raises(ModelError, match="damaged golden file; install edge again"):
        read_golden(tmp_path / "golden.json")
    with pytest.raises(ModelError, match="cannot read the golden file"):
        read_golden(tmp_path / "none.json")


def test_the_detector_takes_any_multiple_of_32(models_dir: Path) -> None:
    manifest = load_manifest("yunet")
    session = Session.of(manifest, load_verified(manifest, models_dir), threads=1)
    for height, width in ((192, 320), (256, 320), (160, 192), (384, 640)):
        outputs = dict(zip(session.output_names, session.run(pattern(height, width)), strict=True))
        for stride in (8, 16, 32):
            assert outputs[f"head_{stride}"].shape == (1, 16, height // stride, width // stride)


def test_the_golden_input_is_whole_numbers_that_vary() -> None:
    image = pattern(112, 112)
    assert image.shape == (1, 3, 112, 112)
    assert image.dtype == np.float32
    assert np.array_equal(image, np.rint(image))
    assert image.min() >= 0
    assert image.max() <= 255
    assert image.std() > 40


def test_a_sample_is_short_and_spans_the_output() -> None:
    values = np.arange(1000, dtype=np.float32)
    assert len(sample(values)) <= 128
    assert sample(values)[-1] > 980


@pytest.mark.parametrize("needed", ["99.0", "1.100"])
def test_a_runtime_too_old_for_a_model_is_named_before_it_is_tried(needed: str) -> None:
    manifest = load_manifest("sface-int8").model_copy(update={"needs_onnxruntime": needed})
    with pytest.raises(ModelError, match=rf"sface-int8: needs onnxruntime {needed} or newer, here is .*auto"):
        Session.of(manifest, b"never parsed", threads=1)


def test_a_runtime_new_enough_is_compared_by_numbers_not_letters(models_dir: Path) -> None:
    manifest = load_manifest("sface-int8").model_copy(update={"needs_onnxruntime": "1.9"})
    Session.of(manifest, load_verified(manifest, models_dir), threads=1)


ACCELERATED = (Provider("cuda"), Provider("openvino", {"device_type": "GPU"}))


def test_a_provider_that_this_onnxruntime_has_not_is_told_and_the_next_is_taken(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = load_manifest("sface-int8", models_dir)
    model = load_verified(manifest, models_dir)
    session = Session.of(manifest, model, threads=1, providers=ACCELERATED)
    self_test(session, manifest)
    assert session.provider == "CPUExecutionProvider"
    assert [line.getMessage() for line in caplog.records] == [
        "sface-int8 does not run on cuda: this onnxruntime has no CUDAExecutionProvider",
        "sface-int8 does not run on openvino: this onnxruntime has no OpenVINOExecutionProvider",
    ]


def test_a_provider_whose_options_are_refused_is_told_and_the_next_is_taken(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = load_manifest("yunet", models_dir)
    model = load_verified(manifest, models_dir)
    monkeypatch.setitem(EXECUTION_PROVIDERS, "qnn", "XnnpackExecutionProvider")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(EXECUTION_PROVIDERS.values()))
    session = Session.of(manifest, model, threads=1, providers=(Provider("qnn"), *ON_CPU))
    assert session.provider == "CPUExecutionProvider"
    [line] = [line.getMessage() for line in caplog.records]
    assert line.startswith("yunet does not run on qnn: ")


def on_accelerator(
    name: str, models_dir: Path, monkeypatch: pytest.MonkeyPatch, *others: Provider
) -> tuple[Session, Manifest]:
    monkeypatch.setitem(EXECUTION_PROVIDERS, "cuda", BESIDE)
    manifest = load_manifest(name, models_dir)
    providers = (Provider("cuda"), *others)
    session = Session.of(manifest, load_verified(manifest, models_dir), threads=1, providers=providers)
    assert session.provider == BESIDE
    return session, manifest


@pytest.mark.parametrize("right", [True, False])
def test_an_accelerator_is_used_where_it_computes_what_it_should(
    right: bool,
    tmp_path: Path,
    models_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(EXECUTION_PROVIDERS, "cuda", BESIDE)
    manifest = load_manifest("sface-int8", models_dir)
    if not right:
        golden = read_golden(manifest.golden_path)
        wrong = {name: tuple(-each for each in values) for name, values in golden.outputs.items()}
        (tmp_path / "wrong.json").write_text(golden.model_copy(update={"outputs": wrong}).model_dump_json())
        manifest = manifest.model_copy(update={"golden": str(tmp_path / "wrong.json")})
    model = load_verified(manifest, models_dir)
    session = Session.of(manifest, model, threads=1, providers=(Provider("cuda"),))
    assert session.provider == (BESIDE if right else "CPUExecutionProvider")
    assert len(caplog.records) == (0 if right else 1)
    if not right:
        assert (
            "sface-int8 does not run on cuda: sface-int8: self-test failed" in caplog.records[0].getMessage()
        )


def test_an_accelerator_that_fails_in_a_run_is_left_for_the_processor_and_told_once(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session, manifest = on_accelerator("sface-int8", models_dir, monkeypatch)
    face = pattern(112, 112)
    [expected] = session.run(face)
    lose(session)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(session.run, [face] * 8))
    assert all(np.array_equal(answer, expected) for [answer] in answers), "no shot is lost"
    assert session.provider == "CPUExecutionProvider"
    self_test(session, manifest)
    [line] = [line.getMessage() for line in caplog.records]
    assert line.startswith(
        "sface-int8 failed on cuda while it ran, and goes on on CPUExecutionProvider until the next reload "
        "or start: onnxruntime failed: "
    )
    lose(session)
    with pytest.raises(ModelError, match=r"^onnxruntime failed"):
        session.run(face)


def test_the_providers_after_the_one_that_failed_are_tried_in_turn(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session, manifest = on_accelerator("yunet", models_dir, monkeypatch, Provider("openvino"))
    lose(session)
    self_test(session, manifest)
    assert [line.getMessage().partition(",")[0] for line in caplog.records] == [
        "yunet does not run on openvino: this onnxruntime has no OpenVINOExecutionProvider",
        "yunet failed on cuda while it ran",
    ]


def test_a_processor_that_computes_something_else_does_not_stand_in_for_an_accelerator(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, manifest = on_accelerator("sface-int8", models_dir, monkeypatch)
    lose(session)
    right, damaged = manifest.golden_path, tmp_path / "golden.json"
    wrong = {name: tuple(-each for each in values) for name, values in read_golden(right).outputs.items()}
    damaged.write_text(read_golden(right).model_copy(update={"outputs": wrong}).model_dump_json())
    monkeypatch.setattr(Manifest, "golden_path", damaged)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"^onnxruntime failed: .*; and on the next provider: .*failed"):
            session.run(pattern(112, 112))
    assert session.provider == BESIDE
    monkeypatch.setattr(Manifest, "golden_path", right)
    session.run(pattern(112, 112))
    assert session.provider == "CPUExecutionProvider", "tried again"
