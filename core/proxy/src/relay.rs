//! Connections that are not HTTP: each is handed to an instance as it is, bytes both ways until one side ends it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use tokio::net::TcpStream;

use crate::forward::{Client, Forwarder};
use crate::route::Flight;
use crate::rules::Asked;
use crate::table::Choice;
use crate::tunnel;

/// Serves one connection of a client to its end. It is in flight on its instance until then.
pub(crate) async fn relay(stream: TcpStream, client: Client, forwarder: Arc<Forwarder>) {
    let Some((instance, flight)) = connect(&forwarder).await else {
        tracing::debug!(client = %client.address, "no instance takes the connection");
        return;
    };
    let mut stop = client.stop.clone();
    forwarder.counters.tunnel_began();
    let limit = forwarder.settings.tunnel_idle_timeout;
    let end = tokio::select! {
        end = tunnel::carry(stream, instance, &forwarder.counters, limit) => end,
        () = stop.closed() => "the proxy stops",
    };
    forwarder.counters.tunnel_ended();
    tracing::debug!(target_id = flight.target().id, "connection ended: {end}");
}

/// A connection to an instance, or to another one where the first takes none: nothing was sent yet.
async fn connect(forwarder: &Forwarder) -> Option<(TcpStream, Flight)> {
    let choice = forwarder.table.choose(Instant::now(), Asked::NOTHING);
    let Ok(Choice::Instance(first)) = choice else {
        return None;
    };
    match try_connect(forwarder, &first).await {
        Ok(stream) => Some((stream, first)),
        Err(error) => {
            tracing::debug!(target_id = first.target().id, %error, "trying again");
            forwarder.counters.retried();
            let second = forwarder.table.choose_again(first)?;
            let stream = try_connect(forwarder, &second).await.ok()?;
            Some((stream, second))
        }
    }
}

async fn try_connect(forwarder: &Forwarder, flight: &Flight) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect(flight.target().address);
    let limit = forwarder.settings.connect_timeout;
    let connected = tokio::time::timeout(limit, connecting).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
        Ok(stream) => {
            // What is said on it is nobody's business here: to have taken it is the answer.
            flight.answered(StatusCode::OK);
            Ok(stream)
        }
        Err(error) => {
            flight.failed();
            Err(error)
        }
    }
}
