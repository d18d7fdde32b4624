"""Makes the integer graphs of the embedder and the detector from published weights."""
