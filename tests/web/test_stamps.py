"""A time stamp counts only if an authority made it for this very manifest, and its signature holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("asn1crypto")
pytest.importorskip("rfc3161_client")

from tests.web.authority import Authority, answering
from web.evidence.container import EvidenceError
from web.evidence.stamp import StampError, check_stamp, fetch_stamp, read_authorities

MESSAGE = b'{"files": {}}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with answering(Authority(tmp_path_factory.mktemp("authority"))) as found:
        yield found


@pytest.fixture(autouse=True)
def _honest(authority: Authority) -> Iterator[None]:
    yield
    authority.lie = ""


def test_a_time_stamp_names_its_time_and_its_signer(authority: Authority) -> None:
    answer, stamp = fetch_stamp(authority.url, MESSAGE)
    assert check_stamp(answer, MESSAGE) == stamp
    assert abs(stamp.at - datetime.now(UTC)) < timedelta(minutes=5)
    assert (stamp.signer, stamp.issuer, stamp.is_trusted) == ("CN=Test TSA", "CN=Test CA", False)
    assert check_stamp(answer, MESSAGE, read_authorities(authority.ca)).is_trusted
    with pytest.raises(StampError, match="something else"):
        check_stamp(answer, MESSAGE + b" ")
    with pytest.raises(StampError, match=r"not part of it|damaged"):
        check_stamp(answer + b"x", MESSAGE)


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        ("old", "something else"),
        ("nonce", "nonce is not the one"),
        ("garbage", "no time stamp, or damaged"),
        ("huge", "more than 262,144 bytes"),
        ("refused", "not granted .status 2: Bad request format"),
        ("signature", "signature is wrong|damaged"),
        ("usage", "not one for time stamps"),
        ("away", "answers 503"),
    ],
)
def test_a_lie_is_found(authority: Authority, lie: str, fault: str) -> None:
    authority.lie = lie
    with pytest.raises(StampError, match=fault) as raised:
        fetch_stamp(authority.url, MESSAGE)
    assert raised.value.exit_code == 1


def test_an_authority_that_is_slow_or_away_is_an_error(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.http_fetch._HEAD_S", 0.3)
    authority.lie = "slow"
    with pytest.raises(StampError, match="takes too long"):
        fetch_stamp(authority.url, MESSAGE)
    authority.release.set()
    with pytest.raises(StampError, match="no time stamp"):
        fetch_stamp("http://127.0.0.1:9/", MESSAGE)
    with pytest.raises(StampError, match="expected http"):
        fetch_stamp("ftp://127.0.0.1/", MESSAGE)


def test_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    answer, _ = fetch_stamp(authority.url, MESSAGE)
    other = Authority(tmp_path / "other")
    assert fetch_stamp(authority.url, MESSAGE, read_authorities(authority.ca))[1].is_trusted
    with pytest.raises(StampError, match="does not lead to an authority"):
        fetch_stamp(authority.url, MESSAGE, read_authorities(other.ca))
    with pytest.raises(StampError, match="does not lead to an authority"):
        check_stamp(answer, MESSAGE, read_authorities(other.ca))
    with pytest.raises(StampError, match="no root certificate"):
        check_stamp(answer, MESSAGE, read_authorities(other.ca.with_name("tsa.pem")))
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(EvidenceError, match="no certificates"):
        read_authorities(tmp_path / "empty.pem")


def test_no_change_of_an_answer_raises_anything_else(authority: Authority) -> None:
    answer, _ = fetch_stamp(authority.url, MESSAGE)
    refused = 0
    for place in range(len(answer)):
        try:
            check_stamp(answer[:place] + bytes([answer[place] ^ 1]) + answer[place + 1 :], MESSAGE)
        except StampError:
            refused += 1
    # What the authority's signature does not cover is covered by the service's own.
    assert refused > 0.9 * len(answer)
