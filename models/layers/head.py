"""The classifier on top of every detector."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.regularization import Dropout


class ClassifierHead(nn.Module):
    """Dropout and one linear layer: [B, features] -> [B, classes]."""

    def __init__(self, num_features: int, num_classes: int, dropout_rate: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout_rate)
        self.linear = nn.Linear(num_features, num_classes)
        # torch's default initialisation gives two logits of +-1 and more; zero would
        # pass no gradient. This one starts near P = 1/2 with all gradients nonzero.
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of features."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits
