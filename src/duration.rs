//! Lengths of time as people write them: `30s`, `30m`, `12h`, `7d`, `2w`.

use std::time::Duration;

/// The longest time that makes sense for a ticket: ten years.
const SECONDS_MAX: u64 = 10 * 366 * 86_400;

/// Reads a whole number with a unit.
///
/// # Errors
/// Says what is expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with a unit, such as 30s, 30m, 12h, 7d or 2w".to_owned();
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    match number.checked_mul(unit) {
        Some(0) => Err("expected more than no time at all".to_owned()),
        Some(seconds @ 1..=SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected at most ten years".to_owned()),
    }
}

/// Reads seconds, with or without a unit: `60`, `0.5`, `60s`, `2m`.
///
/// # Errors
/// Says what is expected.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse::<f64>() {
        #[expect(clippy::cast_precision_loss, reason = "ten years in seconds are exact")]
        Ok(seconds) if plain && seconds > 0.0 && seconds <= SECONDS_MAX as f64 => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) if plain => Err("expected more than 0 and at most ten years".to_owned()),
        _ => parse(text).map_err(|_| "expected seconds, such as 60, or a number with a unit, such as 2m".to_owned()),
    }
}

/// How long ago something was, in words.
pub fn ago(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "min"),
        3600..86_400 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| parse(text).map(|time| time.as_secs());
        assert_eq!(
            ["1s", "30m", "12h", "7d", "2w"].map(seconds),
            [Ok(1), Ok(1800), Ok(43_200), Ok(604_800), Ok(1_209_600)]
        );
        for text in
            ["", "7", "d", "-1d", "+1d", "1.5h", "0d", "7 d", "7days", "whenever", "99999999999999999999d", "11000d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_need_none() {
        assert_eq!(parse_seconds("60"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_seconds("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "0", "-1", "soon", "1e3", "NaN", "inf", "99999999999", "."] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_past_is_told_roughly() {
        let told = [0, 59, 60, 7199, 7200, 200_000].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s ago", "59 s ago", "1 min ago", "1 h ago", "2 h ago", "2 d ago"]);
    }
}
