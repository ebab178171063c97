//! Kafka and Azurite of the harness's own, started and stopped by the repository's scripts, each with a
//! folder and ports of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A service that a script started; it is stopped when this goes.
#[derive(Debug)]
pub(crate) struct Service {
    script: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
}

impl Service {
    /// Starts `scripts/<name>.sh` in `folder`, on a free port of the loopback.
    pub(crate) fn start(name: &str, folder: &Path) -> io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scripts/{name}.sh"));
        let folder = folder.join(name);
        let address = free_address()?;
        let service = Self {
            script,
            folder,
            address,
        };
        service.start_again()?;
        Ok(service)
    }

    /// Starts it on what is in its folder, after [`kill`](Self::kill).
    pub(crate) fn start_again(&self) -> io::Result<()> {
        let port = self.address.port().to_string();
        self.run("start", Some(&port))
    }

    /// Kills its process, by the id that the script left in its folder, and waits until it is gone.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let pid = std::fs::read_to_string(self.folder.join("pid"))?;
        let pid = pid.trim().parse().map_err(io::Error::other)?;
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no process id"))?;
        kill_process(pid, Signal::KILL)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while test_kill_process(pid).is_ok() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{pid:?} does not go")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn run(&self, verb: &str, port: Option<&str>) -> io::Result<()> {
        let output = Command::new(&self.script)
            .arg(verb)
            .arg(&self.folder)
            .args(port)
            .output()
            .map_err(|error| io::Error::other(format!("{}: {error}", self.script.display())))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!(
            "{} {verb} ended with {}: {}",
            self.script.display(),
            output.status,
            said.trim().replace('\n', "; ")
        )))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.run("stop", None) {
            eprintln!("{error}");
        }
    }
}

/// A free port whose next two are free as well: Kafka's controller has one of its own, and so have
/// Azurite's queues and tables.
fn free_address() -> io::Result<SocketAddr> {
    let mut taken = None;
    for _ in 0..100 {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let next = |by| {
            let port = address.port().checked_add(by);
            let port = port.ok_or_else(|| io::Error::other("past the last port"))?;
            TcpListener::bind(("127.0.0.1", port))
        };
        match next(1).and_then(|_| next(2)) {
            Ok(_) => return Ok(address),
            Err(error) => taken = Some(error),
        }
    }
    Err(taken.unwrap_or_else(|| io::Error::other("no three free ports side by side")))
}
