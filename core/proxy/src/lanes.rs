//! The threads on which clients' connections are served, one for each processor.
//!
//! Each has a runtime of its own, and what begins on one stays there: the client's connection, those to instances that it
//! takes, and every task between them. On a runtime that shares its work out, a request would change threads at nearly every
//! step of its way, and with it the sockets' memory and the application's thread that is woken: that costs a fifth of the
//! requests (docs/decisions/0038-a-connection-stays-on-one-thread.md).

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How many there are: asked once, because what a process may use can change while it runs.
static COUNT: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// Those of this process, once they were needed.
static SHARED: Mutex<Option<Lanes>> = Mutex::new(None);

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Handles to all of them. They run as long as there is one.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    lanes: Arc<[Lane]>,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// Connections that it has now.
    load: Arc<AtomicUsize>,
    /// Its end ends the thread.
    _running: oneshot::Sender<()>,
}

impl Lanes {
    /// Those of this process, which all proxies share: more threads than processors would only take turns.
    pub(crate) fn shared() -> io::Result<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lanes) = &*shared {
            return Ok(lanes.clone());
        }
        let lanes = Self::begin(*COUNT)?;
        *shared = Some(lanes.clone());
        Ok(lanes)
    }

    fn begin(count: usize) -> io::Result<Self> {
        let lanes = (0..count).map(Lane::begin).collect::<io::Result<_>>()?;
        Ok(Self { lanes })
    }

    /// Lets `connection` run to its end on the thread that has the fewest. The first one of several: as long as there is
    /// little to do, connections to instances are all in one place and used again.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let fewest = |lane: &&Lane| lane.load.load(Ordering::Relaxed);
        if let Some(lane) = self.lanes.iter().min_by_key(fewest) {
            let place = Place::take(&lane.load);
            lane.runtime.spawn(async move {
                connection.await;
                drop(place);
            });
        }
    }
}

impl Lane {
    fn begin(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name(format!("proxy-{index}"))
            .spawn(move || {
                CURRENT.set(Some(index));
                // Nothing is ever sent: it returns when the sender is gone.
                let _ = runtime.block_on(ended);
            })?;
        Ok(Self {
            runtime: handle,
            load: Arc::default(),
            _running: running,
        })
    }
}

/// One connection among those of a thread; counted out when it is dropped, also by a panic.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many places [`place`] tells apart.
pub(crate) fn places() -> usize {
    *COUNT + 1
}

/// Which of the threads this is; all that are none of them have the last place together.
pub(crate) fn place() -> usize {
    CURRENT.get().unwrap_or(*COUNT)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_connection_goes_where_there_are_fewest_and_stays_there() {
        let lanes = Lanes::begin(2).expect("threads");
        let (tell, told) = mpsc::channel();
        let (mut gates, mut places) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (open, gate) = oneshot::channel::<()>();
            let tell = tell.clone();
            lanes.spawn(async move {
                let before = place();
                let inner = tokio::spawn(async { place() }).await.expect("no panic");
                tell.send((before, inner)).expect("it is awaited");
                let _ = gate.await;
                tell.send((before, place())).expect("it is awaited");
            });
            gates.push(open);
            let (before, inner) = told.recv_timeout(SOON).expect("it runs");
            assert_eq!(before, inner);
            places.push(before);
        }
        assert_eq!(places, [0, 1, 0, 1]);
        drop(gates);
        for _ in 0..4 {
            let (before, after) = told.recv_timeout(SOON).expect("it ends");
            assert_eq!(before, after);
        }
        assert_eq!(place(), places_of_others());
    }

    #[test]
    fn one_that_panics_is_counted_out() {
        let lanes = Lanes::begin(1).expect("threads");
        let (tell, told) = mpsc::channel::<()>();
        lanes.spawn(async move {
            let _tell = tell;
            panic!("of a connection");
        });
        told.recv_timeout(SOON).expect_err("it has ended");
        let (tell, told) = mpsc::channel();
        let load = Arc::clone(&lanes.lanes[0].load);
        lanes.spawn(async move {
            tell.send(load.load(Ordering::Relaxed))
                .expect("it is awaited");
        });
        assert_eq!(told.recv_timeout(SOON), Ok(1));
    }

    #[test]
    fn the_threads_end_with_the_last_handle() {
        let lanes = Lanes::begin(2).expect("threads");
        let (tell, told) = mpsc::channel::<()>();
        lanes.spawn(async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        });
        let other = lanes.clone();
        drop(lanes);
        assert_eq!(
            told.recv_timeout(Duration::ZERO),
            Err(mpsc::RecvTimeoutError::Timeout)
        );
        drop(other);
        assert_eq!(
            told.recv_timeout(SOON),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }

    fn places_of_others() -> usize {
        places() - 1
    }
}
