//! The timer trigger: one run at a time, the last and the next one remembered in a file.
//!
//! A run that was missed while no host ran is made up for once, at the start, however many occurrences
//! passed. The next occurrence is looked for when a run has ended, so a run longer than the period skips
//! some and never overlaps another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Local};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::event::Level;
use super::function::{Function, TimerTrigger};
use super::invoke::Invoker;
use super::wire::{Payload, Value};

const CATEGORY: &str = "Host.Timer";

/// A running timer. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Timer {
    by_hand: mpsc::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Timer {
    /// Starts the timer of `function`. `is_past_due` makes its first run come at once and late.
    pub(crate) fn start(
        function: Arc<Function>,
        trigger: TimerTrigger,
        invoker: Arc<Invoker>,
        state: &Path,
        is_past_due: bool,
    ) -> Self {
        let (by_hand, asked) = mpsc::channel(1);
        let file = state.join("timers").join(format!("{}.json", function.name));
        let run = Run {
            function,
            trigger,
            invoker,
            file,
            asked,
            status: None,
        };
        Self {
            by_hand,
            task: tokio::spawn(run.run(is_past_due)),
        }
    }

    /// Lets the function run now, after the current run if there is one.
    pub(crate) fn fire(&self) {
        // A full channel means that a run is asked for already.
        let _ = self.by_hand.try_send(());
    }

    /// Ends it; a run is cut off.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        // An aborted task ends with an error that says so.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is remembered of a timer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    /// The schedule that the rest belongs to: a changed one is never past due.
    schedule: String,
    last: Option<DateTime<FixedOffset>>,
    next: Option<DateTime<FixedOffset>>,
    last_updated: DateTime<FixedOffset>,
}

struct Run {
    function: Arc<Function>,
    trigger: TimerTrigger,
    invoker: Arc<Invoker>,
    file: PathBuf,
    asked: mpsc::Receiver<()>,
    status: Option<Status>,
}

impl Run {
    async fn run(mut self, mut is_past_due: bool) {
        if self.trigger.use_monitor {
            let known = self.remembered();
            let now = Local::now().fixed_offset();
            match known.filter(|status| status.schedule == self.trigger.schedule.text()) {
                Some(status) => {
                    is_past_due |= status.next.is_some_and(|next| next <= now);
                    self.status = Some(status);
                }
                None => self.remember(None, now),
            }
        }
        if is_past_due || self.trigger.run_on_startup {
            self.fire(is_past_due).await;
        }
        loop {
            let Some(next) = self.trigger.schedule.next_after(Local::now()) else {
                let text = format!(
                    "{} never runs: its schedule has no further occurrence",
                    self.function.name
                );
                return self.invoker.events.log(Level::Warning, CATEGORY, text);
            };
            tokio::select! {
                () = until(next) => {}
                asked = self.asked.recv() => if asked.is_none() { return },
            }
            self.fire(false).await;
        }
    }

    async fn fire(&mut self, is_past_due: bool) {
        let began = Local::now().fixed_offset();
        let info = timer_info(&self.trigger, self.status.as_ref(), is_past_due);
        let payload = Payload::new(&self.function.binding, info, []);
        // A failure is logged and counted where it happens; the next occurrence is the next try.
        let _ = self.invoker.execute(&self.function, &payload).await;
        if self.trigger.use_monitor {
            self.remember(Some(began), Local::now().fixed_offset());
        }
    }

    fn remembered(&self) -> Option<Status> {
        let complain = |error: &dyn std::fmt::Display| {
            let text = format!(
                "timer status {} is unreadable and starts anew: {error}",
                self.file.display()
            );
            self.invoker.events.log(Level::Warning, CATEGORY, text);
        };
        let bytes = match std::fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                complain(&error);
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| complain(&error))
            .ok()
    }

    fn remember(&mut self, last: Option<DateTime<FixedOffset>>, now: DateTime<FixedOffset>) {
        let schedule = &self.trigger.schedule;
        let next = schedule.next_after(now.with_timezone(&Local));
        let status = Status {
            schedule: schedule.text().to_owned(),
            last,
            next: next.map(|next| next.fixed_offset()),
            last_updated: last.unwrap_or(now),
        };
        if let Err(error) = write(&self.file, &status) {
            let text = format!(
                "timer status {} cannot be written, a missed run will go unnoticed: {error}",
                self.file.display()
            );
            self.invoker.events.log(Level::Warning, CATEGORY, text);
        }
        self.status = Some(status);
    }
}

/// Waits for a moment of the clock, which may be set meanwhile.
async fn until(moment: DateTime<Local>) {
    while let Ok(left) = (moment - Local::now()).to_std() {
        // A hair more, so that the occurrence itself is in the past when the next one is looked for.
        let left = left + Duration::from_millis(1);
        tokio::time::sleep(left.min(Duration::from_secs(60))).await;
    }
}

fn write(file: &Path, status: &Status) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = file.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(status)?)?;
    std::fs::rename(beside, file)
}

/// The `TimerInfo` object: the status as it was before this run.
fn timer_info(trigger: &TimerTrigger, status: Option<&Status>, is_past_due: bool) -> Value {
    let status = match status.filter(|_| trigger.use_monitor) {
        None => Value::Null,
        Some(status) => {
            let moment = |time: Option<DateTime<FixedOffset>>| match time {
                Some(time) => Value::DateTimeOffset(time),
                None => Value::text("0001-01-01T00:00:00"),
            };
            Value::object([
                ("Last", moment(status.last)),
                ("Next", moment(status.next)),
                ("LastUpdated", moment(Some(status.last_updated))),
            ])
        }
    };
    let adjusts = Value::Bool(trigger.schedule.adjusts_for_dst());
    Value::object([
        ("Schedule", Value::object([("AdjustForDST", adjusts)])),
        ("ScheduleStatus", status),
        ("IsPastDue", Value::Bool(is_past_due)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(schedule: &str) -> TimerTrigger {
        TimerTrigger {
            schedule: schedule.parse().unwrap(),
            run_on_startup: false,
            use_monitor: true,
        }
    }

    #[test]
    fn timer_info_is_the_hosts() {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap();
        let status = Status {
            schedule: "0 */5 * * * *".to_owned(),
            last: Some(time("2026-08-21T14:55:00.0123456+00:00")),
            next: Some(time("2026-08-21T15:00:00+00:00")),
            last_updated: time("2026-08-21T14:55:00.0123456+00:00"),
        };
        let info = timer_info(&trigger("0 */5 * * * *"), Some(&status), false);
        assert_eq!(
            info.to_json(),
            r#"{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"2026-08-21T14:55:00.0123456+00:00","Next":"2026-08-21T15:00:00+00:00","LastUpdated":"2026-08-21T14:55:00.0123456+00:00"},"IsPastDue":false}"#
        );
        let first = Status {
            last: None,
            ..status
        };
        let info = timer_info(&trigger("00:05:00"), Some(&first), true).to_json();
        assert!(info.contains(r#""Last":"0001-01-01T00:00:00","#), "{info}");
        assert!(info.contains(r#""AdjustForDST":false"#) && info.contains(r#""IsPastDue":true"#));
        let unmonitored = TimerTrigger {
            use_monitor: false,
            ..trigger("* * * * * *")
        };
        let info = timer_info(&unmonitored, None, false).to_json();
        assert!(info.contains(r#""ScheduleStatus":null"#), "{info}");
    }
}
