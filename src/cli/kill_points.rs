//! Death at a named point, for the tests of what survives it; nothing of it is in a release build.
//!
//! `LAPWING_KILL_AT=name` kills this process (SIGKILL: no destructor, no flush) where the code says
//! `fail_point!("name")`; `name#3` does so at the third time. `LAPWING_PANIC_AT=name` panics there once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Arms the kill point that the environment names.
pub(super) fn arm() {
    if !fail::has_failpoints() {
        return;
    }
    if let Ok(name) = std::env::var("LAPWING_PANIC_AT")
        && let Err(reason) = fail::cfg(name.as_str(), "1*panic(made to)->off")
    {
        tracing::error!(name, reason, "The panic cannot be armed.");
    }
    let Ok(wanted) = std::env::var("LAPWING_KILL_AT") else {
        return;
    };
    let (name, times) = match wanted.split_once('#') {
        Some((name, times)) => (name, times.parse().unwrap_or(1)),
        None => (wanted.as_str(), 1),
    };
    let passed = AtomicU64::new(0);
    let armed = fail::cfg_callback(name, move || {
        if passed.fetch_add(1, Ordering::Relaxed) + 1 == times {
            let pid = std::process::id().to_string();
            // Should the signal fail to be sent, abort is the next best death.
            let _ = std::process::Command::new("kill")
                .args(["-KILL", &pid])
                .status();
            std::process::abort();
        }
    });
    if let Err(reason) = armed {
        tracing::error!(name, reason, "The kill point cannot be armed.");
    }
}
