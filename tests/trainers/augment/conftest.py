from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainers.crops import face
from trainers.augment.autoencoders import Autoencoder, AutoencoderSpec, Budget, save_autoencoder, train_autoencoder


@pytest.fixture(scope="session")
def autoencoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small autoencoders, one barely trained and one untrained."""
    folder = tmp_path_factory.mktemp("autoencoders")
    budget = Budget(steps=2)
    trained, _ = train_autoencoder(
        AutoencoderSpec("a", "shuffle", 32, 2, 8, "l1_gradient", 8), [face(0)], budget, clock=lambda: 0.0
    )
    save_autoencoder(trained, folder)
    save_autoencoder(Autoencoder(AutoencoderSpec("b", "transposed", 32, 2, 8, "l1", 8)).eval(), folder)
    return folder
