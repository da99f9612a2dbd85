"""Text of others on a terminal and in the log: nothing that controls a terminal, no passwords."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from structlog.testing import CapturingLogger

from pipeline.commands.output import echo, echo_record
from pipeline.visible import markup, masked, visible, visible_event, visible_lines

NASTY = "\x1b]0;owned\x07 \x1b[2J\u202egpj.exe\r\n\x9b31m\u2066x\ud800"


@given(st.text(st.characters(codec=None)))
def test_no_character_controls_the_terminal(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\ufeff")
    shown.encode()
    assert visible(shown) == shown
    assert set(visible_lines(text)) - set(shown) <= {"\n", "\t"}


# The joiners of Persian and of emoji stay.
@pytest.mark.parametrize(
    "text",
    ["clip.mp4", "Größe 12.mp4", "日本語.mp4", "\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f680", ""],
)
def test_ordinary_names_stay(text: str) -> None:
    assert visible(text) == text


def test_what_is_shown_instead() -> None:
    assert visible("a\x1b[31m\n\u202eb\x9b") == r"a\u001b[31m\u000a\u202eb\u009b"
    assert visible_lines("a\n\tb\r") == "a\n\tb\\u000d"


def test_passwords_are_masked() -> None:
    assert (
        masked("at redis://user:pass@host:6380/0 and s3://key:se%2Fcret@b/x")
        == "at redis://***@host:6380/0 and s3://***@b/x"
    )
    odd = "redis://u:p@ss@h/0, redis://:se/cr et@h/0, http://u:p@q@h/"
    assert masked(odd) == "redis://***@h/0, redis://***@h/0, http://***@h/"
    for text in ("https://host/a:b@c", "file:///a@b", "http://user@host", "a:b@c"):
        assert masked(text) == text


def test_what_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"{NASTY} ftp://me:secret@host")
    echo(NASTY, err=True)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert not set(text) & {"\x1b", "\x07", "\r", "\u202e", "\x9b"}
    assert "secret" not in said.out


def test_markup_shows_the_text_itself() -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(markup(f"[bold]{NASTY}[/]"))
    assert shown.get().strip() == visible(f"[bold]{NASTY}[/]")


def test_a_line_of_the_log() -> None:
    event = {"event": "x\x1b", "source": "a\nb", "exception": "one\ntwo\x1b", "url": "redis://u:p@h", "number": 3}
    assert visible_event(CapturingLogger(), "info", event) == {
        "event": r"x\u001b",
        "source": r"a\u000ab",
        "exception": "one\ntwo\\u001b",
        "url": "redis://***@h",
        "number": 3,
    }


@pytest.mark.parametrize("terminal", [True, False])
def test_a_record_stays_the_same_record(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.dumps({"source": "a\u009b\u202e\u2028\N{SNOWMAN}.mp4"}, ensure_ascii=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    echo_record(record)
    said = capsys.readouterr().out
    assert json.loads(said) == json.loads(record)
    assert ("\u202e" in said) is not terminal
