"""For whoever changes a recipe: ranges, comparison, pinning of built models."""
