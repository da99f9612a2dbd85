"""Whether two records of one clip are the same: equal weights, decoder and kind of machine give equal records."""

from __future__ import annotations

from typing import Any, Final

from pipeline.contracts import Verdict

# Fields that differ from one run to the next: how long it took. All others are equal, `id` and `source` as well, where
# the clip is judged under its own name; times within the video are measured in it, not by a clock.
VARYING: Final = frozenset({"elapsed_s"})


def difference(old: Verdict, new: Verdict) -> str | None:
    """The first field in which two records differ, with both values; None: they are equal but for `VARYING`."""
    return _difference("", _compared(old), _compared(new))


def _compared(verdict: Verdict) -> dict[str, Any]:
    return verdict.model_dump(mode="json", by_alias=True, exclude=set(VARYING))


def _difference(place: str, old: Any, new: Any) -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in (*old, *(name for name in new if name not in old)):
            found = _difference(f"{place}.{name}" if place else name, old.get(name), new.get(name))
            if found is not None:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        for i, (one, other) in enumerate(zip(old, new, strict=False)):
            if (found := _difference(f"{place}[{i}]", one, other)) is not None:
                return found
        return None if len(old) == len(new) else f"{place}: {len(old)} before, {len(new)} now"
    return None if old == new else f"{place}: {old!r} before, {new!r} now"
