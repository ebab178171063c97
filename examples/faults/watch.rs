//! The inside of a handler under the harness: says in a file whether a batch is in progress and what was
//! counted (a killed process can tell nothing afterwards), and kills or stops itself at the step that the
//! harness asked for.
//!
//! The kill points are those of the product ([`STEPS`]), which exist in test builds only.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing::telemetry;
use rustix::process::{Signal, kill_process};

/// Folder of the files; set for the hosts, and inherited by their handlers.
pub(crate) const FOLDER: &str = "LAPWING_FAULTS_FOLDER";
/// Number of the host; inherited too.
pub(crate) const HOST: &str = "LAPWING_FAULTS_HOST";
/// Set when the fence is to be off.
pub(crate) const NO_FENCE: &str = "LAPWING_FAULTS_NO_FENCE";

/// The steps of a batch at which a handler can be killed, in the order in which a batch passes them.
pub(crate) const STEPS: &[&str] = &["judge::before-record", BEFORE_SAVE, "judge::before-answer"];

/// Between record and save: who stands still here for long wakes up as the later of two writers.
pub(crate) const BEFORE_SAVE: &str = "judge::between-record-and-save";

/// What a handler counted up to its end, and whether a batch was in progress then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A batch was in progress.
    pub(crate) is_busy: bool,
    /// Messages recognised as absorbed before: redeliveries.
    pub(crate) no_ops: u64,
    /// Saves that another writer had overtaken.
    pub(crate) conflicts: u64,
}

/// Sets up this process, which is about to run as a handler.
pub(crate) fn install() -> io::Result<()> {
    let folder = PathBuf::from(variable(FOLDER)?);
    let host = variable(HOST)?;
    if std::env::var_os(NO_FENCE).is_some() {
        fail::cfg("store::fence-off", "return").map_err(io::Error::other)?;
    }
    for step in STEPS {
        let order = order_path(&folder, &host);
        let passed = move || {
            // Removing the order first: of a handler and an orphan of the same host one alone obeys.
            let what = fs::read_to_string(&order).unwrap_or_default();
            let signal = match what.split_once(' ') {
                Some(("kill", wanted)) if wanted == *step => Signal::KILL,
                Some(("stop", wanted)) if wanted == *step => Signal::STOP,
                _ => return,
            };
            if fs::remove_file(&order).is_ok() {
                // It cannot be refused to oneself.
                let _ = kill_process(rustix::process::getpid(), signal);
            }
        };
        fail::cfg_callback(*step, passed).map_err(io::Error::other)?;
    }
    let path = seen_path(&folder, &host, std::process::id());
    let file = File::create(path)?;
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || tell(&file))?;
    Ok(())
}

/// What a handler can be ordered to do when it next passes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// End by SIGKILL.
    Die,
    /// Stand still by SIGSTOP.
    Stop,
}

/// Gives the handler of `host` an order.
pub(crate) fn order(folder: &Path, host: usize, deed: Deed, step: &str) -> io::Result<()> {
    // Complete at once, so that no handler reads half an order.
    let draft = folder.join(format!("draft-{host}"));
    let word = match deed {
        Deed::Die => "kill",
        Deed::Stop => "stop",
    };
    fs::write(&draft, format!("{word} {step}"))?;
    fs::rename(draft, order_path(folder, &host.to_string()))
}

/// Takes an order back; says whether it had not been obeyed yet.
pub(crate) fn cancel(folder: &Path, host: usize) -> bool {
    fs::remove_file(order_path(folder, &host.to_string())).is_ok()
}

/// Whether an order to the handler of `host` waits to be obeyed.
pub(crate) fn is_ordered(folder: &Path, host: usize) -> bool {
    order_path(folder, &host.to_string()).exists()
}

/// What the handler `pid` of `host` told last; nothing if it never got so far.
pub(crate) fn seen(folder: &Path, host: usize, pid: u32) -> Option<Seen> {
    parse(&fs::read_to_string(seen_path(folder, &host.to_string(), pid)).ok()?)
}

/// What all handlers told, summed up.
pub(crate) fn seen_by_all(folder: &Path) -> io::Result<Seen> {
    let mut total = Seen::default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "seen")
            && let Some(seen) = parse(&fs::read_to_string(path)?)
        {
            total.no_ops += seen.no_ops;
            total.conflicts += seen.conflicts;
        }
    }
    Ok(total)
}

/// Writes what there is to see whenever it changes. One write of constant length in place: a kill leaves
/// the old line or the new one.
fn tell(file: &File) {
    let mut told = None;
    loop {
        let seen = Seen {
            is_busy: telemetry::BATCH_STARTED.get() != 0,
            no_ops: telemetry::NO_OPS.get(),
            conflicts: telemetry::CONFLICTS.get(),
        };
        if told != Some(seen) {
            if let Err(error) = file.write_all_at(line(seen).as_bytes(), 0) {
                eprintln!("the harness cannot be told: {error}");
            }
            told = Some(seen);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn line(seen: Seen) -> String {
    let Seen {
        is_busy,
        no_ops,
        conflicts,
    } = seen;
    format!("{} {no_ops:012} {conflicts:012}\n", u8::from(is_busy))
}

fn parse(line: &str) -> Option<Seen> {
    let mut words = line.split_ascii_whitespace();
    Some(Seen {
        is_busy: words.next()? == "1",
        no_ops: words.next()?.parse().ok()?,
        conflicts: words.next()?.parse().ok()?,
    })
}

fn seen_path(folder: &Path, host: &str, pid: u32) -> PathBuf {
    folder.join(format!("{host}-{pid}.seen"))
}

fn order_path(folder: &Path, host: &str) -> PathBuf {
    folder.join(format!("order-{host}"))
}

fn variable(name: &str) -> io::Result<String> {
    std::env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_back_and_summed() {
        let folder = tempfile::tempdir().unwrap();
        let seen_here = Seen {
            is_busy: true,
            no_ops: 64,
            conflicts: 3,
        };
        fs::write(seen_path(folder.path(), "0", 11), line(seen_here)).unwrap();
        fs::write(seen_path(folder.path(), "1", 12), line(seen_here)).unwrap();
        fs::write(seen_path(folder.path(), "1", 13), "").unwrap();
        assert_eq!(seen(folder.path(), 0, 11), Some(seen_here));
        assert_eq!(seen(folder.path(), 1, 13), None);
        let all = seen_by_all(folder.path()).unwrap();
        assert_eq!((all.no_ops, all.conflicts), (128, 6));
    }

    #[test]
    fn an_order_can_be_taken_back_until_it_is_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        order(folder.path(), 1, Deed::Die, STEPS[0]).unwrap();
        assert!(!cancel(folder.path(), 0));
        assert!(cancel(folder.path(), 1));
        assert!(!cancel(folder.path(), 1));
    }
}
