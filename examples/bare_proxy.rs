//! pingora as a plain reverse proxy, with the wall's server settings and allocator and nothing else:
//! what the wall itself costs is measured against this.
//!
//! `bare_proxy --listen 127.0.0.1:9100 --upstream 127.0.0.1:9001 [--threads 1] [--work-stealing true]`

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser;
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, Server, Session};
use pingora::proxy::{ProxyHttp, http_proxy_service};
use pingora::server::RunArgs;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// Whom it asks, in plain HTTP/1.1
    #[arg(long)]
    upstream: SocketAddr,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Whether idle threads take work from busy ones, as `[server] work_stealing`
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    work_stealing: bool,
}

struct Bare(HttpPeer);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    // No compression module, as in the wall.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() {
    let args = Args::parse();
    let conf = ServerConf {
        threads: args.threads,
        work_stealing: args.work_stealing,
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        max_retries: 3,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let bare = Bare(HttpPeer::new(args.upstream, false, String::new()));
    let mut service = http_proxy_service(&server.configuration, bare);
    service.add_tcp(&args.listen.to_string());
    server.add_service(service);
    server.run(RunArgs::default());
}
