"""Prints the declared run-time dependencies without torch and what depends on it: those of serving on a CPU."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

# Serving reads graphs with OpenVINO; these are of training, of GPUs and of making graphs.
WITHOUT = frozenset({"torch", "torchvision", "timm", "facenet-pytorch", "safetensors", "huggingface_hub"})
EXTRAS = ("oidc", "otel", "pdf", "remote", "serve", "timestamp")


def main() -> None:
    """One requirement on each line, as pyproject.toml has it."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    names = {re.split(r"[^\w-]", each)[0]: each for each in wanted}
    if missing := WITHOUT - names.keys():
        raise SystemExit(f"not among the dependencies: {', '.join(sorted(missing))}")
    print(*(each for each in wanted if re.split(r"[^\w-]", each)[0] not in WITHOUT), sep="\n")


if __name__ == "__main__":
    main()
