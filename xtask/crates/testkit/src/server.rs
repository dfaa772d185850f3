//! A small threaded HTTP server with fault rules and a record of all it was asked.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::fault::{Fault, Faults, Rule};
use crate::http::{self, Request, Response};

/// A client of a test opens a handful of connections; the next ones wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// A connection on which nothing happens for so long belongs to nobody any more.
const IDLE: Duration = Duration::from_mins(1);

/// Answers one request.
pub type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// One request as it arrived, and what came of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request, with its body.
    pub request: Request,
    /// The status that was sent; `None` when the connection was reset instead.
    pub status: Option<u16>,
    /// Whether a fault was injected.
    pub faulty: bool,
}

/// A running server; stopped and joined when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<Handler>,
    faults: Faults,
    exchanges: Mutex<Vec<Exchange>>,
    stopping: AtomicBool,
    open: Mutex<Connections>,
    closed_one: Condvar,
}

#[derive(Default)]
struct Connections {
    next: u64,
    streams: HashMap<u64, TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of the loopback interface.
    #[must_use]
    pub fn start(handler: Box<Handler>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a free loopback port");
        let address = listener.local_addr().expect("address of a bound socket");
        let shared = Arc::new(Shared {
            handler,
            faults: Faults::default(),
            exchanges: Mutex::default(),
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
            closed_one: Condvar::new(),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a fault rule.
    pub fn inject(&self, rule: Rule) {
        self.shared.faults.add(rule);
    }

    /// Removes every fault rule and lets go of answers that are held.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }

    /// All that has been asked so far, in order of arrival.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.shared.exchanges).clone()
    }

    /// Forgets what has been asked so far.
    pub fn forget(&self) {
        lock(&self.shared.exchanges).clear();
    }

    /// How often a method and a path were asked.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        lock(&self.shared.exchanges)
            .iter()
            .filter(|e| e.request.method == method && e.request.path() == path)
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.faults.clear();
        self.shared.closed_one.notify_all();
        // Wakes the accepting thread, which looks at the flag.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let threads = {
            let mut open = lock(&self.shared.open);
            for stream in open.streams.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut open.threads)
        };
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        wait_for_a_slot(shared);
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        if let Ok((stream, _)) = accepted {
            serve_on_thread(stream, shared);
        }
    }
}

fn wait_for_a_slot(shared: &Shared) {
    let open = lock(&shared.open);
    let waited = shared.closed_one.wait_while(open, |open| {
        open.streams.len() >= MAX_CONNECTIONS && !shared.stopping.load(Ordering::SeqCst)
    });
    drop(waited);
}

fn serve_on_thread(stream: TcpStream, shared: &Arc<Shared>) {
    let Ok(handle) = stream.try_clone() else {
        return;
    };
    let mut open = lock(&shared.open);
    open.threads.retain(|thread| !thread.is_finished());
    let id = open.next;
    open.next += 1;
    open.streams.insert(id, handle);
    let shared = Arc::clone(shared);
    open.threads.push(thread::spawn(move || {
        // What goes wrong here is the client's to notice: it sees the connection end.
        let _ = serve(stream, &shared);
        lock(&shared.open).streams.remove(&id);
        shared.closed_one.notify_all();
    }));
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while !shared.stopping.load(Ordering::SeqCst) {
        let Some(request) = http::read_request_head(&mut reader)? else {
            return Ok(());
        };
        if !exchange(request, &mut reader, &mut stream, shared)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads the rest of one request and answers it; whether the connection goes on.
fn exchange(
    mut request: Request,
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
    shared: &Shared,
) -> io::Result<bool> {
    let fault = shared.faults.next(&request.method, request.path());
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if matches!(fault, Some(Fault::ResetDuringUpload)) {
        http::read_half_of_body(reader, &request.headers)?;
        shared.record(request, None, true);
        return reset(stream);
    }
    request.body = http::read_request_body(reader, &request.headers)?;
    match fault {
        None => answer(request, stream, shared),
        Some(fault) => answer_with(&fault, request, stream, shared),
    }
}

fn answer(request: Request, stream: &mut TcpStream, shared: &Shared) -> io::Result<bool> {
    let response = (shared.handler)(&request);
    send(&response, request, stream, shared, false)
}

fn answer_with(
    fault: &Fault,
    request: Request,
    stream: &mut TcpStream,
    shared: &Shared,
) -> io::Result<bool> {
    if let Some(response) = fault.refusal() {
        return send(&response, request, stream, shared, true);
    }
    if matches!(fault, Fault::ResetBeforeAnswer) {
        shared.record(request, None, true);
        return reset(stream);
    }
    let mut response = (shared.handler)(&request);
    match fault {
        Fault::ResetDuringAnswer => {
            shared.record(request, None, true);
            response.write_half(stream)?;
            reset(stream)
        }
        Fault::TruncatedJson => {
            response.body.truncate(response.body.len() / 2);
            response.announced = None;
            send(&response, request, stream, shared, true)
        }
        Fault::Slow(gate) => {
            gate.wait();
            send(&response, request, stream, shared, true)
        }
        _ => {
            shared.record(request, None, true);
            reset(stream)
        }
    }
}

fn send(
    response: &Response,
    request: Request,
    stream: &mut TcpStream,
    shared: &Shared,
    faulty: bool,
) -> io::Result<bool> {
    let keep_alive = request.keeps_alive();
    let method = request.method.clone();
    // Recorded first: a test that has seen the answer must find the exchange.
    shared.record(request, Some(response.status), faulty);
    response.write(stream, &method, keep_alive)?;
    Ok(keep_alive)
}

/// Ends the connection with RST instead of FIN, as a crashed peer or a firewall does.
fn reset(stream: &TcpStream) -> io::Result<bool> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    // Clones of the socket keep it open after this thread ends: a shutdown would send FIN, so the
    // reset is forced by closing every clone, which the caller and the connection table do.
    Ok(false)
}

impl Shared {
    fn record(&self, request: Request, status: Option<u16>, faulty: bool) {
        lock(&self.exchanges).push(Exchange {
            request,
            status,
            faulty,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Gate;
    use std::io::Read;

    fn echo() -> Server {
        Server::start(Box::new(|request| {
            Response::json(200, &serde_json::json!({"echo": request.text()}))
        }))
    }

    fn ask(server: &Server, text: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(server.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    const CLOSING: &str = "POST /a HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    const KEEPING: &str = "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nyo";

    #[test]
    fn a_connection_serves_many_requests_and_all_are_recorded() {
        let server = echo();
        let answers = ask(&server, &format!("{KEEPING}{CLOSING}")).unwrap();
        assert!(answers.contains(r#"{"echo":"yo"}"#) && answers.ends_with(r#"{"echo":"hi"}"#));
        assert_eq!(server.count("POST", "/a"), 2);
        assert_eq!(server.exchanges()[1].request.text(), "hi");
    }

    #[test]
    fn a_reset_is_a_reset_and_not_an_end() {
        for fault in [
            Fault::ResetBeforeAnswer,
            Fault::ResetDuringUpload,
            Fault::ResetAfterEffect,
            Fault::ResetDuringAnswer,
        ] {
            let server = echo();
            server.inject(Rule::on("POST", "/a", fault.clone()));
            let error = ask(&server, CLOSING).expect_err("the connection is reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{fault:?}");
            assert_eq!(server.exchanges()[0].status, None);
            assert!(ask(&server, CLOSING).unwrap().contains("200 OK"));
        }
    }

    #[test]
    fn refusals_keep_the_connection_in_step() {
        let server = echo();
        server.inject(Rule::on("POST", "/a", Fault::RateLimited(7)));
        let answers = ask(&server, &format!("{KEEPING}{CLOSING}")).unwrap();
        assert!(answers.starts_with("HTTP/1.1 429 ") && answers.contains("Retry-After: 7\r\n"));
        assert!(answers.ends_with(r#"{"echo":"hi"}"#));
    }

    #[test]
    fn truncated_json_is_a_whole_answer() {
        let server = echo();
        server.inject(Rule::on("*", "/**", Fault::TruncatedJson));
        let answer = ask(&server, CLOSING).unwrap();
        assert!(answer.contains("Content-Length: 6\r\n") && answer.ends_with(r#"{"echo"#));
    }

    #[test]
    fn a_slow_answer_comes_when_the_gate_opens() {
        let server = echo();
        let gate = Gate::closed(Duration::from_mins(1));
        server.inject(Rule::on("POST", "/a", Fault::Slow(gate.clone())));
        thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&server, CLOSING));
            assert!(!asking.is_finished());
            gate.open();
            assert!(asking.join().unwrap().unwrap().contains("200 OK"));
        });
    }

    #[test]
    fn dropping_ends_idle_and_held_connections() {
        let server = echo();
        let gate = Gate::closed(Duration::from_mins(10));
        server.inject(Rule::on("POST", "/a", Fault::Slow(gate)));
        let idle = TcpStream::connect(server.address()).unwrap();
        let mut held = TcpStream::connect(server.address()).unwrap();
        held.write_all(CLOSING.as_bytes()).unwrap();
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
        drop((idle, held));
    }
}
