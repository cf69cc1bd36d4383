//! What `farewall top` shows, made of two looks at the metrics: what is, and what happened between.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use crate::cli::watch::Metrics;
use crate::metrics::PHASES;
use crate::money::{AtomicAmount, Decimals};

const REQUESTS: &str = "farewall_requests_total";
const REVENUE: &str = "farewall_revenue_atomic_total";
const PHASE: &str = "farewall_phase_duration_seconds";

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

/// Two looks at a wall.
pub(super) struct View {
    place: String,
    now: Metrics,
    before: Metrics,
    /// Milliseconds between them; 0 before there are two.
    between_ms: u128,
    looked: Option<Instant>,
    fault: Option<String>,
}

impl View {
    pub(super) fn new(place: String) -> Self {
        Self {
            place,
            now: Metrics::default(),
            before: Metrics::default(),
            between_ms: 0,
            looked: None,
            fault: None,
        }
    }

    /// Takes another look in; what was seen last stays when it failed.
    pub(super) fn look(&mut self, found: io::Result<Metrics>, at: Instant) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.fault = Some(error.to_string());
                return;
            }
        };
        self.fault = None;
        self.before = std::mem::replace(&mut self.now, found);
        let earlier = self.looked.replace(at);
        self.between_ms = earlier.map_or(0, |earlier| at.duration_since(earlier).as_millis());
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let rows = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(6),
            Constraint::Min(8),
            Constraint::Min(5),
        ]);
        let [head, money, work, below] = rows.areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        let halves = Layout::horizontal([Constraint::Percentage(50); 2]);
        let [left, right] = halves.areas(money);
        boxed(frame, left, "Money", self.standing());
        boxed(frame, right, "Now", self.pulse());
        let [left, right] = halves.areas(work);
        boxed(frame, left, "Requests", self.outcomes());
        boxed(frame, right, "Revenue since the start", self.revenue());
        let [left, right] = halves.areas(below);
        boxed(frame, left, "Phases since the last look", self.phases());
        boxed(frame, right, "Facilitators", self.facilitators());
    }

    fn head(&self) -> Line<'static> {
        let versions = self.now.by("farewall_build_info", "version");
        let version = versions.keys().next().cloned().unwrap_or_default();
        let mut head = vec![
            Span::styled("farewall ", BOLD),
            Span::raw(format!("{version} at {}", self.place)),
            Span::styled("   q ends", DIM),
        ];
        if let Some(fault) = &self.fault {
            let fault = format!("   does not answer: {fault}");
            head.push(Span::styled(fault, BOLD.fg(Color::Red)));
        }
        Line::from(head)
    }

    /// What needs a person, first.
    fn standing(&self) -> Vec<Line<'static>> {
        let claims = |state| self.now.sum("farewall_ledger_claims", &[("state", state)]);
        let age = self.now.sum("farewall_unknown_settlement_age_seconds", &[]);
        let unknown = self.now.sum("farewall_unknown_settlements", &[]);
        vec![
            alarming("unknown", unknown, &format!("oldest {age} s")),
            alarming("owed", claims("owed"), "paid, not delivered"),
            alarming("lost", claims("lost"), "nobody could tell"),
            Line::raw(format!("{:<10}{:>10}", "open", claims("open"))),
        ]
    }

    fn pulse(&self) -> Vec<Line<'static>> {
        let all = self.rate(self.now.sum(REQUESTS, &[]), self.before.sum(REQUESTS, &[]));
        let outcome = |word| {
            let labels = [("outcome", word)];
            let (now, before) = (
                self.now.sum(REQUESTS, &labels),
                self.before.sum(REQUESTS, &labels),
            );
            self.rate(now, before)
        };
        let connections = self.now.sum("farewall_connections", &[]);
        let max = self.now.sum("farewall_connections_max", &[]);
        vec![
            Line::raw(format!("{:<10}{all:>10} /s", "requests")),
            Line::raw(format!("{:<10}{:>10} /s", "paid", outcome("paid"))),
            Line::raw(format!(
                "{:<10}{:>10} /s",
                "unpaid",
                outcome("payment_required")
            )),
            Line::raw(format!("{:<10}{connections:>10} of {max}", "open conns")),
        ]
    }

    /// All outcomes that happened, most frequent first.
    fn outcomes(&self) -> Vec<Line<'static>> {
        let before = self.before.by(REQUESTS, "outcome");
        let mut all: Vec<_> = self.now.by(REQUESTS, "outcome").into_iter().collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let line = |(word, count): (String, u128)| {
            let rate = self.rate(count, before.get(&word).copied().unwrap_or(0));
            Line::raw(format!("{word:<22}{count:>12}{rate:>9} /s"))
        };
        all.into_iter().map(line).collect()
    }

    fn revenue(&self) -> Vec<Line<'static>> {
        let info = self.now.each("farewall_accept_info");
        let token = |accept: &str| {
            let (labels, _) = info
                .iter()
                .find(|(l, _)| l.get("accept").is_some_and(|a| a == accept))?;
            let decimals = labels.get("decimals")?.parse().ok()?;
            Some((Decimals::new(decimals).ok()?, labels.get("symbol")?.clone()))
        };
        let text = |labels: &BTreeMap<String, String>| {
            let label = |name| labels.get(name).map_or("-", String::as_str).to_owned();
            (label("rule"), label("accept"))
        };
        let mut sold = self.now.each(REVENUE);
        sold.sort_by_key(|(_, units)| std::cmp::Reverse(*units));
        let line = |(labels, units): (&BTreeMap<String, String>, u128)| {
            let (rule, accept) = text(labels);
            let amount = match token(&accept) {
                Some((decimals, symbol)) => {
                    format!("{} {symbol}", AtomicAmount::new(units).in_tokens(decimals))
                }
                None => format!("{units} atomic"),
            };
            Line::raw(format!("{rule:<20}{amount:>20}  {accept}"))
        };
        sold.into_iter().map(line).collect()
    }

    /// The mean time of each phase since the last look, the slowest one marked.
    fn phases(&self) -> Vec<Line<'static>> {
        let means = PHASES.map(|phase| {
            let labels = [("phase", phase.as_str())];
            let counts = |of: &Metrics| of.sum(&format!("{PHASE}_count"), &labels);
            let times = |of: &Metrics| of.micros(&format!("{PHASE}_sum"), &labels);
            let count = counts(&self.now).saturating_sub(counts(&self.before));
            let time = times(&self.now).saturating_sub(times(&self.before));
            (phase, count, time.checked_div(count))
        });
        let slowest = means.iter().filter_map(|(.., mean)| *mean).max();
        let line = |(phase, count, mean): (crate::metrics::Phase, u128, Option<u128>)| {
            let word = phase.as_str();
            let Some(mean) = mean else {
                return Line::styled(format!("{word:<10}{:>12}", "-"), DIM);
            };
            let text = format!("{word:<10}{mean:>9} us{count:>10} x");
            if Some(mean) == slowest {
                Line::styled(format!("{text}  slowest"), Style::new().fg(Color::Yellow))
            } else {
                Line::raw(text)
            }
        };
        means.into_iter().map(line).collect()
    }

    fn facilitators(&self) -> Vec<Line<'static>> {
        let breakers = self
            .now
            .by("farewall_facilitator_breaker_state", "facilitator");
        let healthy = self.now.by("farewall_facilitator_healthy", "facilitator");
        let line = |(name, healthy): (String, u128)| {
            let breaker = match breakers.get(&name) {
                Some(0) | None => "closed",
                Some(1) => "half open",
                Some(_) => "open",
            };
            let labels = [("facilitator", name.as_str()), ("result", "failed")];
            let failed = self.now.sum("farewall_facilitator_calls_total", &labels);
            let (word, colour) = if healthy == 1 {
                ("well", Color::Green)
            } else {
                ("failing", Color::Red)
            };
            Line::from(vec![
                Span::raw(format!("{name:<20}")),
                Span::styled(format!("{word:<9}"), Style::new().fg(colour)),
                Span::raw(format!("breaker {breaker:<10} {failed} failed")),
            ])
        };
        healthy.into_iter().map(line).collect()
    }

    /// Events a second with one decimal, between the two looks.
    fn rate(&self, now: u128, before: u128) -> String {
        let events = now.saturating_sub(before).saturating_mul(10_000);
        match events.checked_div(self.between_ms) {
            Some(tenths) => format!("{}.{}", tenths / 10, tenths % 10),
            None => "-".to_owned(),
        }
    }
}

fn alarming(what: &str, count: u128, why: &str) -> Line<'static> {
    let text = format!("{what:<10}{count:>10}");
    if count == 0 {
        return Line::raw(text);
    }
    Line::styled(format!("{text}  {why}"), BOLD.fg(Color::Red))
}

fn boxed(frame: &mut Frame<'_>, area: Rect, title: &'static str, lines: Vec<Line<'static>>) {
    let block = Block::bordered().title(title);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(width));
        let line = |cells: &[ratatui::buffer::Cell]| -> String {
            cells.iter().map(ratatui::buffer::Cell::symbol).collect()
        };
        cells.map(line).collect::<Vec<_>>().join("\n")
    }

    fn metrics(paid: u32, verify_s: &str) -> Metrics {
        Metrics::parse(&format!(
            "farewall_build_info{{version=\"1.2.3\"}} 1\n\
             farewall_requests_total{{rule=\"quote\",outcome=\"paid\"}} {paid}\n\
             farewall_requests_total{{rule=\"quote\",outcome=\"payment_required\"}} 7\n\
             farewall_accept_info{{accept=\"usdc\",symbol=\"USDC\",decimals=\"6\"}} 1\n\
             farewall_revenue_atomic_total{{rule=\"quote\",accept=\"usdc\"}} 1234567\n\
             farewall_unknown_settlements 2\nfarewall_unknown_settlement_age_seconds 61\n\
             farewall_phase_duration_seconds_sum{{phase=\"verify\"}} {verify_s}\n\
             farewall_phase_duration_seconds_count{{phase=\"verify\"}} {paid}\n\
             farewall_phase_duration_seconds_sum{{phase=\"claim\"}} 0.1\n\
             farewall_phase_duration_seconds_count{{phase=\"claim\"}} {paid}\n\
             farewall_facilitator_healthy{{facilitator=\"main\"}} 0\n\
             farewall_facilitator_breaker_state{{facilitator=\"main\"}} 2\n"
        ))
    }

    #[test]
    fn what_is_and_what_happened_between_two_looks_is_shown() {
        let (mut view, begun) = (View::new("127.0.0.1:8086".to_owned()), Instant::now());
        view.look(Ok(metrics(10, "1.0")), begun);
        assert!(screen(&view, 100, 30).contains("- /s"), "no rate yet");
        view.look(Ok(metrics(20, "1.5")), begun + Duration::from_secs(4));
        let shown = screen(&view, 100, 30);
        for text in [
            "farewall 1.2.3 at 127.0.0.1:8086",
            "2.5 /s",
            "1.234567 USDC",
            "oldest 61 s",
            "verify        50000 us        10 x  slowest",
            "main                failing  breaker open",
        ] {
            assert!(shown.contains(text), "{text:?} is missing in\n{shown}");
        }
        view.look(Err(io::ErrorKind::ConnectionRefused.into()), begun);
        let shown = screen(&view, 100, 30);
        assert!(
            shown.contains("does not answer") && shown.contains("1.234567"),
            "{shown}"
        );
    }

    #[test]
    fn no_screen_is_too_small() {
        let mut view = View::new("x".to_owned());
        view.look(Ok(metrics(1, "1")), Instant::now());
        for (width, height) in [(1, 1), (10, 3), (300, 100)] {
            screen(&view, width, height);
        }
    }
}
