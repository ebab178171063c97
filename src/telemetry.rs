//! Logs and metrics: every metric that Lapwing keeps, with its unit; names are an interface.
//!
//! Ordinary lines go to stdout and errors alone to stderr, because the Functions host shows every
//! stderr line as an error. `series` is never a label: there may be a million.

use std::io;
use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, register_histogram,
    register_histogram_vec, register_int_counter, register_int_counter_vec, register_int_gauge,
};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::writer::MakeWriterExt;

macro_rules! metrics {
    ($($(#[$doc:meta])* $ident:ident: $type:ty = $make:expr;)*) => {
        $($(#[$doc])* pub static $ident: LazyLock<$type> =
            LazyLock::new(|| $make.expect("a metric is registered once, under a valid name"));)*

        /// Registers every metric, so that one that has not moved yet shows as 0.
        fn register_all() {
            $(LazyLock::force(&$ident);)*
        }
    };
}

metrics! {
    /// Points kept in a window.
    POINTS: IntCounter = register_int_counter!("lapwing_points_total", "Points kept in a window");
    /// Verdicts by outcome: `normal`, `anomaly`, `not-judged`.
    VERDICTS: IntCounterVec = register_int_counter_vec!("lapwing_verdicts_total", "Verdicts by outcome: normal, anomaly, not-judged", &["outcome"]);
    /// Dead letters by reason.
    DEAD_LETTERS: IntCounterVec = register_int_counter_vec!("lapwing_dead_letters_total", "Messages that no window kept, by reason", &["reason"]);
    /// Messages whose offset had been absorbed before.
    NO_OPS: IntCounter = register_int_counter!("lapwing_no_ops_total", "Messages whose offset had been absorbed before");
    /// Shards that began a new epoch.
    NEW_EPOCHS: IntCounter = register_int_counter!("lapwing_new_epochs_total", "Partitions whose offsets began anew");
    /// Saves that another writer had overtaken.
    CONFLICTS: IntCounter = register_int_counter!("lapwing_conflicts_total", "Saves that another writer had overtaken; each was redone on a fresh load");
    /// Seconds from a batch's arrival to its answer.
    BATCH_SECONDS: Histogram = register_histogram!("lapwing_batch_seconds", "Seconds from the arrival of a batch to its answer", vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0]);
    /// Seconds spent judging one batch's points of one shard.
    JUDGE_SECONDS: Histogram = register_histogram!("lapwing_judge_seconds", "Seconds spent judging the points of one partition in a batch", vec![0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]);
    /// Unix time at which the batch in progress arrived; 0 when there is none.
    BATCH_STARTED: IntGauge = register_int_gauge!("lapwing_batch_in_progress_since_seconds", "Unix time at which the oldest batch in progress arrived; 0 when there is none");
    /// Invocations by function and outcome.
    INVOCATIONS: IntCounterVec = register_int_counter_vec!("lapwing_invocations_total", "Invocations by function and outcome: ok, failed, panicked", &["function", "outcome"]);
    /// Rows that `replay` sent and the broker acknowledged.
    ROWS_SENT: IntCounter = register_int_counter!("lapwing_rows_sent_total", "Rows that replay sent and the broker acknowledged");
    /// Writes of a batch's events to one place, by stream and outcome, in seconds.
    RECORD_SECONDS: HistogramVec = register_histogram_vec!("lapwing_record_seconds", "Seconds of writing a batch's events to one place, by stream and outcome: ok, failed", &["stream", "outcome"], vec![0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]);
    /// Store requests by store, operation and outcome, in seconds.
    STORE_SECONDS: HistogramVec = register_histogram_vec!("lapwing_store_seconds", "Seconds of store requests by store, operation and outcome", &["store", "operation", "outcome"], vec![0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]);
}

/// All metrics in Prometheus' text format.
pub fn prometheus_text() -> Result<String, prometheus::Error> {
    register_all();
    prometheus::TextEncoder::new().encode_to_string(&prometheus::gather())
}

/// Starts logging for this process; `RUST_LOG` chooses what is shown (default `info`, with what the
/// Kafka and Azure clients say from `warn` on).
pub fn start_logging() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("RUST_LOG")
        .from_env_lossy();
    let filter = if std::env::var_os("RUST_LOG").is_some() {
        filter
    } else {
        EnvFilter::new(
            "info,rdkafka=warn,librdkafka=warn,azure_core=warn,azure_identity=warn,hyper=warn,reqwest=warn",
        )
    };
    let writer = io::stderr
        .with_max_level(tracing::Level::ERROR)
        .or_else(io::stdout);
    // A second start (tests that run commands in one process) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}

/// An error and its causes on one line; a cause that the text before it already tells is left out.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    line.replace('\n', " ")
}
