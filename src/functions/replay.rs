//! `replay`: sends the next rows of a CSV on each tick; the Rust side of `functions/replay/function.json`.

use super::Refusal;
use crate::invocation::{Invocation, Outcome, timer};
use crate::replay::Replayer;

/// Sends the rows that this tick is for. Answers once the broker has acknowledged them and the cursor is
/// stored.
pub async fn replay(replayer: &Replayer, invocation: &Invocation<'_>) -> Result<Outcome, Refusal> {
    let tick = timer::tick(invocation)?;
    let sent = replayer.tick().await?;
    tracing::info!(past_due = tick.is_past_due, progress = %sent, "Rows sent.");
    Ok(Outcome::logged(vec![sent.to_string()]))
}
