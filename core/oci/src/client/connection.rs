//! Connections that hear a refusal.
//!
//! A body that waits for a word to go on (`Expect: 100-continue`) may get its final answer instead:
//! 401 or 413 for instance. The HTTP library reads that answer while it waits for the word, and then
//! looks at it only once more input comes, if nothing has been consumed on the connection before. On
//! a new connection that the server keeps open, that is never, and the request ends in a time-out.
//! (ureq 3.5; what is used of it here is outside its promise of compatibility, and a test of the
//! registry's tells whether it is still needed and still does its work.)

use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector, Transport};

/// The last link of a chain of connectors: hands connections on as used ones.
#[derive(Debug)]
pub(super) struct Hearing;

impl<In: Transport> Connector<In> for Hearing {
    type Out = In;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<In>, Error> {
        Ok(chained.map(|mut transport| {
            let buffers = transport.buffers();
            if let Some(first) = buffers.input_append_buf().first_mut() {
                // A byte that nobody sees: in, and out again.
                *first = 0;
                buffers.input_appended(1);
                buffers.input_consume(1);
            }
            transport
        }))
    }
}
