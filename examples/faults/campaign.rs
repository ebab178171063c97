//! The time of trouble: carries the plan out against the running hosts, one tick at a time, and ends
//! every trouble that it began.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::plan::{Fault, Plan};
use crate::platform::{Frozen, Platform};
use crate::proxy::{Proxy, Weather};
use crate::services::Service;
use crate::watch;

/// How often the platform looks.
pub(crate) const TICK: Duration = Duration::from_millis(25);
/// How long an order to die at a step may stay unobeyed before the handler dies where it stands.
const ORDER_PATIENCE: Duration = Duration::from_secs(6);
/// How long a freeze waits for a batch to freeze in.
const FREEZE_PATIENCE: Duration = Duration::from_secs(4);

/// A plan that is being carried out.
#[derive(Debug)]
pub(crate) struct Campaign<'a> {
    platform: &'a mut Platform,
    proxies: &'a [Proxy],
    broker: Arc<Service>,
    folder: PathBuf,
    started: Instant,
    plan: std::iter::Peekable<std::vec::IntoIter<(Duration, Fault)>>,
    orders: Vec<Option<Order>>,
    freezing: Vec<Freezing>,
    frozen: Vec<(Instant, Frozen)>,
    outages: Vec<RunningOutage>,
    broker_starts: Vec<JoinHandle<std::io::Result<()>>>,
    /// Times that the broker was killed.
    pub(crate) broker_kills: usize,
    /// What was done to the store.
    pub(crate) outages_done: Outages,
}

/// Store outages that are over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outages {
    /// All of them.
    pub(crate) count: usize,
    /// Those that met a request: somebody was in the middle of something.
    pub(crate) met: usize,
}

/// A handler was told to die at a step.
#[derive(Debug)]
struct Order {
    since: Instant,
}

/// A host is to be frozen as soon as it has a batch in progress.
#[derive(Debug)]
struct Freezing {
    host: usize,
    since: Instant,
    length: Duration,
}

#[derive(Debug)]
struct RunningOutage {
    hosts: Vec<usize>,
    until: Instant,
    met_before: u64,
}

impl<'a> Campaign<'a> {
    /// Begins now; `folder` is the one that the handlers tell into.
    pub(crate) fn new(
        plan: Plan,
        platform: &'a mut Platform,
        proxies: &'a [Proxy],
        broker: Arc<Service>,
        folder: PathBuf,
    ) -> Self {
        Self {
            orders: proxies.iter().map(|_| None).collect(),
            platform,
            proxies,
            broker,
            folder,
            started: Instant::now(),
            plan: plan.into_iter().peekable(),
            freezing: Vec::new(),
            frozen: Vec::new(),
            outages: Vec::new(),
            broker_starts: Vec::new(),
            broker_kills: 0,
            outages_done: Outages::default(),
        }
    }

    /// Does what is due. To be called every [`TICK`].
    pub(crate) fn tick(&mut self) -> std::io::Result<()> {
        self.platform.tend()?;
        while let Some((_, fault)) = self.plan.next_if(|(at, _)| self.started.elapsed() >= *at) {
            self.begin(fault)?;
        }
        self.look_after_orders();
        self.look_after_freezes();
        self.end_outages(false);
        Ok(())
    }

    /// Ends every trouble, and makes the weather calm.
    pub(crate) fn end(&mut self) -> std::io::Result<()> {
        self.freezing.clear();
        self.frozen.clear();
        self.end_outages(true);
        for host in 0..self.orders.len() {
            if self.orders[host].take().is_some() && !watch::cancel_kill(&self.folder, host) {
                self.platform.note_kill_at_step();
            }
        }
        for proxy in self.proxies {
            proxy.set_weather(Weather::CALM);
        }
        for start in self.broker_starts.drain(..) {
            let panicked = |_| std::io::Error::other("starting the broker panicked");
            start.join().map_err(panicked).flatten()?;
        }
        Ok(())
    }

    /// The platform, for whoever looks on.
    pub(crate) fn platform(&self) -> &Platform {
        self.platform
    }

    fn begin(&mut self, fault: Fault) -> std::io::Result<()> {
        let now = Instant::now();
        match fault {
            Fault::KillHandler { host } => {
                self.platform.kill_handler(host);
            }
            Fault::KillHandlerAt { host, step } => {
                if self.orders[host].is_none() {
                    watch::order_kill(&self.folder, host, step)?;
                    self.orders[host] = Some(Order { since: now });
                } else {
                    self.platform.kill_handler(host);
                }
            }
            Fault::KillHost { host, orphaned } => {
                self.platform.kill_host(host, orphaned);
            }
            Fault::Freeze { host, length } => self.freezing.push(Freezing {
                host,
                since: now,
                length,
            }),
            Fault::Outage { host, kind, length } => {
                let hosts: Vec<usize> = match host {
                    Some(host) => vec![host],
                    None => (0..self.proxies.len()).collect(),
                };
                let met_before = self.met(&hosts);
                for host in &hosts {
                    self.proxies[*host].set_outage(Some(kind));
                }
                self.outages.push(RunningOutage {
                    hosts,
                    until: now + length,
                    met_before,
                });
            }
            Fault::KillBroker { down } => {
                // One at a time: a broker that still starts cannot be killed by its id.
                if self.broker_starts.iter().all(JoinHandle::is_finished) {
                    self.broker.kill()?;
                    self.broker_kills += 1;
                    let broker = Arc::clone(&self.broker);
                    self.broker_starts.push(std::thread::spawn(move || {
                        std::thread::sleep(down);
                        broker.start_again()
                    }));
                }
            }
            Fault::Weather(weather) => {
                for proxy in self.proxies {
                    proxy.set_weather(weather);
                }
            }
        }
        Ok(())
    }

    fn look_after_orders(&mut self) {
        for host in 0..self.orders.len() {
            let Some(order) = &self.orders[host] else {
                continue;
            };
            let is_late = order.since.elapsed() > ORDER_PATIENCE;
            if !watch::is_ordered(&self.folder, host) {
                self.platform.note_kill_at_step();
                self.orders[host] = None;
            } else if is_late {
                self.orders[host] = None;
                if watch::cancel_kill(&self.folder, host) {
                    self.platform.kill_handler(host);
                } else {
                    self.platform.note_kill_at_step();
                }
            }
        }
    }

    fn look_after_freezes(&mut self) {
        let now = Instant::now();
        self.frozen.retain(|(until, _)| now < *until);
        let (platform, frozen) = (&mut *self.platform, &mut self.frozen);
        self.freezing.retain(|freezing| {
            if !platform.is_busy(freezing.host) && freezing.since.elapsed() < FREEZE_PATIENCE {
                return true;
            }
            let stopped = platform.freeze(freezing.host);
            frozen.extend(stopped.map(|stopped| (now + freezing.length, stopped)));
            false
        });
    }

    fn end_outages(&mut self, all: bool) {
        let now = Instant::now();
        let (over, running) = std::mem::take(&mut self.outages)
            .into_iter()
            .partition::<Vec<_>, _>(|outage| all || now >= outage.until);
        self.outages = running;
        for outage in over {
            for host in &outage.hosts {
                self.proxies[*host].set_outage(None);
            }
            self.outages_done.count += 1;
            let is_met = self.met(&outage.hosts) > outage.met_before;
            self.outages_done.met += usize::from(is_met);
        }
    }

    fn met(&self, hosts: &[usize]) -> u64 {
        let met = |host: &usize| {
            self.proxies[*host]
                .counts()
                .in_outage
                .load(Ordering::Relaxed)
        };
        hosts.iter().map(met).sum()
    }
}
