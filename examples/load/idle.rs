//! Connections that do nothing, after one request each.

use std::io::Read;
use std::net::SocketAddr;

use crate::{Failure, http};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server
    #[arg(long)]
    connect: SocketAddr,
    /// How many connections
    #[arg(long)]
    count: usize,
    /// Asked for once on each; without it nothing is sent
    #[arg(long)]
    path: Option<String>,
}

pub(crate) fn idle(args: &Args) -> Result<(), Failure> {
    let request = args.path.as_deref().map(|path| http::get(path, None));
    let mut held = Vec::with_capacity(args.count);
    for _ in 0..args.count {
        let mut stream = http::connect(args.connect)?;
        if let Some(request) = &request {
            http::exchange(&mut stream, request, || {})?;
        }
        held.push(stream);
    }
    println!("{}", held.len());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
