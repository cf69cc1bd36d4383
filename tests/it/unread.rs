//! Answers that nobody reads: who takes nothing is let go, who reads slowly is served, and silence is no fault.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::wall::free_address;
use crate::support::{Setup, Signer, Wall, eventually, offer};

/// More than the sockets between a wall and a client hold.
const BIG: usize = 24 << 20;

fn setup(send_timeout_ms: u32) -> Setup {
    Setup {
        limits: format!("send_timeout_ms = {send_timeout_ms}"),
        ..Setup::default()
    }
}

/// A connection whose kernel takes little ahead.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(address).await.unwrap()
}

fn paid_get(target: &str) -> String {
    let proof = Signer::new().proof(&offer(2000));
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {proof}\r\nConnection: close\r\n\r\n"
    )
}

/// The wall has written its line about the only request so far: it is over.
fn is_over(wall: &Wall) -> bool {
    wall.log().contains("outcome")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_let_go_and_what_it_paid_for_stays_owed() {
    let wall = setup(1000).start().await;
    let mut client = connect(wall.address).await;
    let request = paid_get(&format!("/v1/big?bytes={BIG}"));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; 1000];
    client.read_exact(&mut begin).await.unwrap();
    assert!(begin.starts_with(b"HTTP/1.1 200"));
    eventually("it is let go", || is_over(&wall));
    assert_eq!(wall.states(), ["settled"], "paid, and owed");
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    assert!(rest.len() < BIG / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_it_all() {
    let wall = setup(1000).start().await;
    let mut client = connect(wall.address).await;
    let request = paid_get(&format!("/v1/big?bytes={BIG}"));
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut total, mut some) = (0, vec![0; 1 << 20]);
    // Three seconds and more, with nothing taken for some of each.
    while total < BIG {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let mut left = some.len();
        while left > 0 {
            let read = client.read(&mut some[..left]).await.unwrap();
            if read == 0 {
                break;
            }
            (total, left) = (total + read, left - read);
        }
        assert!(left == 0 || total >= BIG, "cut off after {total} bytes");
    }
    eventually("delivered", || wall.states() == ["delivered"]);
}

/// A kernel that holds megabytes for a client would have it wait for as long as those last.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_little_all_the_time_is_served_whatever_the_kernel_holds() {
    let wall = setup(2000).start().await;
    let mut client = TcpStream::connect(wall.address).await.unwrap();
    let request = paid_get(&format!("/v1/big?bytes={BIG}"));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut some = vec![0; 30 << 10];
    for _ in 0..70 {
        client.read_exact(&mut some).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!is_over(&wall), "it was let go");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_which_nothing_happens_is_not_cut_off() {
    let wall = setup(300).start().await;
    let proof = Signer::new().proof(&offer(2000));
    let answer = wall.pay("/v1/events?count=3&ms=1200", &proof).await;
    assert_eq!(answer.body.matches("data: ").count(), 3, "{answer:?}");
    eventually("delivered", || wall.states() == ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_that_takes_nothing_of_a_stream_loses_the_stream() {
    let setup = Setup {
        listen: "h2c = true".to_owned(),
        ..setup(100)
    };
    let wall = setup.start().await;
    let stream = TcpStream::connect(wall.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let get = |target: String| {
        let proof = Signer::new().proof(&offer(2000));
        let request = Request::get(format!("http://a{target}"));
        request.header("PAYMENT-SIGNATURE", proof).body(()).unwrap()
    };
    let ask = |send: h2::client::SendRequest<Bytes>, request| async {
        let mut send = send.ready().await.unwrap();
        let (answer, _) = send.send_request(request, true).unwrap();
        answer.await.unwrap()
    };
    let held = ask(send.clone(), get(format!("/v1/big?bytes={BIG}"))).await;
    assert_eq!(held.status(), 200);
    // Its body is not touched, so it is allowed no more.
    eventually("it is let go", || is_over(&wall));
    assert_eq!(wall.states(), ["settled"]);
    let other = ask(send, get("/v1/quick".to_owned())).await;
    assert_eq!(other.status(), 200, "the connection is well");
    drop((held, other));
    connection.abort();
}

/// An office whose API has a token.
async fn office() -> (Wall, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let admin = free_address();
    let setup = Setup {
        admin: Some(admin),
        server: format!("admin_token_file = \"{}\"", token.display()),
        ..Setup::default()
    };
    (setup.start().await, admin, folder)
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// How many sockets the wall has open.
fn sockets(wall: &Wall) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", wall.pid())).unwrap();
    all.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|to| to.to_string_lossy().starts_with("socket:"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_reads_nothing_and_one_who_asks_nothing_are_let_go() {
    let (wall, admin, _folder) = office().await;
    let before = sockets(&wall);
    let mut listening = connect(admin).await;
    let request = format!("GET /openapi.json HTTP/1.1\r\nHost: a\r\nX-A: {TOKEN}\r\n\r\n");
    // Many megabytes of answers. It may be let go before the last one is asked for.
    drop(listening.write_all(request.repeat(400).as_bytes()).await);
    let mut silent = connect(admin).await;
    let mut slow = connect(admin).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    // One who listens to events is not let go for hearing nothing.
    let mut events = connect(admin).await;
    let ask = format!(
        "GET /ws/payments/ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Accept: text/event-stream\r\n\r\n"
    );
    events.write_all(ask.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    events.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut rest = Vec::new();
    drop(silent.read_to_end(&mut rest).await);
    drop(slow.read_to_end(&mut rest).await);
    eventually("who reads nothing is let go", || {
        sockets(&wall) <= before + 1
    });
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    let mut told = Vec::new();
    let mut some = [0; 4096];
    while !String::from_utf8_lossy(&told).contains("event: move") {
        let read = events.read(&mut some).await.unwrap();
        assert!(read > 0, "cut off");
        told.extend_from_slice(&some[..read]);
    }
    drop(listening);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_admin_listener_are_bounded() {
    let (_wall, admin, _folder) = office().await;
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push(connect(admin).await);
    }
    // Behind them in the queue: closed without a word.
    let mut one_more = connect(admin).await;
    let mut nothing = Vec::new();
    let ended = one_more.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty() && ended.is_ok_and(|read| read == 0));
    drop(held);
    eventually("there is room again", || {
        std::net::TcpStream::connect(admin)
            .and_then(|mut stream| {
                use std::io::{Read, Write};
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")?;
                let mut begin = [0; 12];
                stream.read_exact(&mut begin)?;
                Ok(begin == *b"HTTP/1.1 200")
            })
            .unwrap_or(false)
    });
}
