//! One partition's part of a batch against its shard: pure arithmetic, in parallel over series.

use std::cell::RefCell;
use std::sync::Arc;

use rayon::prelude::*;

use super::detect::Detector;
use super::{Absorbed, Anomaly, events};
use crate::detector::{DetectError, LastVerdict};
use crate::message::Message;
use crate::record::{Event, Stream};
use crate::remote::RemoteError;
use crate::row::{Row, RowError};
use crate::series::{Point, Timestamp};
use crate::telemetry;
use crate::window::{Arrival, Change, Entry, Push, Restart, Rules, Shard};

/// What a batch comes to, nothing of it durable yet. Events are in ascending order of their position.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) change: Change,
    pub(super) anomalies: Vec<Event>,
    pub(super) dead_letters: Vec<Event>,
    pub(super) verdicts: Vec<Event>,
    pub(super) absorbed: Absorbed,
    with_verdicts: bool,
}

/// What became of a fresh point.
struct Outcome {
    push: Push,
    /// `None` while the window is not full yet.
    verdict: Option<Result<LastVerdict, DetectError>>,
}

thread_local! {
    /// A window as the detector takes it: timestamps and values.
    static WINDOW: RefCell<(Vec<Timestamp>, Vec<f64>)> = RefCell::default();
}

/// Judges what is fresh of `messages`, whose `rows` are parallel to them. Events of every verdict are made
/// only where a place takes them. The only error is that a remote detector failed and the settings say that
/// the batch then does.
pub(super) fn judge(
    shard: &Shard,
    rules: &Rules,
    detector: &Detector,
    messages: &[Message],
    rows: &[Result<Row, RowError>],
    with_verdicts: bool,
) -> Result<Judged, RemoteError> {
    let arrivals: Vec<Arrival<'_>> = std::iter::zip(messages, rows)
        .map(|(message, row)| Arrival {
            offset: message.offset,
            broker_ms: message.broker_time_ms,
            point: row.as_ref().ok().map(|row| (&*row.series, row.point)),
        })
        .collect();
    let mut plan = shard.plan(rules, &arrivals);
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    outcomes.resize_with(messages.len(), || None);
    let runtime = detector.runtime();
    let judged: Result<Vec<Vec<(usize, Outcome)>>, RemoteError> = plan
        .work
        .par_iter_mut()
        .map(|work| {
            let mut judged = Vec::new();
            let mut failure = None;
            work.run(rules, |index, push, window| {
                if failure.is_some() {
                    return;
                }
                let judges = push.is_kept() && window.len() >= rules.min_points;
                let verdict = judges.then(|| {
                    let series = rows[index].as_ref().map_or("", |row| &row.series);
                    WINDOW.with_borrow_mut(|(timestamps, values)| {
                        window.copy_to(timestamps, values);
                        detector.last(runtime.as_ref(), series, timestamps, values)
                    })
                });
                match verdict.transpose() {
                    Ok(verdict) => judged.push((index, Outcome { push, verdict })),
                    Err(error) => failure = Some(error),
                }
            });
            failure.map_or(Ok(judged), Err)
        })
        .collect();
    for (index, outcome) in judged?.into_iter().flatten() {
        outcomes[index] = Some(outcome);
    }

    let mut batch = Judged {
        change: Change::default(),
        anomalies: Vec::new(),
        dead_letters: Vec::new(),
        verdicts: Vec::new(),
        absorbed: Absorbed {
            messages: messages.len(),
            ..Absorbed::default()
        },
        with_verdicts,
    };
    for (index, admission) in plan.admissions.iter().enumerate() {
        let (message, row) = (&messages[index], &rows[index]);
        if admission.opens_epoch {
            telemetry::NEW_EPOCHS.inc();
            tracing::warn!(
                topic = &*message.topic,
                partition = message.partition,
                offset = message.offset,
                epoch = admission.epoch,
                "The partition's offsets began anew (its topic was made again, or its broker started afresh); windows stay."
            );
        }
        let epoch = admission.epoch;
        match (admission.entry, row, outcomes[index].take()) {
            (Entry::Absorbed, _, _) => batch.absorbed.no_ops += 1,
            (_, Err(error), _) => {
                batch.refuse(message, epoch, None, error.reason(), error.to_string())
            }
            (Entry::NoRoom, Ok(row), _) => {
                let detail = format!(
                    "the partition keeps {} series already, which is Window__MaxSeries; raise it, or find out who makes up names",
                    rules.max_series
                );
                batch.refuse(message, epoch, Some(row), "too-many-series", detail);
            }
            (Entry::Fresh, Ok(row), Some(outcome)) => {
                batch.note(message, epoch, row, outcome, detector)
            }
            // The plan gives every fresh point of a known series to exactly one piece of work.
            (Entry::Fresh, Ok(_), None) => unreachable!("a fresh point without work"),
        }
    }
    // A host that mixes its retries may hand messages out of order; files rely on the order.
    for events in [
        &mut batch.anomalies,
        &mut batch.dead_letters,
        &mut batch.verdicts,
    ] {
        events.sort_by_key(|event| event.id.position());
    }
    batch.change = Change::new(plan);
    Ok(batch)
}

impl Judged {
    fn note(
        &mut self,
        message: &Message,
        epoch: u32,
        row: &Row,
        outcome: Outcome,
        detector: &Detector,
    ) {
        let timestamp = match outcome.push {
            Push::Repeated | Push::Late | Push::OffGrid => {
                return self.refuse_point(message, epoch, row, outcome.push);
            }
            Push::Snapped(slot) => slot,
            Push::Restarted(restart) => {
                let reason = match restart {
                    Restart::Gap => "a gap as long as the window",
                    Restart::Phase => "twelve points in a row on another grid",
                };
                tracing::warn!(series = &*row.series, at = %row.point.timestamp, reason, "The window starts anew.");
                row.point.timestamp
            }
            Push::Kept => row.point.timestamp,
        };
        self.absorbed.kept += 1;
        let Some(verdict) = outcome.verdict else {
            return;
        };
        let point = Point {
            timestamp,
            ..row.point
        };
        let event = |stream| {
            events::verdict(
                stream,
                message,
                epoch,
                &row.series,
                point,
                &verdict,
                &detector.data,
            )
        };
        if self.with_verdicts {
            self.verdicts.push(event(Stream::Verdicts));
        }
        match &verdict {
            Ok(verdict) => {
                self.absorbed.judged += 1;
                if verdict.is_anomaly {
                    let anomaly = Anomaly {
                        series: Arc::clone(&row.series),
                        timestamp,
                        value: point.value,
                        expected_value: verdict.expected_value,
                    };
                    tracing::info!("{anomaly}");
                    self.absorbed.anomalies.push(anomaly);
                    self.anomalies.push(event(Stream::Anomalies));
                }
            }
            Err(error) => {
                self.absorbed.not_judged += 1;
                tracing::warn!(
                    series = &*row.series,
                    at = %timestamp,
                    code = error.code.as_str(),
                    reason = %error.message,
                    "The window was not judged."
                );
            }
        }
    }

    fn refuse_point(&mut self, message: &Message, epoch: u32, row: &Row, push: Push) {
        let Some(reason) = push.reason() else { return };
        let at = row.point.timestamp;
        let detail = match push {
            Push::Repeated => format!(
                "{} has a point at {at} already; the first one stays",
                row.series
            ),
            Push::Late => format!("{at} is older than the newest point of {}", row.series),
            _ => format!(
                "{at} is off the grid of {}; correct the clock or the interval, or set Window__OffGrid=snap",
                row.series
            ),
        };
        self.refuse(message, epoch, Some(row), reason, detail);
    }

    fn refuse(
        &mut self,
        message: &Message,
        epoch: u32,
        row: Option<&Row>,
        reason: &'static str,
        detail: String,
    ) {
        tracing::warn!(
            topic = &*message.topic,
            partition = message.partition,
            offset = message.offset,
            reason,
            %detail,
            "Dead letter."
        );
        self.absorbed.dead_letters += 1;
        let series = row.map(|row| Arc::clone(&row.series));
        let time = row.map(|row| row.point.timestamp);
        self.dead_letters.push(events::dead_letter(
            message, epoch, series, time, reason, detail,
        ));
    }
}
