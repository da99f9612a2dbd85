"""Records for tests of output."""

from __future__ import annotations

from typing import Any

from pipeline.contracts import Label, Outcome, Provenance, Verdict, clip_id_of

PROVENANCE = Provenance(
    model="xception",
    weights_sha256=["0" * 64],
    input_spec="0123456789abcdef",
    detector="mtcnn",
    sampling="fps=2",
    decoder="libavcodec 62 h264",
    software="unmask 0.1.0",
    source_sha256="1" * 64,
    untrained=False,
    network="xception over tf_efficientnet_lite0",
)


def record(source: str = "clip.mp4", outcome: Outcome = Outcome.SCORED, **changes: Any) -> Verdict:
    """A valid record; changes named after a provenance field apply to the provenance."""
    scored = outcome is Outcome.SCORED
    provenance = {name: changes.pop(name) for name in Provenance.model_fields if name in changes}
    fields: dict[str, Any] = {
        "id": clip_id_of(source),
        "source": source,
        "outcome": outcome,
        "probability": 0.75 if scored else None,
        "label": Label.FAKE if scored else None,
        "error": None if scored else "it broke",
        "duration_s": 9.8,
        "frames_sampled": 20,
        "frames_scored": 20 if scored else 0,
        "people": [],
        "frames": [],
        "provenance": PROVENANCE.model_copy(update=provenance),
        "elapsed_s": 1.7,
    }
    return Verdict.model_validate(fields | changes)
