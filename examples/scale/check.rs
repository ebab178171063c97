//! Every thousandth verdict once more, from a window made afresh, through the request form.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lapwing::detector::{LastVerdict, Workspace};
use lapwing::record::{Data, Event, Sink, SinkError, VerdictData, VerdictFields};
use lapwing::request::{Profile, Request};
use serde_json::json;

use crate::fleet::Fleet;

/// One verdict in so many is computed again.
const ONE_IN: u64 = 1_000;

/// A place for verdicts that counts and checks them.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    fleet: Arc<Fleet>,
    points: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    verdicts: u64,
    not_judged: u64,
    anomalies: u64,
    by_model: BTreeMap<&'static str, u64>,
    checked: u64,
    wrong: Vec<String>,
}

impl Checked {
    /// A check of the windows of `fleet`, which have so many points.
    pub(crate) fn new(fleet: Fleet, points: usize) -> Self {
        Self {
            fleet: Arc::new(fleet),
            points,
            counts: Arc::default(),
        }
    }

    /// Begins to count anew; what was wrong stays so.
    pub(crate) fn reset(&self) {
        let mut counts = self.counts();
        let wrong = std::mem::take(&mut counts.wrong);
        *counts = Counts {
            wrong,
            ..Counts::default()
        };
    }

    /// Prints the counts and whether every check agreed.
    pub(crate) fn print(&self) -> bool {
        let counts = self.counts();
        let share = |count: u64| 100.0 * count as f64 / counts.verdicts.max(1) as f64;
        let models: Vec<String> = counts
            .by_model
            .iter()
            .map(|(model, count)| format!("{model} {:.1} %", share(*count)))
            .collect();
        println!(
            "verdicts: {}, {:.2} % anomalies, {} not judged; {}",
            counts.verdicts,
            share(counts.anomalies),
            counts.not_judged,
            models.join(", ")
        );
        println!(
            "computed again through the request form: {}, of them different: {}",
            counts.checked,
            counts.wrong.len()
        );
        for wrong in counts.wrong.iter().take(5) {
            println!("{wrong}");
        }
        counts.wrong.is_empty() && counts.checked > 0
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counts are counts, whatever happened to who held them.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with a verdict, if anything is.
    fn check(&self, verdict: &VerdictData) -> Option<String> {
        let newest = verdict.timestamp.map(Fleet::slot_at);
        let (Some(series), Some(newest)) = (Fleet::series_named(&verdict.series), newest) else {
            return Some(format!("a verdict on what nobody sent: {verdict:?}"));
        };
        let points: Vec<_> = (newest + 1 - self.points as i64..=newest)
            .map(|slot| {
                let point = self.fleet.point(series, slot);
                json!({"timestamp": point.timestamp.to_string(), "value": point.value})
            })
            .collect();
        // The names of the published package; the boundary is that of the pipeline's profile.
        let request = json!({
            "series": points,
            "granularity": verdict.detector.granularity,
            "customInterval": verdict.detector.custom_interval,
            "sensitivity": verdict.detector.sensitivity,
            "maxAnomalyRatio": verdict.detector.max_anomaly_ratio,
            "boundaryVersion": verdict.detector.boundary_version,
        });
        let again =
            Request::parse(request.to_string().as_bytes(), Profile::Package).and_then(|request| {
                Workspace::new().last_of(request.points.series(), &request.options)
            });
        let same = match (&verdict.verdict, &again) {
            (VerdictFields::NotJudged { not_judged, .. }, Err(error)) => {
                *not_judged == error.code.as_str()
            }
            (VerdictFields::Judged { .. }, Ok(again)) => is_same(&verdict.verdict, again),
            _ => false,
        };
        (!same).then(|| format!("{verdict:?} computed again is {again:?}"))
    }
}

fn is_same(verdict: &VerdictFields, again: &LastVerdict) -> bool {
    matches!(
        verdict,
        VerdictFields::Judged {
            is_anomaly,
            is_positive_anomaly,
            is_negative_anomaly,
            expected_value,
            upper_margin,
            lower_margin,
            severity,
            period,
            model,
        } if *is_anomaly == again.is_anomaly
            && *is_positive_anomaly == again.is_positive_anomaly
            && *is_negative_anomaly == again.is_negative_anomaly
            && *expected_value == again.expected_value
            && *upper_margin == again.upper_margin
            && *lower_margin == again.lower_margin
            && *severity == again.severity
            && *period == again.period
            && *model == again.model.as_str()
    )
}

#[async_trait]
impl Sink for Checked {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        for event in events {
            let Data::Verdict(verdict) = &event.data else {
                continue;
            };
            let is_due = {
                let mut counts = self.counts();
                counts.verdicts += 1;
                match verdict.verdict {
                    VerdictFields::Judged {
                        model, is_anomaly, ..
                    } => {
                        *counts.by_model.entry(model).or_default() += 1;
                        counts.anomalies += u64::from(is_anomaly);
                    }
                    VerdictFields::NotJudged { .. } => counts.not_judged += 1,
                }
                counts.verdicts.is_multiple_of(ONE_IN)
            };
            if is_due {
                let wrong = self.check(verdict);
                let mut counts = self.counts();
                counts.checked += 1;
                counts.wrong.extend(wrong);
            }
        }
        Ok(events.len())
    }

    fn place(&self) -> String {
        "the check".to_owned()
    }
}
