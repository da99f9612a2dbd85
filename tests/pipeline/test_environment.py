"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.settings import Settings, describe_invalid
from pipeline.transport.security import KafkaSecurity


def test_variables_are_read_by_the_name_of_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_TTL_S", "120")
    monkeypatch.setenv("UNMASK_CACHE", "/somewhere")
    monkeypatch.setenv("UNMASK_OFFLINE", "1")
    monkeypatch.setenv("UNMASK_UNKNOWN", "ignored")
    settings = Settings()
    assert (settings.ttl_s, settings.cache, settings.offline) == (120, Path("/somewhere"), True)
    assert settings.max_attempts == Settings.model_fields["max_attempts"].default


def test_an_argument_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_KAFKA", "from-environment:9092")
    assert Settings(kafka="given:9092").kafka == "given:9092"


@pytest.mark.parametrize(("name", "value"), [("UNMASK_TTL_S", "5"), ("UNMASK_TTL_S", "soon"), ("UNMASK_TTL_S", "")])
def test_an_invalid_value_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as error:
        Settings()
    assert describe_invalid(error.value).startswith(f"{name}: Input should be")
    assert repr(value) in describe_invalid(error.value)


def test_empty_variables_are_no_settings_of_kafkas_security(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_KAFKA_SECURITY", "")
    monkeypatch.setenv("UNMASK_KAFKA_CA", "")
    assert KafkaSecurity().options() == {"security_protocol": "PLAINTEXT"}


def test_a_password_is_not_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_KAFKA_SECURITY", "SASL_SSL")
    monkeypatch.setenv("UNMASK_KAFKA_PASSWORD", "hunter2")
    with pytest.raises(ValidationError) as error:
        KafkaSecurity()
    assert "hunter2" not in str(error.value)
