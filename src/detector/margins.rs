//! Margins, and through them the final flags, in the forms of API v1.0 and v1.1; severity.

use super::options::{Boundary, Sensitivity};
use super::result::Judged;
use super::stats::{EPS, extent};
use super::{Model, PointVerdict};

/// Smallest unit of a v1.1 margin, and stand-in for an expected value of 0 in v1.0's severity.
const LEAST_UNIT: f64 = 0.3;
/// How far a v1.0 margin reaches past a normal point.
const OUTWARD: f64 = 1.01;

/// Makes margins; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Margins {
    points: Vec<PointVerdict>,
    upper: Vec<f64>,
    lower: Vec<f64>,
}

impl Margins {
    /// The verdicts on all points of `judged`. In `last` mode only the last one is right in every part:
    /// v1.1 rates its severity before the margins, the service did so too.
    pub(super) fn verdicts(
        &mut self,
        judged: &Judged,
        boundary: Boundary,
        sensitivity: Sensitivity,
        last: bool,
    ) -> &[PointVerdict] {
        self.points.clear();
        match boundary {
            Boundary::V1 => self.by_expected_value(judged, sensitivity),
            Boundary::V2 | Boundary::V3 => self.by_trend(judged, sensitivity, last),
        }
        &self.points
    }

    /// API v1.0: a share of the expected value, or of the distance that the score speaks of; then bounded
    /// by the range of the data, and stretched over normal points.
    fn by_expected_value(&mut self, judged: &Judged, sensitivity: Sensitivity) {
        let s = f64::from(sensitivity.get());
        self.upper.clear();
        if judged.model == Model::SpectralResidual {
            let normal = judged
                .score
                .iter()
                .zip(&judged.value)
                .filter(|(score, _)| **score <= EPS)
                .map(|(_, value)| *value)
                .fold(None, |range: Option<(f64, f64)>, value| {
                    let (low, high) = range.unwrap_or((value, value));
                    Some((low.min(value), high.max(value)))
                });
            let margin = normal.map_or(0.0, |(low, high)| (high - low) * 0.01);
            let bar = 1.0 - s / 100.0;
            self.upper.extend(
                judged
                    .score
                    .iter()
                    .zip(judged.value.iter().zip(&judged.expected))
                    .map(|(score, (value, expected))| {
                        if *score <= EPS {
                            margin
                        } else {
                            (value - expected).abs() / score * bar
                        }
                    }),
            );
        } else {
            self.upper.extend(
                judged
                    .expected
                    .iter()
                    .map(|expected| expected.abs() * (100.0 - s) / 100.0),
            );
        }
        let values = extent(&judged.value);
        let expected = extent(&judged.expected);
        let (least, greatest) = (values.0.min(expected.0), values.1.max(expected.1));
        self.lower.clear();
        self.lower.extend(
            judged
                .expected
                .iter()
                .zip(&self.upper)
                .map(|(expected, margin)| expected - margin),
        );
        // When every lower bound lies below the data, all become the highest of them; there is no
        // counterpart above. Seen at low sensitivities.
        let highest_lower = extent(&self.lower).1;
        for (i, (value, expected)) in judged.value.iter().zip(&judged.expected).enumerate() {
            let upper_bound = (expected + self.upper[i]).min(greatest);
            let lower_bound = self.lower[i].max(least).min(highest_lower);
            let (mut upper, mut lower) = (upper_bound - expected, expected - lower_bound);
            let mut flagged = judged.flags[i];
            if flagged {
                if upper_bound >= *value && *value >= lower_bound {
                    if s == 100.0 {
                        (upper, lower) = (0.0, 0.0);
                    } else {
                        flagged = false;
                    }
                }
            } else if *value > upper_bound {
                upper = (value - expected) * OUTWARD;
                lower = upper;
            } else if *value < lower_bound {
                lower = (expected - value) * OUTWARD;
                upper = lower;
            }
            let base = expected.abs();
            let base = if base <= EPS { LEAST_UNIT } else { base };
            self.points.push(PointVerdict {
                is_anomaly: flagged,
                is_positive_anomaly: flagged && !judged.negative[i],
                is_negative_anomaly: flagged && judged.negative[i],
                expected_value: *expected,
                upper_margin: upper,
                lower_margin: lower,
                severity: if flagged {
                    ((value - expected).abs() / base).min(1.0)
                } else {
                    0.0
                },
            });
        }
    }

    /// API v1.1: multiples of a unit taken from the trend.
    fn by_trend(&mut self, judged: &Judged, sensitivity: Sensitivity, last: bool) {
        let normal = || {
            let pairs = judged.trend.iter().zip(&judged.flags);
            pairs.filter(|(_, flag)| !**flag).map(|(t, _)| t.abs())
        };
        let flat = normal().all(|trend| trend < EPS);
        let mean = normal().sum::<f64>() / normal().count() as f64;
        let factor = FACTORS[usize::from(sensitivity.get())];
        for (i, (value, expected)) in judged.value.iter().zip(&judged.expected).enumerate() {
            let unit = if flat {
                LEAST_UNIT
            } else {
                (judged.trend[i].abs() * 0.5 + mean * 0.5).max(LEAST_UNIT)
            };
            let (distance, delta) = ((expected - value).abs(), unit * factor);
            let outlier = judged.flags[i];
            let (upper, lower) = if outlier {
                // At the default sensitivity the margin of a near anomaly is cut to half its distance.
                let near = delta * 1e-4 < distance && distance < delta && sensitivity.get() == 99;
                let margin = if near { distance * 0.5 } else { delta };
                (margin, margin)
            } else {
                let margin = distance + delta * 0.5;
                if value > expected {
                    (margin, margin / 3.0)
                } else {
                    (margin / 3.0, margin)
                }
            };
            let positive = outlier && *value > expected + upper;
            let negative = outlier && *value < expected - lower;
            let flagged = positive || negative;
            let rated = if last { outlier } else { flagged };
            self.points.push(PointVerdict {
                is_anomaly: flagged,
                is_positive_anomaly: positive,
                is_negative_anomaly: negative,
                expected_value: *expected,
                upper_margin: upper,
                lower_margin: lower,
                severity: if rated {
                    score(distance / unit) / 100.0
                } else {
                    0.0
                },
            });
        }
    }
}

/// v1.1's anomaly score, 0..=100: which sensitivity would have had its margin end at `units`.
fn score(units: f64) -> f64 {
    // The factors fall with the sensitivity, so they are looked up from the end.
    let rank = FACTORS
        .iter()
        .rev()
        .take_while(|factor| **factor < units)
        .count();
    match rank {
        0 => 0.0,
        100.. => 100.0,
        _ => {
            let (low, high) = (FACTORS[101 - rank], FACTORS[100 - rank]);
            (rank - 1) as f64 + (units - low) / (high - low)
        }
    }
}

/// Width of a v1.1 margin in units, by sensitivity.
static FACTORS: [f64; 101] = {
    let mut factors = [0.0; 101];
    let mut s = 0;
    while s <= 92 {
        let at = s as f64;
        factors[s] = match s {
            0..=24 => 0.8 * (25.0 - at) * (25.0 - at) + 32.0,
            25..=44 => 30.0 - 1.25 * (at - 25.0),
            45..=54 => 5.0 - 0.4 * (at - 45.0),
            55..=64 => 1.0 - 0.04 * (at - 55.0),
            65..=74 => 0.6 - 0.03 * (at - 65.0),
            75..=84 => 0.3 - 0.015 * (at - 75.0),
            _ => 0.15 - 0.13 / 11.0 * (at - 85.0),
        };
        s += 1;
    }
    factors[93] = 0.48 / 11.0;
    factors[94] = 0.012;
    factors[95] = 0.008;
    factors[96] = 0.006075;
    factors[97] = 0.00415;
    factors[98] = 0.002225;
    factors[99] = 0.0003;
    factors
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_fall_to_zero() {
        assert!(FACTORS.is_sorted_by(|a, b| a > b));
        assert_eq!((FACTORS[0], FACTORS[25], FACTORS[100]), (532.0, 30.0, 0.0));
    }

    #[test]
    fn scores_run_from_0_to_100() {
        assert_eq!(score(0.0), 0.0);
        assert_eq!(score(1e9), 100.0);
        assert_eq!(score(0.0003), 1.0);
        assert!((score(30.0) - 75.0).abs() < 1e-9);
    }

    #[test]
    fn lower_bounds_below_the_data_become_one() {
        let judged = Judged {
            value: vec![10.0, 11.0, 12.0],
            expected: vec![10.0, 11.0, 12.0],
            flags: vec![false; 3],
            negative: vec![false; 3],
            ..Judged::default()
        };
        let mut margins = Margins::default();
        let none = Sensitivity::try_from(0).unwrap();
        let points = margins.verdicts(&judged, Boundary::V1, none, false);
        let bounds: Vec<f64> = points
            .iter()
            .map(|p| p.expected_value - p.lower_margin)
            .collect();
        assert_eq!(bounds, [0.0, 0.0, 0.0]);
    }
}
