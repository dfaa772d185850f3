//! A registry that misbehaves on purpose: a server in front of a real one, which answers itself,
//! breaks connections, or changes what the real one says. It counts what it sees: requests, bytes of
//! blobs, connections, and credentials where none belong.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// "alice:correct horse"
const CREDENTIALS: &str = "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==";
/// No test is meant to wait for this one.
const IDLE: Duration = Duration::from_mins(1);

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answered with this status, without effect.
    Status(u16),
    /// Reset before anything of it is looked at.
    ResetBefore,
    /// Reset when half of its body has passed.
    ResetMiddle,
    /// It has its effect; the connection is reset in place of the answer.
    ResetAfter,
    /// It has its effect; the answer ends in the middle.
    Truncated,
    /// Answered with something that is no HTTP.
    Garbage,
    /// Answered after this many milliseconds.
    Delayed(u64),
    /// The answer names another digest.
    WrongDigest,
    /// A mount is answered with an upload.
    MountRefused,
    /// The answer's `Location` is absolute.
    AbsoluteLocation,
    /// The answer's `Location` is a path, and nothing else.
    RelativeLocation,
    /// The answer's `Location` is on another host.
    OtherHost,
}

impl Fault {
    /// Every one, for tests that try them all.
    pub(crate) const ALL: [Self; 21] = [
        Self::Status(400),
        Self::Status(401),
        Self::Status(404),
        Self::Status(408),
        Self::Status(413),
        Self::Status(416),
        Self::Status(429),
        Self::Status(500),
        Self::Status(502),
        Self::Status(503),
        Self::ResetBefore,
        Self::ResetMiddle,
        Self::ResetAfter,
        Self::Truncated,
        Self::Garbage,
        Self::Delayed(15),
        Self::WrongDigest,
        Self::MountRefused,
        Self::AbsoluteLocation,
        Self::RelativeLocation,
        Self::OtherHost,
    ];

    /// Whether a client that is patient gets over a few of them.
    pub(crate) fn passes(self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 408 | 429 | 500 | 502 | 503),
            Self::Garbage | Self::WrongDigest => false,
            _ => true,
        }
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Bytes of bodies of `PUT`, `PATCH` and `POST` to blobs.
    pub(crate) blob_bytes: AtomicU64,
    /// Tokens given out.
    pub(crate) tokens: AtomicUsize,
    /// Requests to the other host that carried credentials.
    pub(crate) leaks: AtomicUsize,
}

/// Which request a fault waits for: method and a part of the target.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) part: String,
}

#[derive(Default)]
struct Plan {
    /// One for each request to come.
    schedule: VecDeque<Option<Fault>>,
    /// Each happens once, to the first request of its kind.
    single: Vec<(Call, Fault)>,
}

struct State {
    upstream: SocketAddr,
    home: SocketAddr,
    elsewhere: SocketAddr,
    plan: Mutex<Plan>,
    seen: Seen,
    /// How many requests a token is good for; none leaves authorisation to the registry behind.
    token_uses: Option<usize>,
    /// What is left of each token.
    tokens: Mutex<Vec<usize>>,
    stopping: AtomicBool,
}

/// The server. Ended when dropped; connections end with their clients.
pub(crate) struct Faulty {
    state: Arc<State>,
}

impl Faulty {
    pub(crate) fn before(upstream: &str) -> Self {
        Self::start(upstream, None)
    }

    /// With tokens of its own, each good for so many requests.
    pub(crate) fn with_tokens(upstream: &str, uses: usize) -> Self {
        Self::start(upstream, Some(uses))
    }

    fn start(upstream: &str, token_uses: Option<usize>) -> Self {
        let home = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(State {
            upstream: upstream.parse().unwrap(),
            home: home.local_addr().unwrap(),
            elsewhere: elsewhere.local_addr().unwrap(),
            plan: Mutex::default(),
            seen: Seen::default(),
            token_uses,
            tokens: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        for (listener, at_home) in [(home, true), (elsewhere, false)] {
            let state = Arc::clone(&state);
            std::thread::spawn(move || accept(&listener, &state, at_home));
        }
        Self { state }
    }

    pub(crate) fn host(&self) -> String {
        self.state.home.to_string()
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.state.seen
    }

    /// From now on, one of these for each request, in order of arrival.
    pub(crate) fn schedule(&self, faults: &[Option<Fault>]) {
        self.state.plan.lock().unwrap().schedule = faults.iter().copied().collect();
    }

    /// The next request of this kind goes wrong.
    pub(crate) fn fail_once(&self, call: Call, fault: Fault) {
        self.state.plan.lock().unwrap().single.push((call, fault));
    }

    /// Whether all faults asked for have happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.plan.lock().unwrap().single.is_empty()
    }

    /// From now on all goes well.
    pub(crate) fn heal(&self) {
        *self.state.plan.lock().unwrap() = Plan::default();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        for address in [self.state.home, self.state.elsewhere] {
            // Wakes the thread that accepts; should it be gone already, so much the better.
            let _ = TcpStream::connect(address);
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>, at_home: bool) {
    for stream in listener.incoming() {
        let (Ok(stream), false) = (stream, state.stopping.load(Ordering::SeqCst)) else {
            return;
        };
        state.seen.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(state);
        // What goes wrong on a connection is the client's to notice.
        std::thread::spawn(move || {
            let connection = Connection {
                stream: &stream,
                state: &state,
                at_home,
            };
            connection.serve()
        });
    }
}

/// The head of a request or an answer.
struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// None at the end of the connection.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let fields = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Some(Self {
            first,
            fields: fields.collect(),
        }))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.fields.push((name.to_owned(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.fields.retain(|(known, _)| known != name);
    }

    fn length(&self) -> u64 {
        let length = self.field("content-length");
        length.map_or(0, |length| length.parse().unwrap())
    }

    fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.fields {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Whether the connection goes on.
type Goes = io::Result<bool>;

struct Connection<'a> {
    stream: &'a TcpStream,
    state: &'a State,
    at_home: bool,
}

impl Connection<'_> {
    fn serve(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(IDLE))?;
        self.stream.set_write_timeout(Some(IDLE))?;
        let mut reader = BufReader::new(self.stream);
        while let Some(request) = Head::read(&mut reader)? {
            if !self.exchange(request, &mut reader)? {
                break;
            }
        }
        Ok(())
    }

    fn exchange(&self, request: Head, reader: &mut BufReader<&TcpStream>) -> Goes {
        self.state.seen.requests.fetch_add(1, Ordering::SeqCst);
        if !self.at_home && request.field("authorization").is_some() {
            self.state.seen.leaks.fetch_add(1, Ordering::SeqCst);
        }
        let fault = self.state.next_fault(&request);
        match fault {
            Some(Fault::ResetBefore) => return self.reset(),
            Some(Fault::Garbage) => {
                Self::pass_over(&request, reader)?;
                self.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")?;
                return Ok(false);
            }
            Some(Fault::Status(status)) => return self.refuse(&request, reader, status),
            Some(Fault::Delayed(milliseconds)) => {
                std::thread::sleep(Duration::from_millis(milliseconds));
            }
            _ => {}
        }
        if let Some(answer) = self.token_answer(&request) {
            Self::pass_over(&request, reader)?;
            self.send(answer.as_bytes())?;
            return Ok(true);
        }
        self.forward(request, reader, fault)
    }

    /// The answer of the token server, or a challenge by it.
    fn token_answer(&self, request: &Head) -> Option<String> {
        let uses = self.state.token_uses.filter(|_| self.at_home)?;
        if request.target().starts_with("/token") {
            let number = self.state.issue(uses);
            let body = format!("{{\"token\":\"t{number}\",\"expires_in\":300}}");
            let length = body.len();
            return Some(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
        }
        if self.state.takes(request.field("authorization")) {
            return None;
        }
        let realm = format!("http://{}/token", self.state.home);
        Some(format!(
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\
             www-authenticate: Bearer realm=\"{realm}\",service=\"test\"\r\n\r\n{{}}"
        ))
    }

    fn refuse(&self, request: &Head, reader: &mut BufReader<&TcpStream>, status: u16) -> Goes {
        let keep = request.field("expect").is_none();
        Self::pass_over(request, reader)?;
        let more = match status {
            401 if self.state.token_uses.is_some() => format!(
                "www-authenticate: Bearer realm=\"http://{}/token\"\r\n",
                self.state.home
            ),
            401 => "www-authenticate: Basic realm=\"test\"\r\n".to_owned(),
            429 => "retry-after: 0\r\n".to_owned(),
            _ => String::new(),
        };
        let connection = if keep { "keep-alive" } else { "close" };
        let body = match (request.method(), status) {
            ("HEAD", _) => "",
            _ => "{\"errors\":[{\"code\":\"INJECTED\",\"message\":\"injected\"}]}",
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Injected\r\ncontent-length: {length}\r\nconnection: {connection}\r\n{more}\r\n{body}"
        );
        self.send(answer.as_bytes())?;
        Ok(keep)
    }

    /// Reads a body that nobody forwards. One that waits for a word to come does not come.
    fn pass_over(request: &Head, reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
        if request.field("expect").is_none() {
            io::copy(&mut reader.take(request.length()), &mut io::sink())?;
        }
        Ok(())
    }

    fn forward(
        &self,
        mut request: Head,
        reader: &mut BufReader<&TcpStream>,
        fault: Option<Fault>,
    ) -> Goes {
        if request.field("expect").is_some() {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            request.remove("expect");
        }
        if fault == Some(Fault::MountRefused) && request.target().contains("mount=") {
            request.first = "POST ".to_owned()
                + request.target().split('?').next().unwrap_or_default()
                + " HTTP/1.1";
        }
        request.set("connection", "close");
        request.set("host", &self.state.home.to_string());
        if self.state.token_uses.is_some() || !self.at_home {
            request.set("authorization", CREDENTIALS);
        }
        let upstream = TcpStream::connect(self.state.upstream)?;
        upstream.set_nodelay(true)?;
        upstream.set_read_timeout(Some(IDLE))?;
        (&upstream).write_all(&request.to_bytes())?;
        let length = request.length();
        let passing = match fault {
            Some(Fault::ResetMiddle) => length / 2,
            _ => length,
        };
        let passed = io::copy(&mut reader.take(passing), &mut &upstream)?;
        if request.target().contains("/blobs/") {
            self.state
                .seen
                .blob_bytes
                .fetch_add(passed, Ordering::SeqCst);
        }
        if passed < length || fault == Some(Fault::ResetMiddle) {
            upstream.shutdown(Shutdown::Both)?;
            return self.reset();
        }
        self.answer(&upstream, fault)
    }

    /// Passes the answer of the registry behind on.
    fn answer(&self, upstream: &TcpStream, fault: Option<Fault>) -> Goes {
        let mut reader = BufReader::new(upstream);
        let Some(mut answer) = Head::read(&mut reader)? else {
            return self.reset();
        };
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        answer.set("connection", "keep-alive");
        self.change(&mut answer, fault);
        let mut bytes = answer.to_bytes();
        bytes.extend(body);
        match fault {
            Some(Fault::ResetAfter) => self.reset(),
            Some(Fault::Truncated) => {
                self.send(&bytes[..bytes.len() / 2])?;
                Ok(false)
            }
            _ => self.send(&bytes).map(|()| true),
        }
    }

    fn change(&self, answer: &mut Head, fault: Option<Fault>) {
        let location = answer.field("location").map(path_of).map(str::to_owned);
        match (fault, location) {
            (Some(Fault::WrongDigest), _) => {
                let other = oci::Digest::of(b"something else").to_string();
                answer.set("docker-content-digest", &other);
            }
            (Some(Fault::RelativeLocation), Some(path)) => answer.set("location", &path),
            (Some(Fault::AbsoluteLocation), Some(path)) => {
                answer.set("location", &format!("http://{}{path}", self.state.home));
            }
            (Some(Fault::OtherHost), Some(path)) => {
                answer.set(
                    "location",
                    &format!("http://{}{path}", self.state.elsewhere),
                );
            }
            _ => {}
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream;
        stream.write_all(bytes)
    }

    /// The connection is about to be closed; this makes the end of it a reset.
    fn reset(&self) -> Goes {
        socket2::SockRef::from(self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(false)
    }
}

impl State {
    fn next_fault(&self, request: &Head) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        let is_meant = |(call, _): &(Call, Fault)| {
            call.method == request.method() && request.target().contains(&call.part)
        };
        if let Some(place) = plan.single.iter().position(is_meant) {
            return Some(plan.single.remove(place).1);
        }
        plan.schedule.pop_front().flatten()
    }

    fn issue(&self, uses: usize) -> usize {
        self.seen.tokens.fetch_add(1, Ordering::SeqCst);
        let mut tokens = self.tokens.lock().unwrap();
        tokens.push(uses);
        tokens.len() - 1
    }

    fn takes(&self, authorization: Option<&str>) -> bool {
        let number = authorization.and_then(|text| text.strip_prefix("Bearer t")?.parse().ok());
        let mut tokens = self.tokens.lock().unwrap();
        let left = number.and_then(|number: usize| tokens.get_mut(number));
        left.is_some_and(|left| {
            let good = *left > 0;
            *left = left.saturating_sub(1);
            good
        })
    }
}

fn path_of(location: &str) -> &str {
    location
        .find("/v2/")
        .map_or(location, |start| &location[start..])
}
