//! Times as people write them on a command line, and as they read them. Always UTC.

use std::str::FromStr;

use thiserror::Error;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::clock::UnixSeconds;

/// A time on the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum When {
    /// A point in time.
    At(UnixSeconds),
    /// So many seconds ago.
    Ago(u64),
}

#[derive(Debug, Error)]
#[error("write 2026-11-01, 2026-11-01T12:00:00Z, or an age such as 90s, 30m, 24h, 7d, 2w")]
pub(crate) struct NotATime;

impl When {
    /// The time meant, if it is `now`.
    pub(crate) fn before(self, now: UnixSeconds) -> UnixSeconds {
        match self {
            Self::At(time) => time,
            Self::Ago(seconds) => now.minus(seconds),
        }
    }
}

impl FromStr for When {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(seconds) = age(text) {
            return Ok(Self::Ago(seconds));
        }
        let midnight = || {
            Date::parse(text, format_description!("[year]-[month]-[day]"))
                .map(|date| date.midnight().assume_utc())
        };
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| midnight())
            .map_err(|_| NotATime)?;
        u64::try_from(time.unix_timestamp())
            .map(|s| Self::At(UnixSeconds(s)))
            .map_err(|_| NotATime)
    }
}

/// `24h` in seconds.
fn age(text: &str) -> Option<u64> {
    let unit = text.chars().next_back()?;
    let number = text.strip_suffix(unit)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    number
        .parse::<u64>()
        .ok()
        .filter(|_| digits)?
        .checked_mul(seconds)
}

/// The day: `2026-11-01`.
pub(crate) fn day(time: UnixSeconds) -> String {
    let text = text(time);
    text.split_once('T')
        .map_or(text.clone(), |(day, _)| day.to_owned())
}

/// `2026-11-01T12:00:00Z`; past the year 9999 the number of seconds.
pub(crate) fn text(time: UnixSeconds) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| time.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<When>) {
        assert_eq!(text.parse::<When>().ok(), want, "{text:?}");
    }

    #[test]
    fn dates_times_and_ages_are_read() {
        check("1970-01-02", Some(When::At(UnixSeconds(86_400))));
        check("2026-11-01", Some(When::At(UnixSeconds(1_793_491_200))));
        check("1970-01-01T01:00:00+01:00", Some(When::At(UnixSeconds(0))));
        check("1970-01-01T00:00:09Z", Some(When::At(UnixSeconds(9))));
        check("90s", Some(When::Ago(90)));
        check("24h", Some(When::Ago(86_400)));
        check("2w", Some(When::Ago(1_209_600)));
    }

    #[test]
    fn anything_else_is_not_a_time() {
        for text in [
            "",
            "h",
            "24",
            "-1h",
            "+1h",
            "1.5h",
            "1y",
            "2026-13-01",
            "2026-02-29",
            "1969-12-31",
            "yesterday",
            "99999999999999999999w",
            "18446744073709551615w",
            "24é",
            "é",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn an_age_longer_than_time_itself_is_the_beginning() {
        assert_eq!(When::Ago(u64::MAX).before(UnixSeconds(5)), UnixSeconds(0));
    }

    #[test]
    fn times_are_printed_to_the_second_in_utc() {
        assert_eq!(text(UnixSeconds(1_793_491_200)), "2026-11-01T00:00:00Z");
        assert_eq!(text(UnixSeconds(u64::MAX)), u64::MAX.to_string());
        assert_eq!(text(UnixSeconds(i64::MAX as u64)), i64::MAX.to_string());
    }
}
