"""Error rates: their intervals, the table from an evaluation, and which slice a value is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from models.error_rates import Called, RatesError, RateTable, packaged_rates, read_rates, slice_at, wilson
from models.zoo import find_entry, packaged_dir
from pipeline.commands.models import app


@given(total=st.integers(1, 10_000), share=st.floats(0, 1))
def test_an_interval_is_around_its_share(total: int, share: float) -> None:
    count = round(share * total)
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    assert low < high


def test_an_interval_is_the_published_one() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: Wilson's interval without continuity correction.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def called(fake: int, inconclusive: int, real: int) -> dict[str, int]:
    return {"total": fake + inconclusive + real, "fake": fake, "inconclusive": inconclusive, "real": real}


def evaluation(**changes: Any) -> dict[str, Any]:
    """A report of `unmask evaluate --json`, as far as it is read."""
    both = {"reals": called(1, 2, 7), "fakes": called(6, 3, 1)}
    half = {"reals": called(0, 1, 4), "fakes": called(3, 1, 1)}
    bands = [{"low": 0.5, "high": 0.75, "called": half}, {"low": 0.75, "high": 1.0, "called": half}]
    widths = [{"low": 64.0, "high": 96.0, "called": half}, {"low": 192.0, "high": None, "called": half}]
    found = {
        "kind": "crops",
        "rows_sha256": "ab",
        "frame": {"called": both},
        "video": {"called": both},
        "datasets": [
            {"dataset": "dfdc", "frame": {"counts": {"total": 20, "real": 10, "fake": 10}}},
            {"dataset": "dfdc, unseen actors", "frame": {"counts": {"total": 4, "real": 2, "fake": 2}}},
        ],
        "bands": bands,
        "face_bands": widths,
        "ladder": {"rungs": [{"name": "clean", "frame": {"called": half}}, {"name": "jpeg 50", "frame": None}]},
    }
    clips = {"kind": "clips"}
    model = {"weights_sha256": "12" * 32, "name": "mine", "looks": ""}
    settings = {"split": "val", "half": "report"}
    return {"model": model, "settings": settings, "created_at": 1.8e9, "sets": [found, clips]} | changes


def test_a_table_has_the_counts_of_the_evaluation() -> None:
    table = RateTable.of_evaluation(evaluation())
    assert table.whole.reals == Called(1, 2, 7)
    assert table.datasets == {"dfdc": (10, 10)}
    assert [(each.low, each.high) for each in table.quality] == [(0.5, 0.75), (0.75, 1.0)]
    assert [each.name for each in table.degraded] == ["clean"]
    assert (table.measured_on, table.split, table.half) == ("2027-01-15", "val", "report")
    assert RateTable.from_json(table.to_json()) == table
    twice = RateTable.of_evaluation(evaluation(sets=evaluation()["sets"] * 2))
    assert (twice.whole.fakes, twice.quality[0].reals) == (Called(12, 6, 2), Called(0, 2, 8))
    shares = json.loads(table.to_json())["whole"]["reals"]["shares"]
    assert shares["fake"] == {"share": 0.1, "interval_95": [round(end, 6) for end in wilson(1, 10)]}


@pytest.mark.parametrize(
    ("value", "low"), [(0.5, 0.5), (0.749, 0.5), (0.75, 0.75), (1.0, 0.75), (0.49, None), (float("nan"), None)]
)
def test_a_value_is_in_one_slice(value: float, low: float | None) -> None:
    found = slice_at(RateTable.of_evaluation(evaluation()).quality, value)
    assert (found and found.low) == low


def test_the_last_slice_of_widths_has_no_end() -> None:
    table = RateTable.of_evaluation(evaluation())
    assert slice_at(table.face_px, 5000.0) == table.face_px[-1]
    assert slice_at(table.face_px, 100.0) is None


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        ({}, "not an evaluation"),
        ([1], "not an evaluation"),
        (evaluation(sets=[{"kind": "clips"}]), "has no crops"),
        (evaluation(sets=[evaluation()["sets"][0] | {"frame": {"called": None}}]), "has no thresholds"),
    ],
)
def test_what_is_no_evaluation_is_refused(report: Any, fault: str) -> None:
    with pytest.raises(RatesError, match=fault):
        RateTable.of_evaluation(report)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"unmask_rates": 2}', '{"unmask_rates": 1}', "[" * 100_000])
def test_what_are_no_rates_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text(content)
    with pytest.raises(RatesError, match=r"rates\.json: not error rates"):
        read_rates(tmp_path / "rates.json")


def test_counts_are_counts() -> None:
    values = json.loads(RateTable.of_evaluation(evaluation()).to_json())
    values["whole"]["reals"]["fake"] = -1
    with pytest.raises(RatesError, match="expected a count"):
        RateTable.from_json(json.dumps(values))


def test_the_packaged_rates_are_of_packaged_weights() -> None:
    sha256 = find_entry("unmask-small").sha256
    table = packaged_rates(sha256)
    assert table is not None
    assert (table.weights_sha256, table.model) == (sha256, "unmask-small")
    assert table.whole.reals.total == sum(reals for reals, _ in table.datasets.values()) > 500
    for slices in (table.quality, table.face_px):
        assert sum(each.fakes.total for each in slices) == table.whole.fakes.total
    assert packaged_rates("0" * 64) is None
    assert {file.name for file in packaged_dir().glob("*.rates.json")} == {"unmask-small.rates.json"}


def test_the_command_makes_a_table(tmp_path: Path) -> None:
    report, out = tmp_path / "evaluation.json", tmp_path / "mine.rates.json"
    report.write_text(json.dumps(evaluation()))
    made = CliRunner().invoke(app, ["rates", str(report), "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert made.output.endswith("rates of mine on 10 reals and 10 fakes, 2027-01-15\n")
    assert read_rates(out) == RateTable.of_evaluation(evaluation())
    report.write_text("no JSON")
    assert CliRunner().invoke(app, ["rates", str(report), "--out", str(out)]).exit_code == 2
    assert CliRunner().invoke(app, ["rates", str(out), "--out", str(report)]).exit_code == 2
    assert CliRunner().invoke(app, ["rates", str(report), "--out", str(report)]).exit_code == 2
