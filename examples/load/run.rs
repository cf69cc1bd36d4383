//! The loop: connections in one epoll, requests when answers come or when they are due.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use serde_json::{Value, json};

use crate::classes::{ClassArg, Classes};
use crate::http::Answer;
use crate::{Failure, http};

/// After connecting, before the first request at a rate or on many connections: a server that is still
/// accepting connections would be measured at that.
const ACCEPTED: Duration = Duration::from_millis(500);
const MANY: usize = 256;
/// How long after the last request was due what waits may still be sent, and answers come.
const DRAIN: Duration = Duration::from_secs(10);
/// Requests that are sent, being due, before answers are read: a driver that has fallen behind must not stop
/// reading until it has caught up.
const BURST: u32 = 32;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server
    #[arg(long)]
    connect: SocketAddr,
    /// For how long
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Requests a second, all classes together; without it, as fast as answers come
    #[arg(long)]
    rate: Option<f64>,
    /// Connections for plain requests
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Connections for paid requests
    #[arg(long, default_value_t = 64)]
    paid_connections: usize,
    /// Plain requests: NAME=PATH:WEIGHT
    #[arg(long)]
    plain: Vec<ClassArg>,
    /// Paid requests: NAME=PATH:WEIGHT
    #[arg(long)]
    paid: Vec<ClassArg>,
    /// A file of `load sign`
    #[arg(long)]
    proofs: Option<PathBuf>,
    /// Use the proofs again and again
    #[arg(long)]
    reuse: bool,
}

struct Connection {
    stream: TcpStream,
    answer: Answer,
    unsent: Vec<u8>,
    busy: Option<Sent>,
    is_paid: bool,
}

/// A request whose answer is awaited.
#[derive(Clone, Copy)]
struct Sent {
    class: usize,
    due: Instant,
}

#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    answers: BTreeMap<u16, u64>,
    sent: u64,
}

struct Driver {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Free connections and requests that wait for one: plain, paid.
    free: [VecDeque<usize>; 2],
    waiting: [VecDeque<Sent>; 2],
    classes: Classes,
    tallies: Vec<Tally>,
    /// How late this program was, at a rate, with taking up each request; part of what is charged.
    late: Vec<Duration>,
    buffer: Vec<u8>,
    is_over: bool,
    /// At no rate: which kind of request brings the next ones when it is answered.
    drives: Option<bool>,
    out_of_proofs: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Timers that are 50 us late would be counted as the server's.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let proofs = args.proofs.as_deref();
    let classes = Classes::new(&args.plain, &args.paid, proofs, args.reuse)?;
    let mut driver = Driver::connect(args, classes)?;
    if args.rate.is_some() || driver.connections.len() > MANY {
        std::thread::sleep(ACCEPTED);
    }
    let mut pace = Pace::starting_now(args);
    if args.rate.is_none() {
        for _ in 0..driver.in_closed_loop() {
            driver.next_in_loop(pace.since)?;
        }
    }
    loop {
        let mut now = Instant::now();
        for _ in 0..BURST {
            let Some(due) = pace.next().filter(|due| *due <= now) else {
                break;
            };
            pace.taken += 1;
            driver.due(due, now)?;
            now = Instant::now();
        }
        driver.is_over |= (now >= pace.until && pace.next().is_none()) || driver.out_of_proofs;
        if (driver.is_over && driver.is_quiet()) || now >= pace.until + DRAIN {
            break;
        }
        let next = pace.next().unwrap_or(now + Duration::from_millis(20));
        driver.wait(next.saturating_duration_since(Instant::now()))?;
    }
    while let Some(due) = pace.next() {
        pace.taken += 1;
        driver.wait_for_connection(due);
    }
    println!("{}", driver.report(pace.since.elapsed(), args.seconds));
    Ok(())
}

/// When requests are due.
struct Pace {
    since: Instant,
    until: Instant,
    interval: Option<Duration>,
    taken: u32,
}

impl Pace {
    fn starting_now(args: &Args) -> Self {
        let since = Instant::now();
        Self {
            since,
            until: since + Duration::from_secs_f64(args.seconds),
            interval: args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            taken: 0,
        }
    }

    /// The next moment before the end; none without a rate. What was due is sent, however late.
    fn next(&self) -> Option<Instant> {
        let due = self.since + self.interval? * self.taken;
        (due < self.until).then_some(due)
    }
}

impl Driver {
    fn connect(args: &Args, classes: Classes) -> Result<Self, Failure> {
        let has = |is_paid| classes.all.iter().any(|class| class.is_paid == is_paid);
        let mut driver = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            free: Default::default(),
            waiting: Default::default(),
            tallies: classes.all.iter().map(|_| Tally::default()).collect(),
            late: Vec::new(),
            buffer: vec![0; READ_BYTES],
            is_over: false,
            drives: args.rate.is_none().then_some(!has(false)),
            out_of_proofs: false,
            classes,
        };
        let kinds = [(false, args.connections), (true, args.paid_connections)];
        for (is_paid, count) in kinds {
            let wanted = driver.classes.all.iter().any(|c| c.is_paid == is_paid);
            for _ in 0..if wanted { count } else { 0 } {
                driver.add(args.connect, is_paid)?;
            }
        }
        Ok(driver)
    }

    fn add(&mut self, address: SocketAddr, is_paid: bool) -> Result<(), Failure> {
        let stream = http::connect(address)?;
        stream.set_nonblocking(true)?;
        let index = self.connections.len();
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, EventFlags::IN)?;
        self.connections.push(Connection {
            stream,
            answer: Answer::default(),
            unsent: Vec::new(),
            busy: None,
            is_paid,
        });
        self.free[usize::from(is_paid)].push_back(index);
        Ok(())
    }

    /// How many requests of the driving kind are kept under way.
    fn in_closed_loop(&self) -> usize {
        self.free[usize::from(self.drives == Some(true))].len()
    }

    /// The next request of the kind that drives the loop, and those of the other that come before it.
    fn next_in_loop(&mut self, now: Instant) -> Result<(), Failure> {
        loop {
            let class = self.classes.pick();
            self.dispatch(Sent { class, due: now })?;
            if Some(self.classes.all[class].is_paid) == self.drives || self.out_of_proofs {
                return Ok(());
            }
        }
    }

    /// Takes up a request that is due.
    fn due(&mut self, due: Instant, now: Instant) -> Result<(), Failure> {
        self.late.push(now.duration_since(due));
        let class = self.classes.pick();
        self.dispatch(Sent { class, due })
    }

    /// Sends it, or lets it wait for a connection.
    fn dispatch(&mut self, sent: Sent) -> Result<(), Failure> {
        let kind = usize::from(self.classes.all[sent.class].is_paid);
        match self.free[kind].pop_front() {
            Some(index) => self.send(index, sent),
            None => {
                self.waiting[kind].push_back(sent);
                Ok(())
            }
        }
    }

    /// Counts a request that could not even be taken up.
    fn wait_for_connection(&mut self, due: Instant) {
        let class = self.classes.pick();
        let kind = usize::from(self.classes.all[class].is_paid);
        self.waiting[kind].push_back(Sent { class, due });
    }

    fn send(&mut self, index: usize, sent: Sent) -> Result<(), Failure> {
        let Some(request) = self.classes.request(sent.class)? else {
            self.out_of_proofs = true;
            return Ok(());
        };
        self.tallies[sent.class].sent += 1;
        let connection = &mut self.connections[index];
        connection.busy = Some(sent);
        let written = match connection.stream.write(&request) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        if written < request.len() {
            connection.unsent = request[written..].to_vec();
            self.listen(index, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    fn listen(&self, index: usize, flags: EventFlags) -> Result<(), Failure> {
        let data = EventData::new_u64(index as u64);
        Ok(epoll::modify(
            &self.epoll,
            &self.connections[index].stream,
            data,
            flags,
        )?)
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(256);
        // `epoll_wait` counts in milliseconds, which would make requests late; `ppoll` does not.
        let timeout = Timespec::try_from(at_most)?;
        let mut ready = [PollFd::new(&self.epoll, PollFlags::IN)];
        let waited = poll(&mut ready, Some(&timeout)).and_then(|_| {
            let none = Timespec::default();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&none))
        });
        match waited {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let index = usize::try_from(event.data.u64())?;
            let flags = event.flags;
            if flags.contains(EventFlags::OUT) {
                self.send_rest(index)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(index)?;
            }
        }
        Ok(())
    }

    fn send_rest(&mut self, index: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        let written = connection.stream.write(&connection.unsent)?;
        connection.unsent.drain(..written);
        if connection.unsent.is_empty() {
            self.listen(index, EventFlags::IN)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        let count = match connection.stream.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(status) = connection.answer.read(&self.buffer[..count])? else {
            return Ok(());
        };
        connection.answer.clear();
        let is_paid = connection.is_paid;
        let now = Instant::now();
        if let Some(sent) = connection.busy.take() {
            let tally = &mut self.tallies[sent.class];
            *tally.answers.entry(status).or_default() += 1;
            tally.took.push(now.duration_since(sent.due));
        }
        self.free[usize::from(is_paid)].push_back(index);
        // At a rate what waits was due before the end: it is sent, and charged for all that it waited.
        if self.is_over && self.drives.is_some() {
            return Ok(());
        }
        if let Some(sent) = self.waiting[usize::from(is_paid)].pop_front() {
            self.dispatch(sent)?;
        }
        if !self.is_over && self.drives == Some(is_paid) {
            self.next_in_loop(now)?;
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let nobody_waits = self.drives.is_some() || self.waiting.iter().all(VecDeque::is_empty);
        nobody_waits && self.connections.iter().all(|c| c.busy.is_none())
    }

    /// What was not answered in all that time is charged with it, or the slowest would be left out.
    fn report(&mut self, elapsed: Duration, seconds: f64) -> Value {
        let now = Instant::now();
        let waiting: Vec<Sent> = self.waiting.iter().flatten().copied().collect();
        let busy: Vec<Sent> = self.connections.iter().filter_map(|c| c.busy).collect();
        let (waited, unanswered) = (waiting.len(), busy.len());
        if self.drives.is_none() {
            for sent in waiting.iter().chain(&busy) {
                let took = now.duration_since(sent.due);
                self.tallies[sent.class].took.push(took);
            }
        }
        let late = percentiles(&mut self.late);
        let classes = self.classes.all.iter().zip(&mut self.tallies);
        let classes: serde_json::Map<_, _> = classes
            .map(|(class, tally)| {
                let mut report = percentiles(&mut tally.took);
                report["sent"] = tally.sent.into();
                let answered = tally.answers.values().sum::<u64>();
                report["per_s"] = (answered as f64 / seconds).into();
                report["answers"] = json!(tally.answers);
                (class.name.clone(), report)
            })
            .collect();
        json!({
            "elapsed_s": elapsed.as_secs_f64(),
            "classes": classes,
            "unanswered": unanswered,
            "never_sent": waited,
            "late": late,
            "out_of_proofs": self.out_of_proofs,
        })
    }
}

/// Count, p50, p90, p99, p99.9 and the largest, in microseconds.
pub(crate) fn percentiles(took: &mut [Duration]) -> Value {
    took.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let index = (took.len() as f64 * share) as usize;
        let value = took.get(index.min(took.len().saturating_sub(1)));
        value.map(|duration| duration.as_secs_f64() * 1e6)
    };
    json!({
        "count": took.len(),
        "p50_us": at(0.5),
        "p90_us": at(0.9),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "max_us": at(1.0),
    })
}
