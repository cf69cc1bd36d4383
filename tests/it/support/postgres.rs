//! A PostgreSQL of one's own: a new cluster in a temporary directory, on a free port of loopback.
//!
//! Needs the server's programs (Debian: `apt-get install postgresql`). Without them the tests that use it
//! say so and pass, except in CI, where they must be there.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
    /// The server refuses to run as root.
    user: Option<(u32, u32)>,
}

impl Cluster {
    /// A running cluster, or `None`, loudly, where PostgreSQL is not installed.
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::start_with("fsync = off")
    }

    /// With lines of `postgresql.conf`.
    #[track_caller]
    pub fn start_with(settings: &str) -> Option<Self> {
        Self::start_as(settings, None)
    }

    /// With this certificate and key (PEM); connections without TLS are refused.
    #[track_caller]
    pub fn start_tls(certificate: &str, key: &str) -> Option<Self> {
        Self::start_as("fsync = off", Some((certificate, key)))
    }

    #[track_caller]
    fn start_as(settings: &str, tls: Option<(&str, &str)>) -> Option<Self> {
        let Some(bin) = programs() else {
            let ci = std::env::var("CI").is_ok();
            assert!(!ci, "CI needs PostgreSQL: apt-get install postgresql");
            eprintln!("SKIPPED, not tested: no PostgreSQL here. apt-get install postgresql");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let port = free_port();
        let cluster = Self {
            bin,
            dir,
            port,
            user,
        };
        let data = cluster.data();
        cluster.run(
            "initdb",
            &["-D", &data, "-A", "trust", "-U", "farewall", "-N"],
        );
        let conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
             max_connections = 200\n{settings}\n"
        );
        let conf = match tls {
            Some(tls) => conf + &cluster.use_tls(tls),
            None => conf,
        };
        let file = Path::new(&data).join("conf.d-farewall");
        std::fs::write(&file, conf).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let main = Path::new(&data).join("postgresql.conf");
        let text = std::fs::read_to_string(&main).unwrap();
        std::fs::write(&main, format!("{text}\ninclude = 'conf.d-farewall'\n")).unwrap();
        cluster.up();
        Some(cluster)
    }

    /// Writes what the server needs for TLS; returns its lines of `postgresql.conf`.
    fn use_tls(&self, (certificate, key): (&str, &str)) -> String {
        let data = self.data();
        for (name, content) in [
            ("tls.crt", certificate),
            ("tls.key", key),
            ("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n"),
        ] {
            let file = Path::new(&data).join(name);
            std::fs::write(&file, content).unwrap();
            // The server refuses a key that others may read.
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((uid, gid)) = self.user {
                chown(&file, Some(uid), Some(gid)).unwrap();
            }
        }
        "ssl = on\nssl_cert_file = 'tls.crt'\nssl_key_file = 'tls.key'\n".to_owned()
    }

    /// The port on loopback.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server.
    #[track_caller]
    pub fn up(&self) {
        let log = self.dir.path().join("server.log");
        self.run(
            "pg_ctl",
            &[
                "-D",
                &self.data(),
                "-l",
                log.to_str().unwrap(),
                "-w",
                "start",
            ],
        );
    }

    /// Stops it as a crash does.
    #[track_caller]
    pub fn down(&self) {
        self.run(
            "pg_ctl",
            &["-D", &self.data(), "-m", "immediate", "-w", "stop"],
        );
    }

    /// URL of a database; `postgres` is always there.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://farewall@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database and gives its URL.
    #[track_caller]
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// What `psql` says, without alignment.
    #[track_caller]
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let url = self.url(database);
        self.run(
            "psql",
            &[
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                &url,
                "-c",
                statement,
            ],
        )
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(self.bin.join(program));
        // `pg_ctl` leaves a server behind that would hold our pipes open.
        let (out, err) = (self.dir.path().join("out"), self.dir.path().join("err"));
        let _ = std::fs::remove_file(&out);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("LC_ALL", "C")
            // What stands in somebody's ~/.postgresql is not for these tests.
            .env("HOME", self.dir.path())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(&err).unwrap());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let status = command.status().unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            status.success(),
            "{program} {arguments:?}: {}\n{}",
            read(&err),
            read(&out)
        );
        read(&out).trim().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = Command::new(self.bin.join("pg_ctl"));
        stop.args(["-D", &self.data(), "-m", "immediate", "-w", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = self.user {
            stop.uid(uid).gid(gid);
        }
        let _ = stop.status();
    }
}

/// The newest installed server.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            let bin = path.join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// `postgres`, when we are root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"])? != 0 {
        return None;
    }
    let of = |user| Some((id(&["-u", user])?, id(&["-g", user])?));
    of("postgres").or_else(|| of("nobody"))
}

/// A port that nobody listens on, below those that outgoing connections are given.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(12_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
