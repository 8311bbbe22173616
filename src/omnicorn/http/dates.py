"""HTTP-date (RFC 9110 §5.6.7) in its one form that may be generated, IMF-fixdate.

Time is an argument: seconds since the epoch, UTC.
"""

from __future__ import annotations

_DAYS = (b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed")  # 1 January 1970 was a Thursday
_MONTHS = (b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec").split()


def http_date(seconds: float) -> bytes:
    """``Sun, 06 Nov 1994 08:49:37 GMT`` for a time in seconds since the epoch."""
    total = int(seconds)
    days, second = divmod(total, 86400)
    year, month, day = _civil(days)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[days % 7],
        day,
        _MONTHS[month - 1],
        year,
        second // 3600,
        second // 60 % 60,
        second % 60,
    )


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a count of days since 1970-01-01, proleptic Gregorian.

    Years are counted from 1 March, so that the leap day is the last of its year and the
    months before it have a regular pattern of lengths (153 days in five months).
    """
    days += 719468  # to 0000-03-01
    era, day_of_era = divmod(days, 146097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year_of_era + (month <= 2), month, day
