"""The base of all errors that a user can do something about."""

from __future__ import annotations

from typing import ClassVar


class UnmaskError(Exception):
    """What was asked for cannot be done; the message says what was wrong, what was expected and what to do.

    Attributes:
        exit_code: of a command that ends with it. 2: bad options or input; 1: a service is away; 3: refused.
    """

    exit_code: ClassVar[int] = 2
