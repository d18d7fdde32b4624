"""What a gallery looks like outside the process: bundles, deltas, seals, published names."""
