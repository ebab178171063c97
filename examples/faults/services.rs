//! Kafka and Azurite of the harness's own, started and stopped by the repository's scripts, each with a
//! folder and ports of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let port = address.port().to_string();
        service.run("start", &[&port])?;
        Ok(service)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> io::Result<()> {
        let output = Command::new(&self.script)
            .arg(verb)
            .arg(&self.folder)
            .args(arguments)
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
        if let Err(error) = self.run("stop", &[]) {
            eprintln!("{error}");
        }
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
