"""An accelerator that fails while it runs: onnxruntime's own provider beside the processor stands for it.

`python -m tests.support.accelerator FILE python -m edge run ...` runs a daemon with one, named "cuda". From
when the file is there, each run on it fails.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edge.__main__ import main
from edge.face.build.graph import GraphWriter, float_tensor
from edge.face.manifest import EXECUTION_PROVIDERS
from edge.face.session import Session

BESIDE = "AzureExecutionProvider"
"""Every wheel has it; it leaves all of a model to the processor."""


def fails_in_runs() -> bytes:
    """A model whose declared size is a lie that only shows when it runs."""
    graph = GraphWriter()
    flat = graph.node("Reshape", ["data", graph.constant("odd", np.array([7, -1], np.int64))], "flat")
    graph.node("Relu", [flat], "sum")
    return graph.finish([float_tensor("data", [1, 3, "h", "w"])], [float_tensor("sum", ["a", "b"])], name="t")


def lose(session: Session, model: bytes | None = None) -> None:
    """Let the provider in use run another model from now on, as a rule one that fails in each run."""
    session._session = onnxruntime.InferenceSession(model or fails_in_runs(), providers=[BESIDE])


def fail_from(lost: Path) -> None:
    """Let all runs on the accelerator fail from when the file `lost` is there."""
    run = onnxruntime.InferenceSession.run

    def run_or_fail(self: onnxruntime.InferenceSession, *arguments: Any) -> Any:
        if self.get_providers()[0] == BESIDE and lost.exists():
            raise RuntimeError("CUDA failure 2: out of memory")
        return run(self, *arguments)

    onnxruntime.InferenceSession.run = run_or_fail


if __name__ == "__main__":
    EXECUTION_PROVIDERS["cuda"] = BESIDE
    fail_from(Path(sys.argv[1]))
    sys.argv[1:] = sys.argv[5:]
    main()
