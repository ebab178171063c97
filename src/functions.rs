//! The functions of the app, one file per folder of `functions/`: decode the invocation, do the work,
//! say what was done. No algorithm and no storage client here.

pub mod detect;
pub mod replay;

use crate::invocation::PayloadError;
use crate::judge::JudgeError;
use crate::replay::ReplayError;

/// Why an invocation failed, in one line; the host will bring it again.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The payload is not one that the host sends.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The batch could not be made durable.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The rows could not be sent.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A setting cannot be used.
    #[error("{0}")]
    Misconfigured(String),
}
