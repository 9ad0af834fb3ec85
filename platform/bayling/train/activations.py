"""What the backward pass needs of the forward pass: bytes of activations in one micro batch.

Counted from the operations of transformers' `LlamaDecoderLayer` and of `network.PackedLoss`: a
tensor is kept when the derivative of an operation needs it (torch/csrc/autograd/derivatives.yaml).
The sums are those of arXiv 2205.05198, section 4.1, for a network with RMS norms and gated
feed-forward layers, without their dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from bayling.shape import Shape
from bayling.train.config import Precision, TrainConfig


@dataclass(frozen=True)
class Batch:
    """What a worker takes through the network between two optimizer steps."""

    sequences: int
    """In one micro batch."""
    length: int
    """Tokens in a sequence."""
    micro_steps: int = 1
    supervised: float = 1.0
    """The part of the positions that the model is trained to write: only they have logits."""


def element(precision: Precision) -> int:
    """Bytes of one weight, gradient or activation; frozen weights have the same type."""
    return 4 if precision is Precision.fp32 else 2


LOGITS_AT_ONCE = 2**26
"""Logits that are made at a time, 256 MiB in fp32: the loss of more tokens is taken in slices."""
MASKED_UP_TO = 256
"""Tokens of a sequence up to which one masked product is faster on a CPU than a call for every
conversation."""


class Activations:
    """Bytes of one worker's micro batch.

    `exact` attention is the plain implementation, which keeps its (heads × length × length)
    matrices; otherwise a fused kernel keeps what goes in and comes out.
    """

    def __init__(self, train: TrainConfig, shape: Shape, batch: Batch, exact: bool) -> None:
        self.shape, self.exact = shape, exact
        self.size = element(train.precision)
        self.half = self.size == 2
        self.tokens = batch.sequences * batch.length
        self.length = batch.length
        self.supervised = batch.supervised * self.tokens
        """Positions that have logits, not bytes."""
        self.checkpointing = train.gradient_checkpointing
        self.lora = train.lora if train.lora.rank else None

    @property
    def peak(self) -> int:
        """At the beginning of the backward pass: everything kept, and its first temporaries."""
        each, layers = self.layer, self.shape.layers
        if not self.checkpointing:
            kept, again = layers * each, self.temporary
        else:
            # Each layer's input; then one layer is computed again.
            kept, again = layers * self.tokens * self.shape.hidden * self.size, each
            again += self.temporary
        return int(self.mask + kept + max(self.loss + self.norm, again))

    @property
    def layer(self) -> float:
        """Kept of one layer."""
        return 2 * self.norm + self._projections() + self._attention() + self._gate()

    @property
    def norm(self) -> float:
        """Kept of one RMS norm: its input in fp32, and, unless frozen, the normalised input."""
        trained = 0 if self.lora else self.size
        return self.tokens * self.shape.hidden * (4 + trained)

    def _projections(self) -> float:
        """Inputs of the linear layers, kept for the gradients of their weights."""
        shape = self.shape
        groups = (
            (("q_proj", "k_proj", "v_proj"), shape.hidden),
            (("o_proj",), shape.attention),
            (("gate_proj", "up_proj"), shape.hidden),
            (("down_proj",), shape.intermediate),
        )
        if self.lora is None:
            return self.tokens * self.size * sum(width for _, width in groups)
        total = 0.0
        for names, width in groups:
            adapted = sum(name in self.lora.targets for name in names)
            if not adapted:
                continue
            if self.lora.dropout:
                # Each adapter has its own mask (of the input's type on a CPU, a byte on a GPU)
                # and its own masked input.
                mask = self.size if self.exact else 1
                total += adapted * width * (self.size + mask)
            else:
                total += width * self.size
            total += adapted * self.lora.rank * self.size
        return self.tokens * total

    def _attention(self) -> float:
        """Queries, keys and values – keys and values repeated for every head – and scores."""
        shape = self.shape
        inputs = 3 * shape.attention * self.size
        if self.exact:
            # softmax in fp32, and its copy in half precision for the product with the values.
            return self.tokens * (inputs + self.scores * (4 + (self.size if self.half else 0)))
        # What comes out, the log-sum of every row, and the mask as the kernel's additive bias.
        output = shape.attention * self.size if self.lora else 0
        return self.tokens * (inputs + output + 4 * shape.heads + self.length * self.size)

    @property
    def scores(self) -> int:
        """Attention scores of one token in one layer, not bytes."""
        return self.shape.heads * self.length

    def _gate(self) -> float:
        """Both branches of the feed-forward layer, and the activated one."""
        return 3 * self.tokens * self.shape.intermediate * self.size

    @property
    def mask(self) -> float:
        """The block-diagonal mask, one for all layers."""
        return self.tokens * self.length * (self.size if self.exact else 1)

    @property
    def temporary(self) -> float:
        """What a layer's backward pass needs at most beyond what is kept at that moment."""
        feed_forward = self.tokens * self.size * (self.shape.hidden + 2 * self.shape.intermediate)
        if not self.exact:
            return feed_forward
        # softmax's backward pass has its result, the gradient of it and of its input in fp32; by
        # then the feed-forward layer and its norm are done with.
        scores = self.tokens * self.scores * (8 - (self.size if self.half else 0))
        freed = self._gate() + self.norm
        return max(feed_forward, scores - freed)

    @property
    def loss(self) -> float:
        """Log-probabilities in fp32, the gradient with respect to them, and to the logits: of one
        slice of the supervised tokens."""
        return 12 * min(self.supervised * self.shape.vocab, float(LOGITS_AT_ONCE))
