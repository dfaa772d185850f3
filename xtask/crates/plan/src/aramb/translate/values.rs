//! Values of variables: references replaced by those of the platform, secrets by their names.
//!
//! What other variables hold is put in here. Addresses become `${services.NAME.OUTPUT}`, which the platform replaces when an
//! instance is started: it alone knows them, and they may stand in circles. Whatever is or holds a secret becomes
//! `${secrets.NAME}`, and the secret itself goes another way. The platform looks at nothing that it puts in, so what only looks
//! like a reference to it is kept as a secret too, and comes out as it is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use super::{Fault, Names};
use crate::aramb::{ArambFile, Id, OutputName, Reference, ServiceType, Target, references};

/// The longest value: variables that hold each other twice double with every step.
const LONGEST: usize = 64 * 1024;
/// The most variables that hold each other in a row.
const DEEPEST: usize = 64;
/// The most references behind one value.
const MOST: usize = 10_000;
/// What the platform replaces.
const SPECIAL: [&str; 2] = ["${services.", "${secrets."];

/// A piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hidden {
        text: String,
        /// The secret that it is, whole.
        of: Option<(usize, String)>,
    },
    Address(usize, Address),
    /// In the platform's words.
    Done(String),
}

/// What may be asked of a service that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Public,
    Internal,
    Port,
}

/// What values are translated with.
pub(super) struct Values<'a> {
    pub(super) file: &'a ArambFile,
    pub(super) names: &'a Names,
    positions: HashMap<Id, usize>,
    /// The services of the release.
    services: &'a BTreeSet<usize>,
    /// Those that listen.
    pub(super) listening: &'a BTreeSet<usize>,
    images: &'a BTreeMap<usize, String>,
    left: usize,
    /// Secrets that the tenant has to have, by their names.
    pub(super) secrets: BTreeMap<String, String>,
}

impl<'a> Values<'a> {
    pub(super) fn new(
        file: &'a ArambFile,
        names: &'a Names,
        services: &'a BTreeSet<usize>,
        listening: &'a BTreeSet<usize>,
        images: &'a BTreeMap<usize, String>,
    ) -> Self {
        Self {
            file,
            names,
            positions: crate::aramb::graph::positions(&file.services),
            services,
            listening,
            images,
            left: MOST,
            secrets: BTreeMap::new(),
        }
    }

    /// The value of the variable or secret `key` of a service, as the platform takes it.
    pub(super) fn value(
        &mut self,
        owner: usize,
        key: &str,
        text: &str,
        is_secret: bool,
    ) -> Result<String, Fault> {
        let place = format!("{key} of `{}`", self.names.said(owner));
        self.left = MOST;
        let mut pieces = Vec::new();
        let expanded = self.expand(text, is_secret, 0, &mut pieces);
        expanded.map_err(|what| refused(&place, &what))?;
        if is_secret && let [Piece::Hidden { of, .. }] = &mut pieces[..] {
            of.get_or_insert_with(|| (owner, key.to_owned()));
        }
        self.place_addresses(key, &mut pieces)
            .map_err(|what| refused(&place, &what))?;
        Ok(self.whole(owner, key, pieces))
    }

    /// A text without secrets and addresses: an image, a command.
    pub(super) fn plain(&mut self, owner: usize, key: &str, text: &str) -> Result<String, Fault> {
        let place = format!("`{key}` of `{}`", self.names.said(owner));
        self.left = MOST;
        let mut pieces = Vec::new();
        self.expand(text, false, 0, &mut pieces)
            .map_err(|what| refused(&place, &what))?;
        match &mut pieces[..] {
            [] => Ok(String::new()),
            [Piece::Text(text)] => Ok(mem::take(text)),
            _ => Err(Fault::new(
                "reference_not_offered",
                format!("{place} holds a secret or an address, which are known to instances alone"),
                "put it into a variable, which a shell finds: cmd = \"server --database $DATABASE\"",
            )),
        }
    }

    fn expand(
        &mut self,
        text: &str,
        hidden: bool,
        depth: usize,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("goes through more than {DEEPEST} variables"));
        }
        let mut copied = 0;
        for reference in references(text).flatten() {
            self.left = self.left.checked_sub(1).ok_or_else(too_long)?;
            push(pieces, &text[copied..reference.range.start], hidden);
            copied = reference.range.end;
            self.refer(&reference, hidden, depth, pieces)?;
            if pieces.iter().map(length).sum::<usize>() > LONGEST {
                return Err(too_long());
            }
        }
        push(pieces, &text[copied..], hidden);
        Ok(())
    }

    fn refer(
        &mut self,
        reference: &Reference,
        hidden: bool,
        depth: usize,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), String> {
        let id = reference.service;
        let position = self.positions.get(&id).copied();
        let position = position.ok_or_else(|| format!("names service {id}, which is not there"))?;
        let file = self.file;
        let service = &file.services[position];
        match &reference.target {
            Target::Output(OutputName::ImageUrl) => {
                let image = self.images.get(&position);
                let image = image.ok_or_else(|| {
                    let name = &service.name;
                    format!("holds the image of `{name}`, which is not built in this run")
                })?;
                push(pieces, image, hidden);
            }
            Target::Output(OutputName::PublicUrl) => {
                self.address(position, Address::Public, pieces)?;
            }
            Target::Output(OutputName::InternalUrl) => {
                self.address(position, Address::Internal, pieces)?;
            }
            // The platform chooses it.
            Target::Var(key) if key == super::PORT && self.listening.contains(&position) => {
                self.address(position, Address::Port, pieces)?;
            }
            Target::Var(key) => {
                let value = service
                    .var(key)
                    .ok_or_else(|| nothing(&service.name, key))?;
                self.expand(&value.text, hidden, depth + 1, pieces)?;
            }
            Target::Secret(key) => {
                let value = service.secret(key);
                let value = value.ok_or_else(|| nothing(&service.name, key))?;
                let mut inner = Vec::new();
                self.expand(&value.text, true, depth + 1, &mut inner)?;
                if let [Piece::Hidden { of, .. }] = &mut inner[..] {
                    of.get_or_insert_with(|| (position, key.clone()));
                }
                for piece in inner {
                    join(pieces, piece);
                }
            }
        }
        Ok(())
    }

    fn address(
        &self,
        position: usize,
        address: Address,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), String> {
        let service = &self.file.services[position];
        let name = &service.name;
        if service.kind == ServiceType::Build {
            return Err(format!("holds an address of `{name}`, which does not run"));
        }
        if !self.services.contains(&position) {
            return Err(format!(
                "holds an address of `{name}`, which neither runs nor is deployed"
            ));
        }
        if self.services.len() == 1 {
            return Err(format!(
                "holds an address of `{name}` itself: where one service is deployed alone, the platform tells it none"
            ));
        }
        if address == Address::Public && service.settings.public_net != Some(true) {
            return Err(format!(
                "holds the public URL of `{name}`, which has no `publicNet = true`"
            ));
        }
        if !self.listening.contains(&position) {
            return Err(format!(
                "holds an address of `{name}`, which has no `commandPort`"
            ));
        }
        pieces.push(Piece::Address(position, address));
        Ok(())
    }

    /// Says addresses in the platform's words, as what is around them needs them: a URL within a URL is a host and a port.
    fn place_addresses(&self, key: &str, pieces: &mut [Piece]) -> Result<(), String> {
        let is_alone = pieces.len() == 1;
        for at in 0..pieces.len() {
            let Piece::Address(position, address) = pieces[at] else {
                continue;
            };
            let (before, rest) = pieces.split_at_mut(at);
            let before = before.last_mut();
            let after = rest.get_mut(1);
            let name = self.names.on_platform(position);
            let output = |output: &str| format!("${{services.{name}.{output}}}");
            let host = output("INTERNAL_HOST");
            let with_port = format!("{host}:{}", output("INTERNAL_PORT"));
            let begin = before.as_deref().map_or("", text);
            let in_url = begin.ends_with("://") || begin.ends_with('@');
            let port = after.as_deref().map_or(0, |after| port(text(after)));
            let words = match address {
                Address::Port => output("INTERNAL_PORT"),
                Address::Internal if in_url || port > 0 => {
                    cut_begin(after, port);
                    with_port
                }
                Address::Internal if is_alone && names_a_host(key) => host,
                Address::Internal => {
                    self.internal(position, is_alone, output("INTERNAL_URL"), &with_port)
                }
                Address::Public => {
                    let scheme = ["https://", "http://"];
                    let scheme = scheme.into_iter().find(|scheme| begin.ends_with(scheme));
                    if in_url && scheme.is_none() {
                        let name = self.names.said(position);
                        return Err(format!(
                            "holds the public URL of `{name}` inside of another URL, and it has a scheme of its own"
                        ));
                    }
                    cut_end(before, scheme.map_or(0, str::len));
                    cut_begin(after, port);
                    output("PUBLIC_URL")
                }
            };
            pieces[at] = Piece::Done(words);
        }
        Ok(())
    }

    /// The URL of a database says which one it is: its clients ask for that.
    fn internal(&self, position: usize, is_alone: bool, url: String, with_port: &str) -> String {
        let scheme = match self.file.services[position].kind {
            ServiceType::Postgres => "postgres",
            ServiceType::Redis => "redis",
            ServiceType::Mongodb => "mongodb",
            _ => return url,
        };
        if is_alone {
            format!("{scheme}://{with_port}")
        } else {
            with_port.to_owned()
        }
    }

    /// The pieces as one text; secrets are kept, and named in it.
    fn whole(&mut self, owner: usize, key: &str, pieces: Vec<Piece>) -> String {
        let mut whole = String::new();
        let mut part = 0;
        for piece in pieces {
            let (text, of) = match piece {
                Piece::Text(text) if !SPECIAL.iter().any(|special| text.contains(special)) => {
                    whole.push_str(&text);
                    continue;
                }
                Piece::Done(words) => {
                    whole.push_str(&words);
                    continue;
                }
                Piece::Text(text) => (text, None),
                Piece::Hidden { text, of } => (text, of),
                Piece::Address(..) => continue,
            };
            // What everybody knows is no secret, and would be hidden wherever it stands.
            if of.is_none() && is_scheme(&text) {
                whole.push_str(&text);
                continue;
            }
            if text.is_empty() {
                continue;
            }
            let name = of.map_or_else(
                || {
                    // No name of a variable begins with a digit.
                    part += 1;
                    format!("{}__{part}__{key}", self.prefix(owner))
                },
                |(owner, key)| format!("{}__{key}", self.prefix(owner)),
            );
            whole.extend(["${secrets.", &name, "}"]);
            self.secrets.insert(name, text);
        }
        whole
    }

    /// What begins the names of a service's secrets. No name of a service has two dashes in a row.
    fn prefix(&self, position: usize) -> String {
        let name = self.names.fitting(position);
        name.to_ascii_uppercase().replace('-', "_")
    }
}

fn refused(place: &str, what: &str) -> Fault {
    Fault::new(
        "reference_not_offered",
        format!("{place} {what}"),
        "correct the reference: docs/guides/aramb.md says what there is",
    )
}

fn nothing(service: &str, key: &str) -> String {
    format!("names {key} of `{service}`, which has none")
}

fn too_long() -> String {
    format!("becomes longer than {LONGEST} bytes")
}

/// `postgres://`
fn is_scheme(text: &str) -> bool {
    let of_scheme = |c: char| c.is_ascii_lowercase() || "+-.".contains(c);
    text.strip_suffix("://")
        .is_some_and(|name| name.chars().all(of_scheme))
}

/// `DB_HOST` and the like.
fn names_a_host(key: &str) -> bool {
    let key = key.to_ascii_uppercase();
    ["HOST", "HOSTNAME", "SERVER"]
        .iter()
        .any(|word| key == *word || key.ends_with(&format!("_{word}")))
}

fn length(piece: &Piece) -> usize {
    match piece {
        Piece::Text(text) | Piece::Hidden { text, .. } | Piece::Done(text) => text.len(),
        Piece::Address(..) => 1,
    }
}

/// Of what is no text, the last place tells nothing.
fn text(piece: &Piece) -> &str {
    match piece {
        Piece::Text(text) | Piece::Hidden { text, .. } => text,
        Piece::Address(..) | Piece::Done(_) => "",
    }
}

/// How long the port is that a text begins with, its colon included.
fn port(text: &str) -> usize {
    let digits = text.strip_prefix(':').map_or(0, |rest| {
        rest.bytes().take_while(u8::is_ascii_digit).count()
    });
    if digits == 0 { 0 } else { digits + 1 }
}

fn cut_begin(piece: Option<&mut Piece>, count: usize) {
    cut(piece, |text| drop(text.drain(..count)), count);
}

fn cut_end(piece: Option<&mut Piece>, count: usize) {
    cut(piece, |text| text.truncate(text.len() - count), count);
}

/// Part of a secret is another secret.
fn cut(piece: Option<&mut Piece>, change: impl FnOnce(&mut String), count: usize) {
    let Some(piece) = piece.filter(|_| count > 0) else {
        return;
    };
    match piece {
        Piece::Text(text) => change(text),
        Piece::Hidden { text, of } => {
            change(text);
            *of = None;
        }
        Piece::Address(..) | Piece::Done(_) => {}
    }
}

fn push(pieces: &mut Vec<Piece>, text: &str, hidden: bool) {
    if text.is_empty() {
        return;
    }
    let text = text.to_owned();
    join(
        pieces,
        if hidden {
            Piece::Hidden { text, of: None }
        } else {
            Piece::Text(text)
        },
    );
}

/// Behind the others; what is of one kind becomes one piece.
fn join(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (Some(Piece::Text(last)), Piece::Text(text)) => last.push_str(&text),
        (Some(Piece::Hidden { text: last, of }), Piece::Hidden { text, .. }) => {
            last.push_str(&text);
            *of = None;
        }
        (_, piece) => pieces.push(piece),
    }
}
