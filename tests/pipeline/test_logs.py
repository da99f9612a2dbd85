"""Logs go to the current standard error, and a failed write does not stop the program."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import structlog

from pipeline.logs import configure_logging


def test_all_logs_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="info", as_json=True)
    structlog.get_logger("ours").info("verdict", probability=0.5)
    structlog.get_logger("ours").debug("not asked for")
    logging.getLogger("library").warning("slow")
    logging.getLogger("library").info("not asked for")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("verdict", "info"), ("slow", "warning")]
    assert lines[0]["probability"] == 0.5
    assert lines[1]["logger"] == "library"


def test_a_readable_traceback_has_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(as_json=False)
    try:
        secret = "local value"
        raise RuntimeError("what went wrong")
    except RuntimeError:
        structlog.get_logger().exception("failed", length=len(secret))
    text = capsys.readouterr().err
    assert "RuntimeError: what went wrong" in text
    assert "local value" not in text


def test_a_process_without_standard_error_drops_its_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure_logging()
    structlog.get_logger().warning("dropped")
    logging.getLogger("library").warning("dropped")


def test_lines_go_to_the_current_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = io.StringIO()
    monkeypatch.setattr(sys, "stderr", before)
    configure_logging(as_json=True)
    log = structlog.get_logger()
    log.warning("first")
    before.close()
    log.warning("dropped")
    logging.getLogger("library").warning("dropped")
    after = io.StringIO()
    monkeypatch.setattr(sys, "stderr", after)
    log.warning("second")
    logging.getLogger("library").warning("third")
    assert [json.loads(line)["event"] for line in after.getvalue().splitlines()] == ["second", "third"]
