//! The platform: starts hosts, starts them again when they end, and is the hand that kills and freezes.
//!
//! Processes are signalled by the id of a child of ours or of a child of such a child, never by name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::watch;

/// How long the platform takes to start a host that ended.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// The hosts and what was done to them.
#[derive(Debug)]
pub(crate) struct Platform {
    hosts: Vec<Host>,
    orphans: Vec<Orphan>,
    folder: PathBuf,
    /// What was done so far.
    pub(crate) toll: Toll,
}

/// What the processes suffered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Toll {
    /// Handlers killed, at a step or at random.
    pub(crate) handler_kills: usize,
    /// Hosts killed.
    pub(crate) host_kills: usize,
    /// Kills of either kind that fell inside a batch.
    pub(crate) inside_batch: usize,
    /// Hosts stopped for longer than the group's session, and woken again.
    pub(crate) freezes: usize,
    /// Hosts that ended by themselves, after three crashes of their handler.
    pub(crate) gave_up: usize,
    /// Hosts started again, whatever ended them.
    pub(crate) restarts: usize,
}

/// How a host is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The program that is host and handler.
    pub(crate) program: PathBuf,
    /// Staged app folder.
    pub(crate) app: PathBuf,
    /// Folder of the host's own state.
    pub(crate) state: PathBuf,
    /// App settings.
    pub(crate) settings: Vec<(String, String)>,
}

#[derive(Debug)]
struct Host {
    index: usize,
    launch: Launch,
    log: PathBuf,
    child: Option<Child>,
    ended_at: Option<Instant>,
    was_killed: bool,
}

/// A handler whose host was killed; it works on until it is killed as well.
#[derive(Debug)]
struct Orphan {
    pid: Pid,
    until: Instant,
}

impl Platform {
    /// Starts a host for each launch; logs and what handlers tell go to `folder`.
    pub(crate) fn start(launches: Vec<Launch>, folder: &Path) -> io::Result<Self> {
        let mut hosts: Vec<Host> = launches
            .into_iter()
            .enumerate()
            .map(|(index, launch)| Host {
                index,
                launch,
                log: folder.join(format!("host-{index}.log")),
                child: None,
                ended_at: None,
                was_killed: false,
            })
            .collect();
        for host in &mut hosts {
            host.spawn(folder)?;
        }
        Ok(Self {
            hosts,
            orphans: Vec::new(),
            folder: folder.to_owned(),
            toll: Toll::default(),
        })
    }

    /// Starts what ended, kills orphans whose time has come. To be called often.
    pub(crate) fn tend(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.orphans.retain(|orphan| {
            let is_over = now >= orphan.until;
            if is_over {
                signal(orphan.pid, Signal::KILL);
            }
            !is_over
        });
        for host in &mut self.hosts {
            if let Some(child) = &mut host.child
                && child.try_wait()?.is_some()
            {
                host.child = None;
                host.ended_at = Some(now);
                if !std::mem::take(&mut host.was_killed) {
                    self.toll.gave_up += 1;
                }
            }
            if host
                .ended_at
                .is_some_and(|ended| now >= ended + RESTART_AFTER)
            {
                host.ended_at = None;
                self.toll.restarts += 1;
                host.spawn(&self.folder)?;
            }
        }
        Ok(())
    }

    /// Kills the handler of `host`; false when there is none just now.
    pub(crate) fn kill_handler(&mut self, host: usize) -> bool {
        let Some(pid) = self.handler(host) else {
            return false;
        };
        if !signal(pid, Signal::KILL) {
            return false;
        }
        self.toll.handler_kills += 1;
        if self.was_busy(host, pid) {
            self.toll.inside_batch += 1;
        }
        true
    }

    /// Counts the handler that ended itself at a step that it was told of.
    pub(crate) fn note_kill_at_step(&mut self) {
        self.toll.handler_kills += 1;
        self.toll.inside_batch += 1;
    }

    /// Kills `host`; its handler works on for `orphaned`. False when it does not run just now.
    pub(crate) fn kill_host(&mut self, host: usize, orphaned: Duration) -> bool {
        let handler = self.handler(host);
        let Some(pid) = self.hosts[host].pid() else {
            return false;
        };
        let is_busy = handler.is_some_and(|handler| self.was_busy(host, handler));
        if !signal(pid, Signal::KILL) {
            return false;
        }
        self.hosts[host].was_killed = true;
        self.toll.host_kills += 1;
        self.toll.inside_batch += usize::from(is_busy);
        self.orphans.extend(handler.map(|pid| Orphan {
            pid,
            until: Instant::now() + orphaned,
        }));
        true
    }

    /// Stops `host` and its handler where they stand. What is given back wakes them.
    pub(crate) fn freeze(&mut self, host: usize) -> Option<Frozen> {
        let pids: Vec<Pid> = [self.handler(host)?, self.hosts[host].pid()?]
            .into_iter()
            .filter(|pid| signal(*pid, Signal::STOP))
            .collect();
        self.toll.freezes += 1;
        Some(Frozen { pids })
    }

    /// Ends everything.
    pub(crate) fn stop(mut self) -> io::Result<Toll> {
        self.end_all()?;
        Ok(self.toll)
    }

    fn end_all(&mut self) -> io::Result<()> {
        for orphan in self.orphans.drain(..) {
            signal(orphan.pid, Signal::KILL);
        }
        for index in 0..self.hosts.len() {
            let handler = self.handler(index);
            if let Some(mut child) = self.hosts[index].child.take() {
                child.kill()?;
                child.wait()?;
            }
            if let Some(pid) = handler {
                signal(pid, Signal::KILL);
            }
        }
        Ok(())
    }

    fn was_busy(&self, host: usize, pid: Pid) -> bool {
        let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or_default();
        watch::seen(&self.folder, host, pid).is_some_and(|seen| seen.is_busy)
    }

    fn handler(&self, host: usize) -> Option<Pid> {
        child_of(self.hosts[host].pid()?)
    }
}

impl Drop for Platform {
    /// Leaves nobody behind when the harness itself fails.
    fn drop(&mut self) {
        if let Err(error) = self.end_all() {
            eprintln!("a host could not be ended: {error}");
        }
    }
}

impl Host {
    fn spawn(&mut self, folder: &Path) -> io::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = Command::new(&self.launch.program)
            .args(["host", "--app"])
            .arg(&self.launch.app)
            .args(["--port", "0", "--state"])
            .arg(&self.launch.state)
            .envs(
                self.launch
                    .settings
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .env(watch::FOLDER, folder)
            .env(watch::HOST, self.index.to_string())
            .stdin(Stdio::null())
            .stdout(File::try_clone(&log)?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.as_ref()?.id()).ok()?)
    }
}

/// Processes that were stopped; they go on when this goes.
#[derive(Debug)]
pub(crate) struct Frozen {
    pids: Vec<Pid>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.pids {
            signal(*pid, Signal::CONT);
        }
    }
}

/// Whether the signal reached a process.
fn signal(pid: Pid, signal: Signal) -> bool {
    kill_process(pid, signal).is_ok()
}

/// The child of a process, from the table of processes: a host has one, its handler.
fn child_of(parent: Pid) -> Option<Pid> {
    let parent = parent.as_raw_nonzero().get().to_string();
    fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // pid (name) state ppid …; the name may hold anything, blanks and parentheses too.
            let mut rest = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let state = rest.next();
            state != Some("Z") && rest.next() == Some(parent.as_str())
        })
        .and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_of_a_process_is_found_and_a_dead_one_is_not() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let parent = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let grandchild = loop {
            if let Some(pid) = child_of(parent) {
                break pid;
            }
            std::thread::yield_now();
        };
        assert!(signal(grandchild, Signal::KILL));
        child.wait().unwrap();
        assert_eq!(child_of(parent), None);
    }
}
