//! Change points through the library: the labelled set, the recordings of the retired service, the
//! contract's options, and what holds for any series.

#[path = "../examples/change_points/labelled.rs"]
#[allow(dead_code, reason = "the example writes sets too")]
mod labelled;
#[path = "../examples/change_points/rivals.rs"]
#[allow(dead_code, reason = "the example runs all methods")]
mod rivals;
#[path = "../examples/change_points/score.rs"]
#[allow(dead_code, reason = "the example prints more")]
mod score;

use std::fs::File;
use std::io::BufReader;
use std::num::NonZeroU32;
use std::path::Path;

use lapwing::detector::{
    ChangePointOptions, ChangePoints, DetectError, ErrorCode, Granularity, Workspace,
};
use lapwing::series::Timestamp;
use proptest::prelude::*;

use labelled::Labelled;
use rivals::Rival;
use score::Score;

const COMMITTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/change_points/labelled.jsonl"
);

fn committed() -> Vec<Labelled> {
    labelled::read(BufReader::new(File::open(COMMITTED).unwrap())).unwrap()
}

fn find(values: &[f64], options: &ChangePointOptions) -> Result<ChangePoints, DetectError> {
    Workspace::new().change_point(&[], values, options)
}

fn positions(found: &ChangePoints) -> Vec<usize> {
    (0..found.is_change_point.len())
        .filter(|i| found.is_change_point[*i])
        .collect()
}

/// Something like noise, in -1..1.
fn wobble(i: usize) -> f64 {
    (i * 7919 % 101) as f64 / 50.5 - 1.0
}

#[test]
fn labelled_changes_are_found_better_than_by_pelt() {
    let set = committed();
    assert!(set.len() >= 100);
    let mut ours = Score::default();
    for series in &set {
        ours.add(
            &series.changes,
            &labelled::lapwing(series),
            series.values.len(),
        );
    }
    assert!(ours.f1() >= 0.95, "{ours:?}");
    assert!(ours.false_alarms_per_thousand() < 0.2, "{ours:?}");

    let plain: Vec<Vec<f64>> = set.iter().map(|series| series.values.clone()).collect();
    let unseasoned: Vec<Vec<f64>> = set.iter().map(rivals::without_season).collect();
    // The example tries all settings; segments of this many points and more are PELT's best.
    let best = |rival: &Rival| matches!(rival, Rival::Pelt { shortest: 30, .. });
    for (name, mut settings) in rivals::families() {
        settings.retain(best);
        if settings.is_empty() {
            continue;
        }
        for data in [&plain, &unseasoned] {
            let (rival, theirs) = rivals::tune(&set, data, &settings);
            assert!(ours.f1() >= theirs.f1(), "{name} {rival}: {theirs:?}");
        }
    }
}

#[test]
fn the_committed_set_is_what_the_generator_writes() {
    let set = committed();
    // Logarithm and sine may differ in the last digit from one C library to the next.
    for (written, drawn) in set.iter().zip(labelled::generate(2026, set.len())) {
        assert_eq!(written.name, drawn.name);
        assert_eq!(written.changes, drawn.changes);
        for (a, b) in written.values.iter().zip(&drawn.values) {
            assert!((a - b).abs() <= 0.011, "{}: {a} {b}", written.name);
        }
    }
}

#[test]
fn a_lower_threshold_tolerates_more_and_finds_less() {
    let set = committed();
    let count = |threshold| {
        let found = set.iter().map(|series| {
            let options = ChangePointOptions {
                period: Some(series.period),
                threshold: Some(threshold),
                ..ChangePointOptions::default()
            };
            positions(&find(&series.values, &options).unwrap()).len()
        });
        found.sum::<usize>()
    };
    let counts = [0.01, 0.5, 0.9, 0.99].map(count);
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(counts[0] < counts[2] && counts[2] < counts[3], "{counts:?}");
}

#[test]
fn the_recordings_of_the_service_hold() {
    let Some(shared) = std::env::var_os("LAPWING_SHARED") else {
        println!("LAPWING_SHARED is not set: the recordings are not compared");
        return;
    };
    let path = Path::new(&shared).join("spec/vectors/univariate.json");
    let recorded: serde_json::Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
    let mut compared = 0;
    for vector in recorded["vectors"].as_array().unwrap() {
        if vector["operation"] != "changepoint" {
            continue;
        }
        let id = &vector["id"];
        let asked = &vector["options"];
        let number = |name: &str| asked[name].as_u64().map(|number| number as u32);
        let options = ChangePointOptions {
            granularity: asked["granularity"].as_str().unwrap().parse().unwrap(),
            custom_interval: NonZeroU32::new(number("customInterval").unwrap_or(1)).unwrap(),
            period: number("period"),
            stable_trend_window: number("stableTrendWindow"),
            threshold: asked["threshold"].as_f64(),
        };
        let points = recorded["series"][vector["series"].as_str().unwrap()]
            .as_array()
            .unwrap();
        let (timestamps, values): (Vec<Timestamp>, Vec<f64>) = points
            .iter()
            .map(|point| {
                let timestamp = Timestamp::parse(point[0].as_str().unwrap()).unwrap();
                (timestamp, point[1].as_f64().unwrap())
            })
            .unzip();
        let found = Workspace::new()
            .change_point(&timestamps, &values, &options)
            .unwrap();

        let expect = &vector["expect"];
        assert_eq!(Some(u64::from(found.period)), expect["period"].as_u64());
        let flags = &expect["isChangePointAt"];
        let within = flags["within"].as_u64().unwrap() as usize;
        let mut others = positions(&found);
        for required in flags["required"].as_array().unwrap() {
            let required = required.as_u64().unwrap() as usize;
            let near = others.iter().position(|at| at.abs_diff(required) <= within);
            assert!(near.is_some(), "{id}: none near {required}: {found:?}");
            others.remove(near.unwrap());
        }
        let most = flags["others"].as_u64().unwrap() as usize;
        assert!(others.len() <= most, "{id}: besides these: {others:?}");
        compared += 1;
    }
    assert!(compared >= 2);
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let values: Vec<f64> = (0..40).map(wobble).collect();
    let refused = |options: ChangePointOptions| {
        let error = find(&values, &options).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidModelArgument);
        error.message
    };
    for threshold in [0.0, 0.009, 0.991, 1.0, -1.0, f64::NAN] {
        let message = refused(ChangePointOptions {
            threshold: Some(threshold),
            ..Default::default()
        });
        assert!(message.contains("'threshold'"), "{message}");
    }
    for window in [0, 2, 20, u32::MAX] {
        let message = refused(ChangePointOptions {
            stable_trend_window: Some(window),
            ..Default::default()
        });
        assert!(message.contains("'stableTrendWindow'"), "{message}");
        assert!(message.contains(&window.to_string()), "{message}");
    }
    let message = refused(ChangePointOptions {
        period: Some(20),
        ..Default::default()
    });
    assert!(message.contains("2 periods"), "{message}");
    for window in [3, 19] {
        let options = ChangePointOptions {
            stable_trend_window: Some(window),
            ..Default::default()
        };
        assert!(find(&values, &options).is_ok());
    }
}

#[test]
fn the_first_failing_check_answers() {
    let options = ChangePointOptions {
        threshold: Some(2.0),
        stable_trend_window: Some(1),
        ..Default::default()
    };
    let short = find(&[1.0; 5], &options).unwrap_err();
    assert!(short.message.contains("'threshold'"), "{short}");
    let options = ChangePointOptions {
        stable_trend_window: Some(1),
        period: Some(500),
        ..Default::default()
    };
    let short = find(&[1.0; 5], &options).unwrap_err();
    assert_eq!(short.code, ErrorCode::InvalidSeries);
    let both = find(&[1.0; 50], &options).unwrap_err();
    assert!(both.message.contains("'stableTrendWindow'"), "{both}");
}

#[test]
fn gaps_on_the_grid_are_no_changes_and_hide_none() {
    // A week's season that rises by a step on day 150; every ninth day is missing.
    let season = [0.0, 1.0, 3.0, 2.0, -1.0, -4.0, -3.0];
    let (mut timestamps, mut values, mut step) = (vec![], vec![], 0);
    for day in 0..280_usize {
        if day % 9 == 4 {
            continue;
        }
        if day < 150 {
            step += 1;
        }
        timestamps.push(Timestamp::from_micros(day as i64 * 86_400_000_000));
        values.push(season[day % 7] + 0.3 * wobble(day) + if day < 150 { 0.0 } else { 5.0 });
    }
    let mut options = ChangePointOptions {
        granularity: Granularity::Daily,
        ..Default::default()
    };
    let found = Workspace::new()
        .change_point(&timestamps, &values, &options)
        .unwrap();
    assert_eq!(found.period, 7);
    assert_eq!(found.is_change_point.len(), values.len());
    assert_eq!(positions(&found), [step]);

    // Without a season a steady slope goes on across a gap of a hundred days.
    let slope = |day: usize| 0.2 * day as f64 + wobble(day);
    let days: Vec<usize> = (0..100).chain(200..300).collect();
    let timestamps: Vec<Timestamp> = days
        .iter()
        .map(|day| Timestamp::from_micros(*day as i64 * 86_400_000_000))
        .collect();
    let values: Vec<f64> = days.iter().map(|day| slope(*day)).collect();
    options.period = Some(0);
    let found = Workspace::new()
        .change_point(&timestamps, &values, &options)
        .unwrap();
    assert!(positions(&found).is_empty(), "{found:?}");

    // More than half of the grid missing is too much for a season.
    options.period = Some(7);
    let sparse: Vec<Timestamp> = (0..40)
        .map(|i| Timestamp::from_micros(i * 3 * 86_400_000_000))
        .collect();
    let error = Workspace::new()
        .change_point(&sparse, &values[..40], &options)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidSeries);
}

#[test]
fn what_never_changes_has_no_change_points() {
    for values in [
        vec![0.0; 100],
        vec![1e30; 12],
        (0..300).map(|i| 5.0 * i as f64).collect(),
        (0..300).map(|i| [1.0, 5.0, 2.0, 9.0, 4.0][i % 5]).collect(),
    ] {
        let found = find(&values, &ChangePointOptions::default()).unwrap();
        assert!(positions(&found).is_empty(), "{:?}", &values[..12]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any series that the contract takes gets one flag and one score a point; a score is a probability
    /// and on the flag's side of one half.
    #[test]
    fn any_series_is_answered(
        values in prop::collection::vec(
            prop_oneof![
                3 => -10.0..10.0,
                1 => Just(0.0),
                1 => -1e100..1e100,
                1 => -1e-300..1e-300,
            ],
            12..300,
        ),
        period in prop::option::of(0_u32..40),
        window in prop::option::of(3_u32..40),
        threshold in prop::option::of(0.01..0.99),
    ) {
        let n = values.len() as u32;
        let options = ChangePointOptions {
            period: period.filter(|period| 2 * period < n),
            stable_trend_window: window.filter(|window| 2 * window < n),
            threshold,
            ..Default::default()
        };
        // The period search of a series may fail on values out of single precision, as the service did.
        if let Ok(found) = find(&values, &options) {
            prop_assert_eq!(found.is_change_point.len(), values.len());
            prop_assert_eq!(found.confidence_scores.len(), values.len());
            for (flag, score) in found.is_change_point.iter().zip(&found.confidence_scores) {
                prop_assert!((0.0..=1.0).contains(score));
                prop_assert_eq!(*flag, *score >= 0.5);
            }
        } else {
            prop_assert!(values.iter().any(|value| value.abs() > 1e30));
        }
    }

    /// Another unit and another zero of the same measurements give the same change points; powers of
    /// two, so that no digit is lost.
    #[test]
    fn unit_and_zero_do_not_matter(
        levels in prop::collection::vec(-64_i32..64, 2..5),
        scale in -20_i32..20,
        zero in -64_i32..64,
        negative: bool,
    ) {
        let series: Vec<f64> = (0..levels.len() * 40)
            .map(|i| f64::from(levels[i / 40]) + (wobble(i) * 16.0).round() / 16.0)
            .collect();
        let factor = 2f64.powi(scale) * if negative { -1.0 } else { 1.0 };
        let other: Vec<f64> = series.iter().map(|v| (v + f64::from(zero)) * factor).collect();
        let options = ChangePointOptions {
            period: Some(0),
            stable_trend_window: Some(12),
            ..Default::default()
        };
        let here = find(&series, &options).unwrap();
        let there = find(&other, &options).unwrap();
        prop_assert_eq!(positions(&here), positions(&there));
    }
}

#[test]
fn the_methods_compared_with_find_what_is_plain() {
    let step: Vec<f64> = (0..200)
        .map(|i| wobble(i) + if i < 120 { 0.0 } else { 8.0 })
        .collect();
    let bend: Vec<f64> = (0..200_usize)
        .map(|i| wobble(i) + i.abs_diff(90) as f64)
        .collect();
    for model in [rivals::SegmentModel::Mean, rivals::SegmentModel::Line] {
        assert_eq!(rivals::pelt(&step, model, 20.0, 5), [120], "{model:?}");
    }
    let bends = rivals::pelt(&bend, rivals::SegmentModel::Line, 20.0, 5);
    assert!(bends.len() == 1 && bends[0].abs_diff(90) <= 2, "{bends:?}");
    let online = rivals::bayesian_online(&step, 250.0, 0.1, 0.1);
    assert!(
        online.len() == 1 && online[0].abs_diff(120) <= 2,
        "{online:?}"
    );
}
