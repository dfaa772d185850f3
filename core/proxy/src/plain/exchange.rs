//! One plain request's way to an instance, and the answer's way back.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::AsyncRead;

use super::answer::{self, Answer, BadAnswer, Body, Question};
use super::guard::{Interrupt, Until};
use super::line::PlainLine;
use super::{ClientStream, Connection, Ended};
use crate::failure::Failure;
use crate::listener::Phase;
use crate::pool::Freshness;
use crate::route::Flight;

/// The most interim answers before the one that counts.
const INTERIM: usize = 16;
/// A long body is read in pieces of so many bytes.
const LONG: usize = 64 * 1024;
/// The most that a client may send ahead while its request is answered, before that is left in the kernel.
const AHEAD: usize = 64 * 1024;

/// An instance's answer whose head has come, and is written for the client.
pub(super) struct Asked {
    pub(super) answer: Answer,
    line: PlainLine,
    flight: Flight,
    wants_body: bool,
}

impl<S: ClientStream> Connection<S> {
    /// Asks the instance, and another one if the first has closed the connection before it had said a byte. The second
    /// attempt is the last, so it risks no connection that has been waiting.
    pub(super) async fn ask(
        &mut self,
        flight: Flight,
        question: &mut Question,
    ) -> Result<Result<Asked, Failure>, Ended> {
        let failure = match self.attempt(&flight, question, Freshness::Any).await? {
            Ok((line, answer)) => return Ok(Ok(Asked::new(answer, line, flight, question))),
            Err(failure) => failure,
        };
        if !failure.is_worth_a_retry() {
            return Ok(Err(failure));
        }
        tracing::debug!(target_id = flight.target().id, "trying again: {failure}");
        self.forwarder.counters.retried();
        let Some(flight) = self.forwarder.table.choose_again(flight) else {
            return Ok(Err(Failure::NoRelease));
        };
        let second = self.attempt(&flight, question, Freshness::New).await?;
        Ok(second.map(|(line, answer)| Asked::new(answer, line, flight, question)))
    }

    /// One attempt, which the instance's record keeps.
    async fn attempt(
        &mut self,
        flight: &Flight,
        question: &mut Question,
        freshness: Freshness,
    ) -> Result<Result<(PlainLine, Answer), Failure>, Ended> {
        let unused = match freshness {
            Freshness::Any => flight.pool().take_plain().await,
            Freshness::New => None,
        };
        let connected = if let Some(line) = unused {
            Ok(line)
        } else {
            // On the heap: there is seldom need of it, and it is large.
            let mut connecting = Box::pin(flight.pool().new_plain());
            let connected = |context: &mut Context<'_>| connecting.as_mut().poll(context);
            self.guard.wait(Until::closed(), connected).await?
        };
        let outcome = match connected {
            Ok(line) => self.exchange(line, question).await?,
            Err(error) => Err(error.into()),
        };
        match &outcome {
            Ok((_, answer)) => flight.answered(answer.status),
            Err(failure) if failure.is_of_the_instance() => flight.failed(),
            Err(_) => {}
        }
        Ok(outcome)
    }

    /// Sends the head of the request, and waits for the head of the answer.
    async fn exchange(
        &mut self,
        mut line: PlainLine,
        question: &mut Question,
    ) -> Result<Result<(PlainLine, Answer), Failure>, Ended> {
        let most = self.forwarder.settings.max_header_bytes.max(8192) as usize;
        let started = Instant::now();
        let mut sent = 0;
        let mut interim = 0;
        loop {
            // The last answer is told as that, also when it has become the last one since it was asked for.
            question.keeps_alive &= self.guard.phase() == Phase::Running;
            match answer::read(line.read.filled(), *question, &mut self.buffers.out) {
                Ok(Some(answer)) if answer.is_interim() && interim < INTERIM => {
                    // Nobody has asked for it, and the client has nothing to do about it.
                    line.read.consume(answer.length);
                    interim += 1;
                    continue;
                }
                Ok(Some(answer)) if answer.status.is_informational() => {
                    return Ok(Err(Failure::BadUpgrade));
                }
                Ok(Some(mut answer)) => {
                    line.read.consume(answer.length);
                    // What is missing of this request the instance would take from the next one.
                    answer.is_reusable &= sent == self.buffers.head.len();
                    return Ok(match answer.body.check(line.read.filled()) {
                        Ok(()) => Ok((line, answer)),
                        Err(bad) => Err(Failure::BadAnswer(bad.into())),
                    });
                }
                Ok(None) if line.read.is_full() && line.read.capacity() >= most => {
                    return Ok(Err(Failure::BadAnswer(BadAnswer::TooLarge.into())));
                }
                Ok(None) if line.read.is_full() => line.read.grow(most),
                Ok(None) => {}
                Err(bad) => return Ok(Err(Failure::BadAnswer(bad.into()))),
            }
            match self.poll_exchange(&mut line, &mut sent, started).await? {
                Ok(Ok(1..)) => {}
                // A connection that ends in silence may only have been too old.
                Ok(ended) if line.read.is_empty() && interim == 0 => {
                    let error = ended.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
                    return Ok(Err(Failure::Closed(error.into())));
                }
                Ok(_) => return Ok(Err(Failure::BadAnswer(BadAnswer::Cut.into()))),
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    /// Sends on, and reads something of the answer, all of which has the time of one answer since `started`.
    async fn poll_exchange(
        &mut self,
        line: &mut PlainLine,
        sent: &mut usize,
        started: Instant,
    ) -> Result<Result<io::Result<usize>, Failure>, Ended> {
        let limit = self.forwarder.settings.answer_timeout;
        let (head, read, stream) = (&self.buffers.head, &mut self.buffers.read, &mut self.stream);
        let step = |context: &mut Context<'_>| {
            // What the instance says counts, also when it does not take the whole request.
            let sending = line.poll_send(head, sent, context);
            if let Poll::Ready(count) = line.poll_fill(context) {
                return Poll::Ready(Ok(count));
            }
            match sending {
                Poll::Ready(Err(error)) => Poll::Ready(Ok(Err(error))),
                _ => poll_gone(read, stream, context).map(Err),
            }
        };
        let left = limit.saturating_sub(started.elapsed());
        match self.guard.wait(Until::within(left), step).await {
            Ok(Ok(count)) => Ok(Ok(count)),
            Ok(Err(Ended)) | Err(Interrupt::Stop) => Err(Ended),
            Err(Interrupt::Late) => Ok(Err(Failure::AnswerTimeout(limit))),
        }
    }

    /// Hands the answer on to the client to its end, and gives the connection that it came over back.
    pub(super) async fn hand_on(&mut self, asked: Asked, keeps_alive: bool) -> Result<(), Ended> {
        let Asked {
            answer,
            mut line,
            flight,
            wants_body,
        } = asked;
        let mut body = Some(answer.body).filter(|_| wants_body);
        loop {
            let is_long = line.read.is_full();
            let count = match &mut body {
                Some(body) => self.take(body, &mut line)?,
                None => 0,
            };
            self.forwarder.counters.sent(count);
            let is_done = body.as_ref().is_none_or(Body::is_done);
            if is_done {
                // Before the client has it all: its next request may come with that, and must find this one counted out.
                if answer.is_reusable && line.read.is_empty() {
                    flight.pool().keep_plain(line.rest());
                }
                drop(flight);
                return self.flush(!keeps_alive).await;
            }
            self.flush(false).await?;
            self.buffers.out.clear();
            if is_long {
                line.read.grow(LONG);
            }
            match self.more(&mut line).await?? {
                0 if body.as_ref().is_some_and(Body::ends_with_connection) => {
                    self.buffers.out.extend_from_slice(b"0\r\n\r\n");
                    return self.flush(!keeps_alive).await;
                }
                // The client must not take what it has for the whole.
                0 => return Err(Ended),
                _ => {}
            }
        }
    }

    /// Takes what has come of the body over to what the client is sent; returns how much content it is, in bytes.
    fn take(&mut self, body: &mut Body, line: &mut PlainLine) -> Result<usize, Ended> {
        let there = line.read.filled();
        let (count, content) = match body {
            Body::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let count = there.len().min(most);
                *left -= count as u64;
                self.buffers.out.extend_from_slice(&there[..count]);
                (count, count)
            }
            Body::Chunked(chunks) => {
                let count = chunks.read(there).map_err(|_| Ended)?;
                self.buffers.out.extend_from_slice(&there[..count]);
                (count, chunks.content())
            }
            Body::UntilClose if there.is_empty() => (0, 0),
            Body::UntilClose => {
                let size = format!("{:x}\r\n", there.len());
                self.buffers.out.extend_from_slice(size.as_bytes());
                self.buffers.out.extend_from_slice(there);
                self.buffers.out.extend_from_slice(b"\r\n");
                (there.len(), there.len())
            }
        };
        line.read.consume(count);
        Ok(content)
    }

    /// Reads more of a body, which may take its time.
    async fn more(&mut self, line: &mut PlainLine) -> Result<io::Result<usize>, Ended> {
        let (read, stream) = (&mut self.buffers.read, &mut self.stream);
        let step = |context: &mut Context<'_>| match line.poll_fill(context) {
            Poll::Ready(count) => Poll::Ready(Ok(count)),
            Poll::Pending => poll_gone(read, stream, context).map(Err),
        };
        self.guard.wait(Until::closed(), step).await?
    }
}

impl Asked {
    fn new(answer: Answer, line: PlainLine, flight: Flight, question: &Question) -> Self {
        Self {
            answer,
            line,
            flight,
            wants_body: !question.is_head,
        }
    }
}

impl Body {
    fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Whether it can begin with `bytes`: as long as the client has got nothing, it can be told otherwise.
    fn check(&self, bytes: &[u8]) -> Result<(), BadAnswer> {
        if let Self::Chunked(chunks) = self {
            chunks.clone().read(bytes)?;
        }
        Ok(())
    }

    /// Whether the end of the connection is the end of the body.
    fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

/// Ready when the client has left. What it sends ahead is kept for later.
fn poll_gone<S: AsyncRead + Unpin>(
    read: &mut super::buffer::Buffer,
    stream: &mut S,
    context: &mut Context<'_>,
) -> Poll<Ended> {
    loop {
        if read.is_full() {
            if read.capacity() >= AHEAD {
                return Poll::Pending;
            }
            read.grow(2 * read.capacity());
        }
        match read.poll_fill(stream, context) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => return Poll::Ready(Ended),
            Poll::Pending => return Poll::Pending,
        }
    }
}
