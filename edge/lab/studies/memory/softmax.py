"""A softmax head on frozen embeddings: transfer learning as it is usually done, measured beside one-shot.

Multinomial logistic regression with spare logits for subjects to come. Full batches, Adam from zero weights,
no randomness: the same photos give the same head. It only serves comparison; the product retrains nothing.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray

Labels = NDArray[np.intp]

SCALE = 32.0
"""Length that unit embeddings are stretched to, so that a softmax over cosines can become sharp.

Source: Wang et al., NormFace (2017): without a scale its loss cannot fall. 30 to 64 is usual.
"""

STEPS = 200
RATE = 0.02
"""Step of Adam on the weights; it falls along half a cosine to nothing."""

DECAY = 3e-3
"""L2 penalty on the weights, relative to the loss.

Measured on lfw-dev, 689 subjects: rank-1 .9927-.9937 and TPIR at FPIR .01 .977-.978 for every decay from 1e-3
to 3e-2 and rates of .02 and .05. Where every photo weighs the same, not every subject: .75-.98 and .54-.93.
"""

BETA_MEAN, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8
"""Source: Kingma and Ba, Adam (2015)."""


@dataclass(frozen=True, slots=True, eq=False)
class SoftmaxHead:
    """Weights float32 (L, D) and biases (L,); the first `used` logits are subjects, the rest are spare."""

    weights: FloatArray
    biases: FloatArray
    used: int

    @classmethod
    def blank(cls, logits: int, dim: int, used: int) -> "SoftmaxHead":
        """Return an untrained head."""
        return cls(np.zeros((logits, dim), np.float32), np.zeros(logits, np.float32), used)

    def logits(self, embeddings: FloatArray) -> FloatArray:
        """Return the logits (N, L) of unit embeddings (N, D), spare ones included."""
        return np.asarray(SCALE * embeddings @ self.weights.T + self.biases, np.float32)

    def scores(self, embeddings: FloatArray, *, probability: bool) -> FloatArray:
        """Return (N, used): the logits of subjects, or their probabilities among all logits."""
        logits = self.logits(embeddings)
        return (_softmax(logits) if probability else logits)[:, : self.used]

    def with_mean(self, mean: FloatArray) -> "SoftmaxHead":
        """Write a subject's mean embedding (D,) into the next spare logit, as long as the others' rows are.

        Raises:
            ValueError: No logit is spare.
        """
        if self.used >= len(self.biases):
            raise ValueError("no spare logit is left: the head has to be made anew, wider")
        weights, biases = self.weights.copy(), self.biases.copy()
        length = np.linalg.norm(weights[: self.used], axis=1).mean()
        weights[self.used] = mean / np.linalg.norm(mean) * length
        biases[self.used] = biases[: self.used].mean()
        return SoftmaxHead(weights, biases, self.used + 1)

    def with_logit(self) -> "SoftmaxHead":
        """Give the next spare logit to a subject that is yet to be learned."""
        return replace(self, used=self.used + 1)


def train(
    head: SoftmaxHead,
    embeddings: FloatArray,
    labels: Labels,
    *,
    steps: int = STEPS,
    rate: float = RATE,
    decay: float = DECAY,
) -> SoftmaxHead:
    """Return the head trained further on unit embeddings (N, D) with labels (N,) below `head.used`.

    Minimises the cross-entropy, in which every subject weighs the same however many photos it has, plus
    `decay` / 2 times the squared weights.
    """
    share = 1 / np.bincount(labels, minlength=head.used)[labels]
    share = (share / share.sum()).astype(np.float32)[:, None]
    values = [head.weights.astype(np.float32), head.biases.astype(np.float32)]
    means = [np.zeros_like(value) for value in values]
    squares = [np.zeros_like(value) for value in values]
    inputs = np.ascontiguousarray(SCALE * embeddings, np.float32)
    for step in range(1, steps + 1):
        error = _softmax(inputs @ values[0].T + values[1])
        error[np.arange(len(labels)), labels] -= 1
        error *= share
        gradients = [error.T @ inputs + decay * values[0], error.sum(axis=0)]
        now = rate * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps))
        for value, gradient, mean, square in zip(values, gradients, means, squares, strict=True):
            mean += (1 - BETA_MEAN) * (gradient - mean)
            square += (1 - BETA_SQUARE) * (gradient * gradient - square)
            unbiased = mean / (1 - BETA_MEAN**step)
            value -= now * unbiased / (np.sqrt(square / (1 - BETA_SQUARE**step)) + EPSILON)
    return replace(head, weights=values[0], biases=values[1])


def _softmax(logits: FloatArray) -> FloatArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)
