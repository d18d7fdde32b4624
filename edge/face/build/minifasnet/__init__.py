"""MiniFASNet, a liveness network: reads its authors' checkpoint and writes it as ONNX."""
