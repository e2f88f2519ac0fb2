//! Times, and texts of others, for a terminal.

use std::fmt;
use std::time::Duration;

const DAY: u64 = 24 * 60 * 60;

/// A time since 1970, as in `2026-11-20 20:15:03.120`.
pub(super) struct Utc(pub(super) Duration);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = civil(seconds / DAY);
        write!(f, "{year:04}-{month:02}-{day:02} {}", Clock(self.0))
    }
}

/// The time of day, as in `20:15:03.120`.
pub(super) struct Clock(pub(super) Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs() % DAY;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let millis = self.0.subsec_millis();
        write!(f, "{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
    }
}

/// The date of a day, counted from 1970-01-01: years are counted from March on, so that a leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const OF_400_YEARS: u64 = 146_097;
    // 1970-01-01 is so many days after 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / OF_400_YEARS, days % OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// A length of time in its two largest units, as in `4m 12s`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / DAY);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () if seconds > 0 => format!("{seconds}.{:01}s", time.subsec_millis() / 100),
        () => format!("{}ms", time.subsec_millis()),
    }
}

/// A text of others in one line: without what moves a terminal's cursor or colours it.
pub(super) fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text.chars().map(clean).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_dates_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (10_956, (1999, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_512, (2026, 2, 28)),
            (20_513, (2026, 3, 1)),
            (20_777, (2026, 11, 20)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_follows_the_one_before() {
        let mut before = civil(0);
        for days in 1..365_250 {
            let (year, month, day) = civil(days);
            let next_day = (year, month) == (before.0, before.1) && day == before.2 + 1;
            let next_month = year == before.0 && month == before.1 + 1 && day == 1 && before.2 >= 28;
            let next_year = year == before.0 + 1 && (month, day) == (1, 1) && (before.1, before.2) == (12, 31);
            assert!(
                next_day || next_month || next_year,
                "{:?} after {before:?}",
                (year, month, day)
            );
            before = (year, month, day);
        }
    }

    #[test]
    fn a_length_of_time_has_its_two_largest_units() {
        for (millis, text) in [
            (31, "31ms"),
            (1_250, "1.2s"),
            (59_999, "59.9s"),
            (252_000, "4m 12s"),
            (3_600_000, "1h 0m"),
            (183_600_000, "2d 3h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(
            Utc(Duration::from_millis(1_795_205_703_120)).to_string(),
            "2026-11-20 20:15:03.120"
        );
    }

    #[test]
    fn a_text_of_others_cannot_move_the_cursor() {
        assert_eq!(one_line("a\n\u{1b}[2Jb\r\u{9b}c\n"), "a  [2Jb  c");
    }
}
