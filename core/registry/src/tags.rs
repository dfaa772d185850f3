//! The list of a repository's tags, in pages.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::dispatch::{Asked, json};
use crate::error::RegistryError;

/// The most tags in one answer; who wants more follows the link.
const PAGE: usize = 10_000;

#[derive(Serialize)]
struct TagList {
    name: String,
    tags: Vec<String>,
}

pub(crate) async fn list(asked: Asked) -> Result<Response, RegistryError> {
    let (count, last) = (page_length(&asked, PAGE)?, asked.parameter("last"));
    let tags = asked
        .blocking(|registry, repository| {
            if !registry.store.has_repository(repository) {
                return Err(RegistryError::NameUnknown);
            }
            Ok(registry.store.tags(repository)?)
        })
        .await?;
    let names = tags.iter().map(ToString::to_string);
    let (tags, more) = page(names, last.as_deref(), count);
    let next = tags
        .last()
        .filter(|_| more)
        .map(|last| (count, last.clone()));
    let list = TagList {
        name: asked.repository.to_string(),
        tags,
    };
    let mut response = json(StatusCode::OK, &list);
    if let Some((count, last)) = next {
        add_link(
            &mut response,
            &format!("{}/tags/list", asked.repository),
            count,
            &last,
        );
    }
    Ok(response)
}

/// `n` of the query, at most `limit`.
pub(crate) fn page_length(asked: &Asked, limit: usize) -> Result<usize, RegistryError> {
    match asked.parameter("n") {
        None => Ok(limit),
        Some(text) => match text.parse::<usize>() {
            Ok(count) => Ok(count.min(limit)),
            Err(_) => Err(RegistryError::PageInvalid),
        },
    }
}

/// At most `count` of the sorted names that come after `last`, and whether there are more.
pub(crate) fn page(
    names: impl Iterator<Item = String>,
    last: Option<&str>,
    count: usize,
) -> (Vec<String>, bool) {
    let mut rest = names.filter(|name| last.is_none_or(|last| name.as_str() > last));
    let page: Vec<String> = rest.by_ref().take(count).collect();
    (page, rest.next().is_some())
}

/// Says where the next page is.
pub(crate) fn add_link(response: &mut Response, path: &str, count: usize, last: &str) {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("n", &count.to_string())
        .append_pair("last", last);
    let link = format!("</v2/{path}?{}>; rel=\"next\"", query.finish());
    if let Ok(value) = HeaderValue::from_str(&link) {
        response.headers_mut().insert(header::LINK, value);
    }
}
