//! `farewall top`: a running wall, live in the terminal. Asks the admin listener for metrics; needs no
//! token, shows no payer, changes nothing.

mod view;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::view::View;
use crate::cli::{EXIT_CONFIG, EXIT_OUTSIDE, watch};
use crate::config;
use crate::config::settings::AdminAddress;

/// Arguments of `farewall top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  farewall top
  farewall top --config /etc/farewall/farewall.toml --every 5

q, Esc or Ctrl-C ends it.")]
pub struct Args {
    /// Configuration that names the admin listener
    #[arg(long, value_name = "FILE", default_value = "conf/farewall.toml")]
    config: PathBuf,
    /// Admin listener itself: 127.0.0.1:8086, or unix:PATH
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    admin: Option<String>,
    /// Seconds between two looks, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let address = match address(&args) {
        Ok(address) => address,
        Err(why) => {
            eprintln!("farewall: {why}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    // Before the screen is taken: a wall that is not there is told as any other error.
    if let Err(error) = watch::ask(&address) {
        eprintln!("farewall: no wall answers at {address}: {error}");
        return ExitCode::from(EXIT_OUTSIDE);
    }
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => {
            eprintln!("farewall: top needs a terminal: {error}");
            return ExitCode::from(EXIT_OUTSIDE);
        }
    };
    let shown = show(&mut terminal, &address, Duration::from_secs(args.every));
    ratatui::restore();
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farewall: {error}");
            ExitCode::from(EXIT_OUTSIDE)
        }
    }
}

fn address(args: &Args) -> Result<AdminAddress, String> {
    let Some(text) = &args.admin else {
        let loaded = config::load(&args.config).map_err(|report| report.to_string())?;
        let admin = loaded.settings.server.admin;
        return admin.ok_or_else(|| "the admin listener is off".to_owned());
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(AdminAddress::Unix(path.into()));
    }
    let address = text.parse().map(AdminAddress::Tcp);
    address.map_err(|_| format!("{text:?} is neither an address and a port nor unix:PATH"))
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    address: &AdminAddress,
    every: Duration,
) -> io::Result<()> {
    let mut view = View::new(address.to_string());
    loop {
        let looked = Instant::now();
        view.look(watch::ask(address), looked);
        loop {
            terminal.draw(|frame| view.draw(frame))?;
            let left = every.saturating_sub(looked.elapsed());
            if left.is_zero() {
                break;
            }
            if event::poll(left)? && is_end(&event::read()?) {
                return Ok(());
            }
        }
    }
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (is_ctrl_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
