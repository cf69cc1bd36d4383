//! The loop: connections in one epoll, requests when answers come or when they are due.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use serde_json::{Value, json};

use crate::classes::{ClassArg, Classes};
use crate::http::Answer;
use crate::{Failure, http};

/// After connecting, before the first request at a rate: a server that is still accepting connections would
/// be measured at that.
const ACCEPTED: Duration = Duration::from_millis(500);
/// How long answers are waited for after the last request.
const DRAIN: Duration = Duration::from_secs(3);

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
    if args.rate.is_some() {
        std::thread::sleep(ACCEPTED);
    }
    let since = Instant::now();
    let until = since + Duration::from_secs_f64(args.seconds);
    let interval = args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
    let mut sent = 0_u32;
    if interval.is_none() {
        for _ in 0..driver.in_closed_loop() {
            driver.next_in_loop(since)?;
        }
    }
    loop {
        let mut now = Instant::now();
        if let Some(interval) = interval {
            while !driver.is_over && since + interval * sent <= now {
                let class = driver.classes.pick();
                driver.dispatch(Sent {
                    class,
                    due: since + interval * sent,
                })?;
                sent += 1;
                now = Instant::now();
            }
        }
        driver.is_over |= now >= until || driver.out_of_proofs;
        if driver.is_over && (driver.is_quiet() || now >= until + DRAIN) {
            break;
        }
        let next = match interval {
            Some(interval) if !driver.is_over => since + interval * sent,
            Some(_) | None => now + Duration::from_millis(20),
        };
        driver.wait(next.saturating_duration_since(Instant::now()))?;
    }
    println!("{}", driver.report(since.elapsed(), args.seconds));
    Ok(())
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
        let timeout = Timespec::try_from(at_most)?;
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
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
        let mut buffer = [0; 64 << 10];
        let connection = &mut self.connections[index];
        let count = match connection.stream.read(&mut buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(status) = connection.answer.read(&buffer[..count])? else {
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
        if self.is_over {
            return Ok(());
        }
        if let Some(sent) = self.waiting[usize::from(is_paid)].pop_front() {
            self.dispatch(sent)?;
        }
        if self.drives == Some(is_paid) {
            self.next_in_loop(now)?;
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.connections.iter().all(|c| c.busy.is_none())
    }

    fn report(&mut self, elapsed: Duration, seconds: f64) -> Value {
        let waited = self.waiting.iter().map(VecDeque::len).sum::<usize>();
        let unanswered = self.connections.iter().filter(|c| c.busy.is_some()).count();
        let classes = self.classes.all.iter().zip(&mut self.tallies);
        let classes: serde_json::Map<_, _> = classes
            .map(|(class, tally)| {
                let mut report = percentiles(&mut tally.took);
                report["sent"] = tally.sent.into();
                report["per_s"] = (tally.took.len() as f64 / seconds).into();
                report["answers"] = json!(tally.answers);
                (class.name.clone(), report)
            })
            .collect();
        json!({
            "elapsed_s": elapsed.as_secs_f64(),
            "classes": classes,
            "unanswered": unanswered,
            "never_sent": waited,
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
