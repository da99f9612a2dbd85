"""Security of Kafka connections: plain text, or TLS with user and password, as managed brokers require."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, FilePath, SecretStr, model_validator

from pipeline.environment import FromEnvironment


class KafkaSecurity(FromEnvironment):
    """From the environment alone: a password has no place on a command line."""

    model_config = ConfigDict(hide_input_in_errors=True)

    prefix: ClassVar[str] = "UNMASK_KAFKA_"
    ignore_empty: ClassVar[bool] = True

    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="the protocol of the brokers' listener"
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="of SASL; PLAIN sends the password itself"
    )
    user: str | None = Field(default=None, description="of SASL")
    password: SecretStr | None = Field(default=None, description="of SASL")
    ca: FilePath | None = Field(default=None, description="PEM file of the CA of the brokers; None: the system's")
    cert: FilePath | None = Field(default=None, description="PEM file of our own certificate, if brokers require one")
    key: FilePath | None = Field(default=None, description="PEM file of its key")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.security.startswith("SASL") and not (self.user and self.password):
            raise ValueError(f"{self.security} needs UNMASK_KAFKA_USER and UNMASK_KAFKA_PASSWORD")
        if (self.cert is None) != (self.key is None):
            raise ValueError("UNMASK_KAFKA_CERT and UNMASK_KAFKA_KEY go together")
        return self

    def options(self) -> dict[str, Any]:
        """The settings as arguments of kafka-python's clients."""
        found: dict[str, Any] = {"security_protocol": self.security}
        if self.security.endswith("SSL"):
            files = {"ssl_cafile": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key}
            found |= {name: str(path) for name, path in files.items() if path is not None}
        if self.security.startswith("SASL") and self.password is not None:
            found |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password.get_secret_value(),
            }
        return found


def client_options(bootstrap: str) -> dict[str, Any]:
    """Arguments of every Kafka client.

    Args:
        bootstrap: servers, `host:port` with commas between.

    Raises:
        pydantic.ValidationError: the environment is invalid. Commands check this before they begin.
    """
    return {"bootstrap_servers": bootstrap, **KafkaSecurity().options()}
