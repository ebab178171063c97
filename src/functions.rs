//! The functions of the app, one file per folder of `functions/`: decode the invocation, do the work,
//! say what was done. No algorithm and no storage client here.

pub mod detect;
pub mod replay;
