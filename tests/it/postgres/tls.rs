//! The way to the database: TLS is verified or refused, never quietly left out.

use std::path::{Path, PathBuf};

use farewall::config::ledger::parse_url;
use farewall::ledger::postgres::PostgresLedger;

use crate::support::{Cluster, Setup, Signer, offer};

struct Secured {
    cluster: Cluster,
    /// The authority that signed the server's certificate, for `localhost`, and another one.
    right: PathBuf,
    wrong: PathBuf,
    _dir: tempfile::TempDir,
}

fn secured() -> Option<Secured> {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, made.cert.pem()).unwrap();
        (file, made.cert.pem(), made.signing_key.serialize_pem())
    };
    let (right, certificate, key) = made("right.pem");
    let (wrong, ..) = made("wrong.pem");
    let cluster = Cluster::start_tls(&certificate, &key)?;
    cluster.database("ledger");
    Some(Secured {
        cluster,
        right,
        wrong,
        _dir: dir,
    })
}

impl Secured {
    fn url(&self, host: &str, mode: &str, authority: &Path) -> String {
        let port = self.cluster.port();
        let authority = authority.display();
        format!("postgres://farewall@{host}:{port}/ledger?sslmode={mode}&sslrootcert={authority}")
    }
}

async fn connects(url: &str) -> Result<(), String> {
    let server = parse_url(url, Path::new("")).unwrap();
    match PostgresLedger::connect(&server, None, 0).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_and_the_name_of_the_server_must_be_right() {
    let Some(server) = secured() else { return };
    for mode in ["verify-full", "require", "verify-ca"] {
        connects(&server.url("localhost", mode, &server.right))
            .await
            .unwrap();
        for (host, authority, why) in [
            ("127.0.0.1", &server.right, "certificate not valid for name"),
            ("localhost", &server.wrong, "invalid peer certificate"),
        ] {
            let refused = connects(&server.url(host, mode, authority)).await;
            let refused = refused.unwrap_err();
            assert!(refused.contains(why), "{mode} {host}: {refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_tls_is_not_talked_to_without_and_one_without_it_not_instead() {
    let Some(server) = secured() else { return };
    let refused = connects(&server.url("localhost", "disable", &server.right)).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("no encryption"), "{refused}");

    let plain = Cluster::start().unwrap();
    plain.database("ledger");
    let url = format!("postgres://farewall@localhost:{}/ledger", plain.port());
    connects(&format!("{url}?sslmode=disable")).await.unwrap();
    let authority = server.right.display();
    for mode in ["verify-full", "require"] {
        let refused = connects(&format!("{url}?sslmode={mode}&sslrootcert={authority}")).await;
        let refused = refused.unwrap_err();
        assert!(refused.contains("TLS"), "{mode}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_sells_over_tls_and_each_of_its_connections_is_encrypted() {
    let Some(server) = secured() else { return };
    let url = server.url("localhost", "verify-full", &server.right);
    let setup = Setup {
        ledger: Some(format!("url = \"{url}\"")),
        ledger_place: Some(url),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    crate::support::eventually("delivered", || wall.states() == ["delivered"]);
    let ours = server.cluster.sql(
        "ledger",
        "SELECT count(*) > 1 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE application_name = 'farewall'",
    );
    assert_eq!(ours, "t");
}
