//! How a client calls this server: scheme and host, from the request itself, which is right behind port mappings and
//! proxies too.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};

/// Set by the listener where it has TLS, by a proxy in front where that has it.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Scheme and host of a request. What a client claims here is told to this very client only.
pub(crate) struct Origin<'a> {
    scheme: &'static str,
    host: Option<&'a str>,
}

impl<'a> Origin<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let https = headers
            .get(X_FORWARDED_PROTO)
            .is_some_and(|proto| proto == "https");
        let host = headers.get(header::HOST);
        Self {
            scheme: if https { "https" } else { "http" },
            host: host.and_then(|value| value.to_str().ok()).filter(|host| {
                host.parse::<Authority>()
                    .is_ok_and(|a| !a.as_str().contains('@'))
            }),
        }
    }

    /// `host[:port]`, if the client named one that can be.
    pub(crate) fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// An absolute URL of this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!(
            "{}://{}{path}",
            self.scheme,
            self.host.unwrap_or("localhost")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_the_one_that_the_client_uses() {
        for (host, proto, expected) in [
            ("r.io", None, "http://r.io/token"),
            (
                "127.0.0.1:5000",
                Some("http"),
                "http://127.0.0.1:5000/token",
            ),
            ("r.io:443", Some("https"), "https://r.io:443/token"),
            ("[::1]:5000", None, "http://[::1]:5000/token"),
            ("r.io\"", None, "http://localhost/token"),
            ("user@r.io", None, "http://localhost/token"),
            ("r.io/x", None, "http://localhost/token"),
            ("", None, "http://localhost/token"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(proto) = proto {
                headers.insert(X_FORWARDED_PROTO, proto.parse().unwrap());
            }
            assert_eq!(Origin::of(&headers).url("/token"), expected, "{host:?}");
        }
    }
}
