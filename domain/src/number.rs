//! Whole numbers among doubles.

/// Beyond it doubles skip whole numbers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The whole number that a double is, where doubles still tell all of them apart: `2.0` is 2, and `2.5` is none.
pub fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_fraction_and_is_exact_is_whole() {
        assert_eq!(whole(2.0), Some(2));
        assert_eq!(whole(-0.0), Some(0));
        for not in [2.5, 1e300, f64::NAN, f64::INFINITY] {
            assert_eq!(whole(not), None, "{not}");
        }
    }
}
