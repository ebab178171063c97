//! The dynamic threshold model: outliers of the values themselves, around a trend.

use super::error::DetectError;
use super::esd::Limits;
use super::result::{Judged, most_outliers};
use super::stats::{fill_nan, normalize};
use super::{Model, Tools};

/// Which trend is expected where nothing is flagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Initial {
    /// One over the widest window.
    Wide,
    /// One over a guessed period.
    Guessed,
    /// None: the result matters only if something is flagged.
    Unneeded,
}

/// Judges `x`. Where something is flagged the trend is made without the flagged points and always over a
/// guessed period, so one spike more or less may change the whole expected curve.
pub(super) fn judge(
    x: &[f64],
    initial: Initial,
    (ratio, alpha): (f64, f64),
    last: bool,
    tools: &mut Tools,
    judged: &mut Judged,
) -> Result<(), DetectError> {
    normalize(x, &mut judged.scratch);
    let limits = Limits {
        most: most_outliers(x.len(), ratio),
        alpha,
        last,
    };
    let majority = tools
        .outliers
        .select(&judged.scratch, None, limits, &mut judged.flags);
    judged.model = if majority {
        Model::DynamicThresholdMad
    } else {
        Model::DynamicThreshold
    };
    if judged.flags.contains(&true) {
        judged.scratch.clear();
        judged.scratch.extend(
            x.iter()
                .zip(&judged.flags)
                .map(|(x, flag)| if *flag { f64::NAN } else { *x }),
        );
        fill_nan(&mut judged.scratch);
        tools.trend(&judged.scratch, None, &mut judged.expected)?;
    } else {
        match initial {
            Initial::Wide => tools.trend(x, Some(0), &mut judged.expected)?,
            Initial::Guessed => tools.trend(x, None, &mut judged.expected)?,
            Initial::Unneeded => x.clone_into(&mut judged.expected),
        }
    }
    judged.value.clear();
    judged.value.extend_from_slice(x);
    judged.trend.clear();
    judged.trend.extend_from_slice(&judged.expected);
    judged.score.clear();
    judged.set_directions();
    Ok(())
}
