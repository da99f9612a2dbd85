"""A stretch of a clip: what one part of a long video is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

# Thirty years: timestamps in every time base of libav's stay within 64 bits.
_MAX_S = 1e9


@dataclass(frozen=True, slots=True)
class Window:
    """The frames with `start_s` <= t_s < `end_s`, in seconds of presentation time from the start of the stream.

    Attributes:
        end_s: infinity takes everything, whatever duration the container declares.
    """

    start_s: float
    end_s: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= _MAX_S:
            raise ValueError(f"start_s must be in 0..{_MAX_S:g}, got {self.start_s}")
        if not self.start_s < self.end_s:
            raise ValueError(f"end_s must be after start_s ({self.start_s}), got {self.end_s}")

    @classmethod
    def of(cls, start_s: float | None, end_s: float | None) -> Self:
        """From numbers as messages and options have them.

        Args:
            start_s: None: the start of the video.
            end_s: None: its end.

        Raises:
            ValueError: there is no such part.
        """
        return cls(start_s or 0.0, math.inf if end_s is None else end_s)

    @property
    def given_end_s(self) -> float | None:
        """`end_s` as messages and records have it; None: the end of the video."""
        return None if math.isinf(self.end_s) else self.end_s

    def __contains__(self, t_s: float) -> bool:
        return self.start_s <= t_s < self.end_s

    def describe(self) -> str:
        """The form that `parse_window` reads, exactly: "59-120.5", or "540-" where it is open."""
        end = "" if math.isinf(self.end_s) else repr(float(self.end_s))
        return f"{float(self.start_s)!r}-{end}"

    def sampling_text(self, sampling: str) -> str:
        """What the provenance of a verdict on this part says of its sampling."""
        return f"{sampling};part={self.describe()}"


def asked_part(start_s: float | None, end_s: float | None) -> Window | None:
    """The part of a video that is asked for; None: all of it.

    Raises:
        ValueError: there is no such part.
    """
    return None if start_s is None and end_s is None else Window.of(start_s, end_s)


def parse_window(text: str) -> Window:
    """The window that `describe` wrote.

    Raises:
        ValueError: the text is not a window, or its numbers are out of range.
    """
    # Not before the first digit, nor the sign of an exponent.
    head, dash, tail = text.strip().replace("e-", "e~").partition("-")
    if not dash:
        raise ValueError(f"unknown window {text!r}; give START-END or START- in seconds")
    try:
        start_s, end_s = (float(number.replace("e~", "e-")) if number else math.inf for number in (head, tail))
        return Window(start_s, end_s)
    except ValueError as error:
        raise ValueError(f"window {text!r}: {error}") from error
