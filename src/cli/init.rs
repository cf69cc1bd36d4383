//! `farewall init`: a commented starter configuration from a few flags or questions.
//!
//! What it writes was read back first, so it passes `farewall check`.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::chain::Network;
use crate::chain::assets;
use crate::config;

const AFTER_HELP: &str = "\
What is not given is asked for on a terminal; elsewhere it has its default, and --upstream and
--pay-to must be given.

Exit codes:
  0  written
  2  --upstream or --pay-to is missing
  3  an answer makes no valid configuration; nothing was written
  4  the file exists (see --force) or cannot be written

Examples:
  farewall init
  farewall init --upstream http://127.0.0.1:9000 --pay-to 0x7099…79C8
  farewall init --output - --upstream http://127.0.0.1:9000 --pay-to 0x7099…79C8 --path '/v1/{*rest}'";

/// The command line was wrong, as clap says it.
const EXIT_USAGE: u8 = 2;
/// Serves test networks, free of charge. Rule: fact sheet, section 5.1.
const TEST_FACILITATOR: &str = "https://x402.org/facilitator";

/// Arguments of `farewall init`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where to write; `-` is standard output [default: conf/farewall.toml]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Your API, such as http://127.0.0.1:9000
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Your account, which is paid
    #[arg(long, value_name = "ADDRESS")]
    pay_to: Option<String>,
    /// Where you are paid [default: base-sepolia]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// What a request costs [default: $0.001]
    #[arg(long, value_name = "PRICE")]
    price: Option<String>,
    /// Which requests cost it [default: /v1/{*rest}]
    #[arg(long, value_name = "PATTERN")]
    path: Option<String>,
    /// What clients write in front of a path [default: http://127.0.0.1:8402]
    #[arg(long, value_name = "URL")]
    public_origin: Option<String>,
    /// Who settles [default on test networks: the public one of x402.org]
    #[arg(long, value_name = "URL")]
    facilitator: Option<String>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// What the starter is made from.
struct Answers {
    upstream: String,
    pay_to: String,
    network: String,
    price: String,
    path: String,
    public_origin: String,
    facilitator: String,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from("conf/farewall.toml"));
    let to_stdout = output.as_os_str() == "-";
    if !to_stdout && output.exists() && !args.force {
        eprintln!(
            "{} exists; write elsewhere with --output, or use --force",
            output.display()
        );
        return ExitCode::from(super::EXIT_OUTSIDE);
    }
    let is_terminal = io::stdin().is_terminal();
    let stdin = io::stdin();
    let answers = answers(args, &mut |question: &str, default: Option<&str>| {
        if is_terminal {
            ask(&mut stdin.lock(), &mut io::stderr(), question, default)
        } else {
            default.map(str::to_owned)
        }
    });
    let answers = match answers {
        Ok(answers) => answers,
        Err(flag) => {
            eprintln!("{flag} is missing; see farewall init --help");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let text = starter(&answers);
    if let Err(report) = config::parse(&text, "the starter", &|_| None) {
        eprintln!("{report}; nothing was written");
        return ExitCode::from(super::EXIT_CONFIG);
    }
    let written = if to_stdout {
        io::stdout().write_all(text.as_bytes())
    } else {
        write(&output, &text)
    };
    if let Err(error) = written {
        eprintln!("cannot write {}: {error}", output.display());
        return ExitCode::from(super::EXIT_OUTSIDE);
    }
    if !to_stdout {
        let file = output.display();
        eprintln!(
            "wrote {file}; next: farewall check --config {file}, farewall run --config {file}"
        );
    }
    ExitCode::SUCCESS
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// Asks once; an empty answer means the default. `None` when there is neither.
fn ask(
    input: &mut impl BufRead,
    output: &mut impl Write,
    question: &str,
    default: Option<&str>,
) -> Option<String> {
    let hint = default.map_or(String::new(), |default| format!(" [{default}]"));
    write!(output, "{question}{hint}: ")
        .and_then(|()| output.flush())
        .ok()?;
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    match line.trim() {
        "" => default.map(str::to_owned),
        answer => Some(answer.to_owned()),
    }
}

/// The flags, completed by questions; the error is the flag that nobody answered.
fn answers(
    args: Args,
    ask: &mut dyn FnMut(&str, Option<&str>) -> Option<String>,
) -> Result<Answers, &'static str> {
    let mut or_ask = |given: Option<String>, flag, question: &str, default: Option<&str>| {
        given.or_else(|| ask(question, default)).ok_or(flag)
    };
    let upstream = or_ask(args.upstream, "--upstream", "Your API", None)?;
    let pay_to = or_ask(args.pay_to, "--pay-to", "Your account's address", None)?;
    let network = or_ask(args.network, "--network", "Network", Some("base-sepolia"))?;
    let found = assets::network_by_name(&network).or_else(|| Network::parse_caip2(&network).ok());
    let usual = found.is_none_or(|network| assets::is_testnet(&network));
    let usual = usual.then_some(TEST_FACILITATOR);
    Ok(Answers {
        facilitator: or_ask(args.facilitator, "--facilitator", "Facilitator", usual)?,
        price: or_ask(args.price, "--price", "Price of a request", Some("$0.001"))?,
        path: or_ask(args.path, "--path", "Priced path", Some("/v1/{*rest}"))?,
        public_origin: or_ask(
            args.public_origin,
            "--public-origin",
            "Origin that clients use",
            Some("http://127.0.0.1:8402"),
        )?,
        upstream,
        pay_to,
        network,
    })
}

/// A TOML string that stands for exactly this text, references and all.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace("${", "$${")).to_string()
}

fn starter(answers: &Answers) -> String {
    let Answers {
        upstream,
        pay_to,
        network,
        price,
        path,
        public_origin,
        facilitator,
    } = answers;
    format!(
        "\
# Farewall. `farewall check` says what is wrong with this file, `farewall run` runs it.

[server]
# What clients write in front of a path: it must be true seen from outside.
public_origin = {public_origin}

[[listen]]
address = \"127.0.0.1:8402\"

# Who checks payments and moves the money. Secrets stay outside of this file:
#   headers = {{ Authorization = \"Bearer ${{FACILITATOR_KEY}}\" }}
[facilitator.main]
url = {facilitator}

# How you are paid: in the network's usual dollar token.
[accept.main]
network = {network}
pay_to = {pay_to}

# Your API, as it is.
[upstream.api]
url = {upstream}

# What costs money. {{name}} in a path stands for one segment, a trailing {{*rest}} for all that follow.
# Nothing is charged when your API answers with an error.
[[rule]]
name = \"priced\"
path = {path}
price = {price}

# What is free is written down too. All other paths are answered with 404.
[[rule]]
name = \"health\"
methods = [\"GET\"]
path = \"/health\"
free = true
",
        public_origin = quoted(public_origin),
        facilitator = quoted(facilitator),
        network = quoted(network),
        pay_to = quoted(pay_to),
        upstream = quoted(upstream),
        path = quoted(path),
        price = quoted(price),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAY_TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    fn given(network: Option<&str>, facilitator: Option<&str>) -> Args {
        Args {
            upstream: Some("http://127.0.0.1:9000".to_owned()),
            pay_to: Some(PAY_TO.to_owned()),
            network: network.map(str::to_owned),
            facilitator: facilitator.map(str::to_owned),
            ..Args::default()
        }
    }

    fn defaults(args: Args) -> Result<Answers, &'static str> {
        answers(args, &mut |_, default| default.map(str::to_owned))
    }

    #[test]
    fn the_starter_passes_check_without_a_warning() {
        for args in [
            given(None, None),
            given(Some("base"), Some("https://facilitator.example")),
            given(Some("eip155:1329"), Some("https://facilitator.example")),
        ] {
            let text = starter(&defaults(args).ok().unwrap());
            let loaded = config::parse(&text, "starter.toml", &|_| None).unwrap();
            assert_eq!(loaded.warnings, []);
            assert_eq!(config::lint(&loaded.settings), []);
        }
    }

    #[test]
    fn what_has_no_default_must_be_given() {
        assert_eq!(defaults(Args::default()).err(), Some("--upstream"));
        assert_eq!(
            defaults(given(Some("base"), None)).err(),
            Some("--facilitator")
        );
    }

    #[test]
    fn answers_are_text_and_never_references() {
        let mut answers = defaults(given(None, None)).ok().unwrap();
        answers.public_origin = "https://${HOME}\"\nx = 1".to_owned();
        let report = config::parse(&starter(&answers), "starter.toml", &|_| None).unwrap_err();
        let codes: Vec<_> = report.diagnostics.iter().map(|d| d.code).collect();
        assert_eq!(codes, ["bad-origin"]);
    }

    #[test]
    fn an_empty_answer_means_the_default() {
        let ask =
            |line: &str, default| ask(&mut line.as_bytes(), &mut Vec::new(), "Price", default);
        assert_eq!(ask("\n", Some("$1")), Some("$1".to_owned()));
        assert_eq!(ask(" $2 \n", Some("$1")), Some("$2".to_owned()));
        assert_eq!(ask("", None), None);
    }

    #[test]
    fn an_existing_file_is_not_replaced_without_force() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("new/site.toml");
        let args = |force| Args {
            output: Some(output.clone()),
            force,
            ..given(None, None)
        };
        let full = |force| Args {
            price: Some("$0.5".into()),
            path: Some("/a".into()),
            network: Some("base-sepolia".into()),
            public_origin: Some("https://a.example".into()),
            facilitator: Some(TEST_FACILITATOR.into()),
            ..args(force)
        };
        assert_eq!(run(full(false)), ExitCode::SUCCESS);
        assert_eq!(run(full(false)), ExitCode::from(super::super::EXIT_OUTSIDE));
        assert_eq!(run(full(true)), ExitCode::SUCCESS);
        assert!(config::load(&output).is_ok());
    }
}
