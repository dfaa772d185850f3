//! A client without conveniences, for what the specification says of single requests.

use oci::Digest;
use registry::Limits;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::server::Server;

/// A client without conveniences.
pub(crate) struct Raw {
    pub(crate) agent: Agent,
    pub(crate) server: Server,
}

impl Raw {
    pub(crate) fn start(limits: Limits) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0);
        Self {
            agent: config.build().new_agent(),
            server: Server::with(limits, |router| router),
        }
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Body> {
        let url = if path.starts_with("/v2/") {
            format!("http://{}{path}", self.server.address)
        } else {
            self.server.url(path)
        };
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        // "alice:correct horse"
        request = request.header("authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if matches!(method, "GET" | "HEAD" | "DELETE") {
            return self.agent.run(request.body(()).unwrap()).unwrap();
        }
        self.agent.run(request.body(body).unwrap()).unwrap()
    }

    pub(crate) fn begin(&self) -> String {
        let response = self.send("POST", "alice/app/blobs/uploads/", &[], b"");
        assert_eq!(response.status(), 202);
        header(&response, "location").to_owned()
    }

    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("alice/app/blobs/uploads/?digest={digest}");
        assert_eq!(self.send("POST", &path, &[], bytes).status(), 201);
        digest
    }
}

pub(crate) fn header<'r>(response: &'r Response<Body>, name: &str) -> &'r str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

pub(crate) fn code(mut response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let document: serde_json::Value = response.body_mut().read_json().unwrap();
    assert!(document["errors"][0]["message"].is_string());
    (
        status,
        document["errors"][0]["code"].as_str().unwrap().to_owned(),
    )
}
