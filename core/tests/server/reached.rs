//! Tenants whose URLs are others than the addresses that the server listens on.

use crate::harness::{Server, agent};
use crate::image::push;

/// What the application finds in a header of a request with these fields.
fn told(url: &str, header: &str) -> String {
    let request = agent()
        .get(format!("{url}/header/{header}"))
        .header("x-forwarded-for", "192.0.2.7")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example.com");
    let mut answer = request.call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn everybody_is_told_the_url_of_the_settings_and_the_proxy_in_front_is_believed() {
    // Where the name leads.
    let server = Server::start_at(
        "127.0.0.1",
        "[tenants]\nurl = \"http://localhost:{port}\"\nbehind_proxy = true\n",
    );
    push(&server, "local", "one", &[("VERSION", "one")]);
    let deployment = server.deploy_and_wait("one");
    let url = server.app_url();
    assert!(url.starts_with("http://localhost:"), "{url}");
    assert_eq!(deployment.app_url.as_deref(), Some(&*url));
    let tenants = server.client().tenants().unwrap();
    assert_eq!(tenants[0].app_url.as_deref(), Some(&*url));
    let own = agent().get(format!("{url}/env/PUBLIC_URL")).call();
    let own = own.unwrap().body_mut().read_to_string().unwrap();
    assert_eq!(own, url);

    assert_eq!(told(&url, "x-forwarded-for"), "192.0.2.7, 127.0.0.1");
    assert_eq!(told(&url, "x-forwarded-proto"), "https");
    assert_eq!(told(&url, "x-forwarded-host"), "shop.example.com");
}

#[test]
fn what_clients_claim_of_themselves_is_told_to_nobody_where_no_proxy_is_in_front() {
    let server = Server::start();
    push(&server, "local", "one", &[]);
    server.deploy_and_wait("one");
    let url = server.app_url();
    assert_eq!(told(&url, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(told(&url, "x-forwarded-proto"), "http");
}
