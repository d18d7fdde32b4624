"""Questions answered by measurement: one-shot, softmax, gate, fusion, variants."""
