"""Photos to embeddings to error rates."""
