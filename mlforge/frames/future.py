"""Event times that lie ahead of now, as those of a wrong clock or zone do."""

from __future__ import annotations

from datetime import timedelta

from mlforge.core.values import DAY_US, HOUR_US, SECOND_US

_WIDEST_ZONE = 14


def future_warning(
    max_time_us: int, now_us: int, where: str, naive: bool, timestamp: str = "event_time"
) -> str | None:
    """The warning of a naive timestamp over an hour ahead of now, as local time often is, or of any over a day."""
    ahead = max_time_us - now_us
    if ahead <= (HOUR_US if naive else DAY_US):
        return None
    newest = f"{where}: the newest {timestamp!r} is {timedelta(seconds=ahead // SECOND_US)} ahead of now; "
    if not naive:
        return newest + (
            "such rows count once their time has come, and nothing waits for them: "
            "check the column's unit and the clock that set it"
        )
    newest += "it has no time zone, so it was taken as UTC; "
    hours = -(-ahead // HOUR_US)
    if hours > _WIDEST_ZONE:
        return newest + "no zone is so far ahead: check the column's unit and the clock that set it"
    return newest + (
        f"if it is local time, pl.col({timestamp!r}).dt.replace_time_zone('Etc/GMT-{hours}') "
        f"(UTC+{hours}), or better the name of its zone, mends it"
    )
