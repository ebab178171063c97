//! `detect`: judges the points of a Kafka batch; the Rust side of `functions/detect/function.json`.

use super::Refusal;
use crate::invocation::{Invocation, Outcome, kafka};
use crate::judge::{Absorbed, Pipeline};

/// Absorbs the messages of one invocation. Answers only once windows and records are durable, so that
/// the host may commit their offsets.
pub async fn detect(pipeline: &Pipeline, invocation: &Invocation<'_>) -> Result<Outcome, Refusal> {
    let messages = kafka::messages(invocation)?;
    let absorbed = pipeline.absorb(messages).await?;
    tracing::info!(
        messages = absorbed.messages,
        kept = absorbed.kept,
        judged = absorbed.judged,
        anomalies = absorbed.anomalies.len(),
        dead_letters = absorbed.dead_letters,
        no_ops = absorbed.no_ops,
        "Batch absorbed."
    );
    Ok(Outcome::logged(lines(&absorbed)))
}

/// What the host's log says of a batch: one line for it, one for each anomaly.
fn lines(absorbed: &Absorbed) -> Vec<String> {
    let mut lines = vec![format!(
        "{} messages: {} kept, {} judged, {} anomalies, {} dead letters, {} absorbed before",
        absorbed.messages,
        absorbed.kept,
        absorbed.judged,
        absorbed.anomalies.len(),
        absorbed.dead_letters,
        absorbed.no_ops
    )];
    lines.extend(absorbed.anomalies.iter().map(|anomaly| {
        format!(
            "Anomaly in {}: {} at {}, expected {:.4}",
            anomaly.series, anomaly.value, anomaly.timestamp, anomaly.expected_value
        )
    }));
    lines
}
