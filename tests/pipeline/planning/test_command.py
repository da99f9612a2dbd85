"""`unmask plan`: plans from a file of figures, and errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from pipeline.commands.plan import run
from pipeline.planning.figures import figures_of, to_json
from tests.pipeline.planning.scenes import figures

app = Typer()
app.command()(run)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(to_json([figures(), figures(clip="b.mp4", clip_s=60.0)], "a machine")))
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def planned(bench: Path, *arguments: object) -> Any:
    target = bench.with_name("out.json")
    done = invoke("--bench", bench, "--json", target, *arguments)
    assert done.exit_code == 0, done.output
    return json.loads(target.read_text())


def test_figures_survive_their_file() -> None:
    assert figures_of(json.loads(json.dumps(figures().to_dict()))) == figures()


def test_a_plan_of_streams_holds_its_target(bench: Path) -> None:
    plan = planned(bench, "--streams", 40, "--p95", 2, "--shed-max", 0.02)["plan"]
    assert plan["simulated"]["latency_s"]["segment"]["p95"]["mean"] <= 2
    assert plan["simulated"]["shed"]["mean"] <= 0.02
    assert plan["fleet"]["workers"] >= plan["offered_workers"]
    assert plan["fleet"]["partitions"] % plan["fleet"]["workers"] == 0
    assert plan["resources"]["to_workers_bytes_s"] == pytest.approx(40 * 190_000 / 2)
    assert plan["stream_hour"] is None
    assert plan == planned(bench, "--streams", 40, "--p95", 2, "--shed-max", 0.02)["plan"]


def test_a_stricter_target_takes_more_workers(bench: Path) -> None:
    loose, strict = (
        planned(bench, "--videos-per-day", 4_000_000, "--p95", p95)["plan"]["fleet"]["workers"] for p95 in (20, 0.5)
    )
    assert strict > loose


def test_costs_follow_the_given_prices_alone(bench: Path) -> None:
    plan = planned(bench, "--streams", 20, "--workers", 4, "--price-worker-hour", 0.5)["plan"]
    assert plan["stream_hour"] == pytest.approx(4 * 0.5 / 20)
    assert plan["prices_missing"] == ["gb", "storage_gb_month", "redis_gb_month"]
    more = planned(bench, "--streams", 20, "--workers", 4, "--price-worker-hour", 0.5, "--price-gb", 0.1)["plan"]
    network = more["resources"]["network_bytes_s"] * 3600 / 1e9 * 0.1 / 20
    assert more["stream_hour"] == pytest.approx(plan["stream_hour"] + network)


def test_an_archive_has_its_worker_hours_and_deadline(bench: Path) -> None:
    alone = planned(bench, "--archive-hours", 1000, "--files", 100_000)["archive"]
    fast = planned(bench, "--archive-hours", 1000, "--files", 100_000, "--within", 2)["archive"]
    assert alone["cost"] is None
    assert alone["hours"] == alone["worker_hours"]
    assert fast["hours"] <= 2
    assert fast["workers"] > 1
    paid = planned(bench, "--archive-hours", 1000, "--price-worker-hour", 1, "--budget", 1)["archive"]
    assert 0 < paid["covered"] < 1
    assert paid["cost"] == pytest.approx(paid["worker_hours"])


def test_longer_files_cost_less_by_the_hour(bench: Path) -> None:
    few = planned(bench, "--archive-hours", 100, "--files", 100)["archive"]["worker_hours"]
    many = planned(bench, "--archive-hours", 100, "--files", 100_000)["archive"]["worker_hours"]
    assert few < many


def test_a_burst_is_simulated_over_time(bench: Path) -> None:
    found = planned(
        bench, "--videos-per-day", 200_000, "--burst", "10x", "--burst-minutes", 1, "--keda", "--keda-max", 8
    )
    over_time = found["over_time"]
    assert over_time["most_workers"] > found["plan"]["fleet"]["workers"]
    assert over_time["curve"][0]["at_s"] == 0
    assert over_time["simulated"]["runs"] == 3


def test_without_figures_the_error_names_the_command(tmp_path: Path) -> None:
    done = invoke("--streams", 1, "--bench", tmp_path / "absent.json")
    assert done.exit_code == 2
    assert "unmask bench CLIP --plan --json" in done.output


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1, "plan": [{}]}', '{"schema": 9, "plan": []}', "[" * 9999]
)
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    done = invoke("--streams", 1, "--bench", path)
    assert done.exit_code == 2
    assert "unmask bench CLIP --plan --json" in done.output


@pytest.mark.parametrize(
    "changes",
    [
        {"cores": 0},
        {"efficiency": 2.0},
        {"fps": float("nan")},
        {"fps": 10**400},
        {"batches": []},
        {"batches": [{"crops": 0, "wall_s": 1, "cpu_s": 1}]},
        {"clip_s": 0},
        {"clip_s": "x"},
        {"cores": 1.5},
        {"cores": True},
        {"machine": 3},
        {"video": {"fixed_s": "x", "video_s": 0.1, "frame_s": 0.1}},
        {"video": [1]},
        {"segment_services": {"wait_s": None}},
    ],
)
def test_impossible_figures_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "other.json"
    content = to_json([figures()], "a machine")
    content["plan"][0] |= changes
    path.write_text(json.dumps(content))
    done = invoke("--streams", 1, "--bench", path)
    assert done.exit_code == 2
    assert "unmask bench CLIP --plan --json" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--files", 3, "--streams", 1),
        ("--streams", 1, "--burst", "fast"),
        ("--streams", 1, "--spread", "normal"),
        ("--streams", 1, "--clip", "absent.mp4"),
        ("--archive-hours", 10, "--budget", 5),
        ("--archive-hours", 10, "--within", 0.00001),
        ("--streams", 100, "--partitions", 2),
        ("--videos-per-day", 10, "--p95", 0.01),
        ("--streams", 1, "--keda", "--keda-min", 9, "--keda-max", 3),
    ],
)
def test_bad_options_end_with_two(bench: Path, arguments: tuple[object, ...]) -> None:
    done = invoke("--bench", bench, *arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--videos-per-day", ()),
        ("--segment-s", ("--streams", 2)),
        ("--jitter-s", ("--streams", 2)),
        ("--video-s", ("--videos-per-day", 10)),
        ("--split-s", ("--videos-per-day", 10)),
        ("--p95", ("--streams", 2)),
        ("--shed-max", ("--streams", 2)),
        ("--start-s", ("--streams", 2)),
        ("--max-age-s", ("--streams", 2)),
        ("--burst-minutes", ("--streams", 2, "--burst", "2x")),
        ("--keda-lag", ("--streams", 2, "--keda")),
        ("--keda-cooldown-s", ("--streams", 2, "--keda")),
        ("--archive-hours", ("--within", 5)),
        ("--within", ("--archive-hours", 5000)),
        ("--budget", ("--archive-hours", 5000, "--price-worker-hour", 1)),
        ("--ttl-days", ("--streams", 2)),
        ("--retention-hours", ("--streams", 2, "--json", "-")),
        ("--stream-hours", ("--streams", 2)),
        ("--price-worker-hour", ("--streams", 2)),
        ("--price-gb", ("--streams", 2)),
    ],
)
def test_numbers_out_of_bounds_end_with_two_and_the_option(
    bench: Path, option: str, arguments: tuple[object, ...], value: str
) -> None:
    done = invoke("--bench", bench, *arguments, option, value)
    assert done.exit_code == 2, done.output
    assert option in done.output
    assert "Infinity" not in done.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--videos-per-day", 10, "--video-s", 1e9), ["--video-s"]),
        (("--videos-per-day", 10, "--video-s", 80_000, "--split-s", 0.01), ["--split-s"]),
        (("--videos-per-day", 1e-300), ["--videos-per-day"]),
        (("--streams", 1, "--stream-hours", 1e-300), ["--stream-hours"]),
        (("--streams", 1, "--burst", "9" * 400), ["--burst"]),
        (("--streams", 1, "--archive-hours", 10), ["--archive-hours", "--streams"]),
        (("--archive-hours", 10, "--keda"), ["--archive-hours", "--keda"]),
        (("--streams", 1, "--keda-lag", 5), ["--keda-lag", "--keda"]),
        (("--streams", 1, "--burst-minutes", 5), ["--burst-minutes", "--burst"]),
        (("--streams", 1, "--keda", "--keda-min", 5, "--keda-max", 2), ["--keda-min 5", "--keda-max 2"]),
        (("--streams", 1, "--budget", 0), ["--budget", "--archive-hours"]),
    ],
)
def test_options_that_do_not_belong_together_are_named(
    bench: Path, arguments: tuple[object, ...], named: list[str]
) -> None:
    done = invoke("--bench", bench, *arguments)
    assert done.exit_code == 2, done.output
    assert all(each in done.output for each in named), done.output


def test_a_budget_of_nothing_pays_for_nothing_and_a_price_of_nothing_for_all(bench: Path) -> None:
    for price, budget, covered in ((1, 0, 0), (0, 0, 1)):
        options = ("--archive-hours", 10, "--price-worker-hour", price, "--budget", budget)
        assert planned(bench, *options)["archive"]["covered"] == covered


def test_rare_videos_beside_streams_are_simulated_in_few_numbers(bench: Path) -> None:
    plan = planned(bench, "--streams", 2, "--videos-per-day", 100)["plan"]
    assert any("videos are rare" in note for note in plan["notes"])
    alone = planned(bench, "--videos-per-day", 100)["plan"]
    assert not any("videos are rare" in note for note in alone["notes"])


def test_more_than_can_be_simulated_is_refused(bench: Path) -> None:
    for arguments in (("--workers", 1), ("--workers", 20_000, "--burst", "1000x", "--burst-minutes", 1440)):
        done = invoke("--bench", bench, "--streams", 200_000, *arguments)
        assert done.exit_code == 2
        assert "--workers" in done.output


def test_a_given_fleet_that_misses_the_target_says_so(bench: Path) -> None:
    plan = planned(bench, "--streams", 200, "--workers", 3, "--partitions", 2)["plan"]
    assert plan["held"] is False
    assert plan["target"] == {"p95_s": 5.0, "shed": 0.01}
    text = "\n".join(plan["notes"])
    assert f"the work is that of {plan['offered_workers']:.2f} workers" in text
    assert "more workers than partitions, 3 and 2: 1 has nothing to do" in text
    assert "does not hold --p95 5" in text
    assert "does not hold --shed-max 0.01" in text
    enough = planned(bench, "--streams", 4, "--workers", 2)["plan"]
    assert enough["held"] is True
    assert not any("hold" in note or "the work is" in note for note in enough["notes"])


def test_work_above_the_workers_is_named_while_the_target_is_held(bench: Path) -> None:
    per_worker = 20 / planned(bench, "--streams", 20, "--workers", 2)["plan"]["offered_workers"]
    plan = planned(bench, "--streams", int(per_worker) + 1, "--workers", 1, "--p95", 60, "--shed-max", 0.9)["plan"]
    assert plan["held"] is True
    assert any("more arrives than 1 can do" in note for note in plan["notes"])


def test_a_burst_above_the_targets_says_so(bench: Path) -> None:
    found = planned(bench, "--streams", 20, "--burst", "10x", "--burst-minutes", 1)
    assert found["plan"]["held"] is True
    assert any("--shed-max 0.01 is not held" in note for note in found["over_time"]["notes"])


def test_an_interval_that_reaches_above_the_target_says_so(bench: Path) -> None:
    options = ("--streams", 40, "--workers", 4, "--shed-max", 0.99)
    p95 = planned(bench, *options)["plan"]["simulated"]["latency_s"]["segment"]["p95"]
    assert p95["low"] < p95["mean"] < p95["high"]
    between, above = (
        planned(bench, *options, "--p95", limit)["plan"]
        for limit in ((p95["mean"] + p95["high"]) / 2, p95["high"] * 1.01)
    )
    assert between["held"] is above["held"] is True
    assert any("choose more workers" in note for note in between["notes"])
    assert not any("choose more workers" in note for note in above["notes"])


def test_another_clip_of_the_file_is_taken_by_its_name(bench: Path) -> None:
    assert planned(bench, "--streams", 1, "--clip", "b.mp4")["plan"]["clip"] == "b.mp4"


def test_without_the_extra_the_error_names_it(bench: Path) -> None:
    code = (
        "import sys; sys.modules['simpy'] = None\n"
        "from typer import Typer\n"
        "from pipeline.commands.plan import run\n"
        "app = Typer(); app.command()(run); app()"
    )
    command = [sys.executable, "-c", code, "--streams", "1", "--bench", str(bench)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "unmask[plan]" in done.stderr
