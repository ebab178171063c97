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
use crate::watch::{self, Deed};

/// How often the platform looks.
pub(crate) const TICK: Duration = Duration::from_millis(25);
/// How long an order may stay unobeyed before it is carried out wherever the handler stands.
const ORDER_PATIENCE: Duration = Duration::from_secs(6);

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
    frozen: Vec<Option<(Instant, Frozen)>>,
    outages: Vec<RunningOutage>,
    broker_start: Option<JoinHandle<std::io::Result<()>>>,
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

/// A handler was told to do something at a step.
#[derive(Clone, Copy, Debug)]
struct Order {
    since: Instant,
    wish: Wish,
}

/// What is to become of a handler.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Kill,
    /// The host as well, for so long.
    Freeze(Duration),
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
            frozen: proxies.iter().map(|_| None).collect(),
            platform,
            proxies,
            broker,
            folder,
            started: Instant::now(),
            plan: plan.into_iter().peekable(),
            outages: Vec::new(),
            broker_start: None,
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
        self.wake();
        self.end_outages(false);
        self.broker_is_back(false)?;
        Ok(())
    }

    /// Ends every trouble, and makes the weather calm.
    pub(crate) fn end(&mut self) -> std::io::Result<()> {
        self.end_outages(true);
        for host in 0..self.orders.len() {
            if let Some(order) = self.orders[host].take()
                && !watch::cancel(&self.folder, host)
            {
                self.obeyed(host, order.wish);
            }
        }
        self.frozen.fill_with(|| None);
        for proxy in self.proxies {
            proxy.set_weather(Weather::CALM);
        }
        self.broker_is_back(true)?;
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
                let host = self.awake(host);
                self.platform.kill_handler(host);
            }
            Fault::KillHandlerAt { host, step } => {
                let host = self.awake(host);
                self.order(host, Wish::Kill, step)?;
            }
            // While one host is frozen the other has to get on, or nobody overtakes the frozen one.
            Fault::KillHost { host, orphaned } if self.frozen.iter().all(Option::is_none) => {
                self.platform.kill_host(host, orphaned);
            }
            Fault::KillHost { .. } => {}
            Fault::Freeze { host, length } => {
                let host = self.awake(host);
                self.order(host, Wish::Freeze(length), watch::BEFORE_SAVE)?;
            }
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
                // One at a time: a broker that still starts has no process id to kill it by.
                if self.broker_start.is_none() {
                    self.broker_kills += 1;
                    let broker = Arc::clone(&self.broker);
                    self.broker_start = Some(std::thread::spawn(move || {
                        broker.kill()?;
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

    /// Gives an order; one that the host still has is carried out first, wherever its handler stands.
    fn order(&mut self, host: usize, wish: Wish, step: &str) -> std::io::Result<()> {
        self.press(host);
        let deed = match wish {
            Wish::Kill => Deed::Die,
            Wish::Freeze(_) => Deed::Stop,
        };
        watch::order(&self.folder, host, deed, step)?;
        self.orders[host] = Some(Order {
            since: Instant::now(),
            wish,
        });
        Ok(())
    }

    fn look_after_orders(&mut self) {
        for host in 0..self.orders.len() {
            let Some(order) = self.orders[host] else {
                continue;
            };
            let is_obeyed = !watch::is_ordered(&self.folder, host);
            if is_obeyed || order.since.elapsed() > ORDER_PATIENCE {
                self.press(host);
            }
        }
    }

    /// Ends an order of the host: it was obeyed, or is carried out now.
    fn press(&mut self, host: usize) {
        let Some(order) = self.orders[host].take() else {
            return;
        };
        if !watch::cancel(&self.folder, host) {
            self.obeyed(host, order.wish);
            return;
        }
        match order.wish {
            Wish::Kill => drop(self.platform.kill_handler(host)),
            Wish::Freeze(length) => self.freeze(host, length),
        }
    }

    fn obeyed(&mut self, host: usize, wish: Wish) {
        match wish {
            Wish::Kill => self.platform.note_kill_at_step(),
            Wish::Freeze(length) => self.freeze(host, length),
        }
    }

    fn freeze(&mut self, host: usize, length: Duration) {
        if let Some(frozen) = self.platform.freeze(host) {
            self.frozen[host] = Some((Instant::now() + length, frozen));
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        for frozen in &mut self.frozen {
            frozen.take_if(|(until, _)| now >= *until);
        }
    }

    /// `host`, or another when that one is frozen: who is frozen is to wake up as it was.
    fn awake(&self, host: usize) -> usize {
        let is_awake = |host: &usize| self.frozen[*host].is_none();
        let all = 0..self.frozen.len();
        Some(host)
            .filter(is_awake)
            .or_else(|| all.into_iter().find(is_awake))
            .unwrap_or(host)
    }

    /// Whether the broker that was killed runs again is looked at, or waited for; if it does not, that
    /// ends the run.
    fn broker_is_back(&mut self, wait: bool) -> std::io::Result<()> {
        match self
            .broker_start
            .take_if(|start| wait || start.is_finished())
        {
            None => Ok(()),
            Some(start) => start
                .join()
                .map_err(|_| std::io::Error::other("starting the broker panicked"))?,
        }
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
