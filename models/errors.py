"""The base class of all errors that a user can act on."""

from __future__ import annotations

from typing import ClassVar


class UnmaskError(Exception):
    """A request cannot be fulfilled; the message says what was wrong, what was expected and what to do.

    Attributes:
        exit_code: of a command that ends with it. 2: bad options or input; 1: a service is not reachable; 3: refused.
    """

    exit_code: ClassVar[int] = 2
