//! Bodies larger than anything the proxy may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proxy::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::support::{
    Connection, Instance, SOON, body, feed, fetch, post, proxy_to, proxy_with, switch, text,
    withdraw,
};

const CHUNK: Bytes = Bytes::from_static(&[7; 64 * 1024]);
const CHUNKS: u64 = 4096; // 256 MB
/// What sockets and buffers along the way may hold when the reader stands still.
const HELD: u64 = 32 * 1024 * 1024;

/// Feeds all chunks, counting each once it was taken.
async fn pour(sender: mpsc::Sender<Bytes>, poured: Arc<AtomicU64>) {
    for _ in 0..CHUNKS {
        if sender.send(CHUNK).await.is_err() {
            return;
        }
        poured.fetch_add(CHUNK.len() as u64, Ordering::SeqCst);
    }
}

/// Waits until the count has not risen for a while: the sender is being held back.
async fn standstill(poured: &AtomicU64) -> u64 {
    let standing = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = poured.load(Ordering::SeqCst);
            if now == before && now > 0 {
                return now;
            }
            before = now;
        }
    };
    tokio::time::timeout(SOON, standing)
        .await
        .expect("the sender is held back")
}

async fn drink(mut body: Incoming) -> u64 {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        total += frame.expect("no break").data_ref().map_or(0, Bytes::len) as u64;
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_as_fast_as_its_reader() {
    let poured = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&poured);
    let instance = Instance::start(move |_| {
        let (sender, body) = feed(1);
        tokio::spawn(pour(sender, Arc::clone(&count)));
        async move { Response::new(body) }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let response = fetch(proxy.local_addr(), "/large").await;
    let held = standstill(&poured).await;
    assert!(held < HELD, "{held} bytes are somewhere on the way");
    let expected = CHUNKS * CHUNK.len() as u64;
    assert_eq!(drink(response.into_body()).await, expected);
    assert_eq!(proxy.stats().bytes_out, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_as_fast_as_its_reader() {
    let begin = Arc::new(Notify::new());
    let gate = Arc::clone(&begin);
    let instance = Instance::start(move |request| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            Response::new(text(drink(request.into_body()).await.to_string()))
        }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let (sender, upload) = feed(1);
    let poured = Arc::new(AtomicU64::new(0));
    tokio::spawn(pour(sender, Arc::clone(&poured)));
    let mut connection = Connection::open(proxy.local_addr()).await;
    let answer = tokio::spawn(async move { connection.send(post("/", upload)).await });
    let held = standstill(&poured).await;
    assert!(held < HELD, "{held} bytes are somewhere on the way");
    begin.notify_one();
    let expected = CHUNKS * CHUNK.len() as u64;
    let response = answer.await.expect("no panic").expect("an answer");
    assert_eq!(body(response).await, expected.to_string());
    assert_eq!(proxy.stats().bytes_in, expected);
}

#[tokio::test]
async fn an_answer_may_begin_before_the_request_has_ended() {
    let instance =
        Instance::start(|request| async move { Response::new(request.into_body().boxed_echo()) })
            .await;
    let proxy = proxy_to(&instance).await;
    let (sender, upload) = feed(1);
    let mut connection = Connection::open(proxy.local_addr()).await;
    let mut response = connection
        .send(post("/echo", upload))
        .await
        .expect("an answer");
    for word in ["one", "two", "three"] {
        sender
            .send(Bytes::from_static(word.as_bytes()))
            .await
            .expect("taken");
        let frame = response.frame().await.expect("a frame").expect("no break");
        assert_eq!(frame.into_data().expect("data"), word);
    }
    drop(sender);
    assert!(response.frame().await.is_none());
}

/// Hands a request's body back as the body of the answer.
trait Echo {
    fn boxed_echo(self) -> crate::support::TestBody;
}

impl Echo for Incoming {
    fn boxed_echo(mut self) -> crate::support::TestBody {
        let (sender, body) = feed(1);
        tokio::spawn(async move {
            while let Some(Ok(frame)) = self.frame().await {
                if let Ok(data) = frame.into_data()
                    && sender.send(data).await.is_err()
                {
                    return;
                }
            }
        });
        body
    }
}

#[tokio::test]
async fn a_slow_upload_outlives_the_answer_time_out() {
    let instance = Instance::start(|request| async move {
        Response::new(text(drink(request.into_body()).await.to_string()))
    })
    .await;
    let limit = Duration::from_secs(2);
    let settings = proxy::Settings {
        answer_timeout: limit,
        ..proxy::Settings::default()
    };
    let proxy = crate::support::proxy_with(settings).await;
    assert!(crate::support::switch(&proxy, instance.target("one")).is_none());
    let (sender, upload) = feed(1);
    let mut connection = Connection::open(proxy.local_addr()).await;
    let answer = tokio::spawn(async move { connection.send(post("/", upload)).await });
    let started = std::time::Instant::now();
    let mut sent = 0;
    while started.elapsed() < limit * 2 {
        sender
            .send(Bytes::from_static(b"drop"))
            .await
            .expect("taken");
        sent += 4;
        tokio::time::sleep(limit / 10).await;
    }
    drop(sender);
    let response = answer.await.expect("no panic").expect("an answer");
    assert_eq!(body(response).await, sent.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_while_nobody_reads_the_answer() {
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    // Answers with more than all buffers hold, at once, and reads the request meanwhile.
    let instance = Instance::start(move |request| {
        let (sender, answer) = feed(1);
        tokio::spawn(pour(sender, Arc::default()));
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let mut upload = request.into_body();
            while let Some(Ok(frame)) = upload.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                count.fetch_add(length, Ordering::SeqCst);
            }
        });
        async move { Response::new(answer) }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let (sender, upload) = feed(1);
    let mut connection = Connection::open(proxy.local_addr()).await;
    let response = connection.send(post("/", upload)).await.expect("a head");
    tokio::spawn(pour(sender, Arc::default()));
    let expected = CHUNKS * CHUNK.len() as u64;
    crate::support::eventually("the upload is complete", || {
        received.load(Ordering::SeqCst) == expected
    })
    .await;
    assert_eq!(drink(response.into_body()).await, expected);
}

/// Whoever stops reading holds an instance and a place for a time, and not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_let_go() {
    let instance = Instance::start(|_| async {
        let (sender, body) = feed(1);
        tokio::spawn(pour(sender, Arc::default()));
        Response::new(body)
    })
    .await;
    let settings = Settings {
        take_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let mut client = TcpStream::connect(proxy.local_addr()).await.expect("there");
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request).await.expect("sent");
    let mut first = [0; 12];
    client.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    let retired = withdraw(&proxy).expect("the only one");
    assert!(retired.drained(SOON).await, "it is held for ever");
}
