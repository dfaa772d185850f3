//! Making the folder of a server from a backup.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use oci::Digest;
use serde_json::json;

use super::make::discard;
use super::sink::{Checked, create, sync_all};
use super::{ABOUT, About, DATABASE, FORMAT, KEY, REGISTRY, SUMS, SUMS_LIMIT};
use crate::cli::RestoreArgs;
use crate::data_dir::{DataDir, RESTORE_PART};
use crate::standby;
use crate::store::{Action, Actor, DatabaseServer, Entry, Head, Snapshot, Store};
use crate::told;

/// Of the file that says what a backup is.
const ABOUT_LIMIT: u64 = 64 * 1024;

/// Reads everything, checks it and puts it in its place, the database last.
pub(crate) async fn restore(arguments: &RestoreArgs) -> anyhow::Result<()> {
    let data = &arguments.data;
    check_is_empty(data)?;
    let database = arguments.database.server()?;
    let shared = arguments.database.shared(data);
    if shared != data {
        check_is_empty(shared)?;
    }
    // Held until the end: no server begins on half a folder.
    let held = arguments.database.open(data)?;
    let part = shared.join(RESTORE_PART);
    let about = match unpack(&arguments.from, &part) {
        Ok(about) => about,
        Err(error) => {
            discard(&part);
            return Err(error.context(format!("cannot restore {}", arguments.from.display())));
        }
    };
    if let Err(error) = take_over(&part, &about).await {
        discard(&part);
        return Err(error.context("the database of the backup is not usable"));
    }
    sync_all(&part)?;
    match database {
        None => move_into(&part, data)?,
        Some(database) => {
            let loaded = load(&database, &held, &part, shared).await;
            if loaded.is_err() {
                discard(&part);
            }
            loaded.context("cannot put the backup into the database")?;
        }
    }
    told::result(&format!(
        "restored what was backed up at {} (files: {})",
        about.made_at, about.files
    ));
    if !about.with_key {
        told::result(&format!(
            "the key of the secrets was not in it: put it at {}, or start the server with --secrets-key",
            shared.join(KEY).display()
        ));
    }
    told::result(&format!(
        "start it with: systemprompt serve --data {}",
        data.display()
    ));
    Ok(())
}

/// Images and key into their folder, and last the rows into a database that has none.
async fn load(
    database: &DatabaseServer,
    data: &DataDir,
    part: &Path,
    shared: &Path,
) -> anyhow::Result<()> {
    let (store, lead) = standby::connect_to_lead(database, data, "systemprompt restore").await?;
    let loaded = async {
        store.refuse_unless_empty().await?;
        let file = part.with_extension("db");
        fs::rename(part.join(DATABASE), &file)?;
        move_into(part, shared)?;
        store.fill_from(&file).await?;
        fs::remove_file(&file)?;
        Ok(())
    }
    .await;
    standby::give_back(&lead).await;
    loaded
}

fn check_is_empty(data: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("cannot list {}", data.display())),
    };
    for entry in entries {
        // A restoration that was refused leaves it.
        if !["lock", "server.id"].contains(&&*entry?.file_name().to_string_lossy()) {
            bail!("{} is not empty: restore into a new folder", data.display());
        }
    }
    Ok(())
}

/// Copies the backup's files; everything has to be there that it says it has.
fn unpack(from: &Path, part: &Path) -> anyhow::Result<About> {
    make_folder(part)?;
    let mut taken = Taken {
        part: part.to_owned(),
        files: 0,
        about: None,
        listed: Vec::new(),
        sums: BTreeSet::new(),
    };
    if from.is_dir() {
        taken.take_folder(from, Path::new(""))?;
    } else {
        taken.take_archive(File::open(from)?)?;
    }
    let about = taken
        .about
        .take()
        .with_context(|| format!("it has no {ABOUT}: it is no backup, or was cut off"))?;
    if about.format != FORMAT {
        bail!(
            "it has format {}, this program knows {FORMAT}: use a newer one",
            about.format
        );
    }
    if about.files != taken.files {
        bail!(
            "it had {} files when it was made, now {}",
            about.files,
            taken.files
        );
    }
    taken.check_sums(&about)?;
    Ok(about)
}

/// The files of a backup on their way.
struct Taken {
    part: PathBuf,
    files: u64,
    about: Option<About>,
    /// The list of digests that it came with.
    listed: Vec<u8>,
    /// The lines of that list, as it should be.
    sums: BTreeSet<String>,
}

impl Taken {
    fn check_sums(&self, about: &About) -> anyhow::Result<()> {
        let listed = std::str::from_utf8(&self.listed).ok();
        let listed = listed.filter(|text| Digest::of(text.as_bytes()) == about.sums);
        let listed = listed.with_context(|| format!("{SUMS} is damaged"))?;
        let listed: BTreeSet<&str> = listed.lines().collect();
        let taken: BTreeSet<&str> = self.sums.iter().map(String::as_str).collect();
        match listed.symmetric_difference(&taken).next() {
            None => Ok(()),
            Some(line) => {
                let place = line.split_once("  ").map_or(*line, |(_, place)| place);
                bail!("{place} is damaged, or not the one that was backed up")
            }
        }
    }

    fn take_archive(&mut self, file: File) -> anyhow::Result<()> {
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let place = entry.path()?.into_owned();
            if !entry.header().entry_type().is_file() {
                bail!("{} is no file", place.display());
            }
            self.take(&place, &mut entry)?;
        }
        Ok(())
    }

    fn take_folder(&mut self, from: &Path, within: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(from.join(within))? {
            let entry = entry?;
            let place = within.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.take_folder(from, &place)?;
            } else if kind.is_file() {
                self.take(&place, &mut File::open(entry.path())?)?;
            } else {
                bail!("{} is no file", place.display());
            }
        }
        Ok(())
    }

    fn take(&mut self, place: &Path, reader: &mut dyn Read) -> anyhow::Result<()> {
        if place == Path::new(ABOUT) {
            let text = reader.take(ABOUT_LIMIT);
            self.about = Some(serde_json::from_reader(text).context("it does not say what it is")?);
            return Ok(());
        }
        if place == Path::new(SUMS) {
            reader.take(SUMS_LIMIT).read_to_end(&mut self.listed)?;
            self.files += 1;
            return Ok(());
        }
        check_place(place)?;
        let path = self.part.join(place);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let mut reader = Checked::new(place, reader);
        let failed = || format!("cannot write {}", path.display());
        let mut file = create(&path).with_context(failed)?;
        io::copy(&mut reader, &mut file).with_context(failed)?;
        let sum = reader.finish()?;
        let line = format!("{}  {}", sum.hex(), place.display());
        self.sums.insert(line);
        self.files += 1;
        Ok(())
    }
}

/// Nothing but what a backup has, and nothing outside of the folder.
fn check_place(place: &Path) -> anyhow::Result<()> {
    let is_plain = place
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let is_known =
        place == Path::new(DATABASE) || place == Path::new(KEY) || place.starts_with(REGISTRY);
    if is_plain && is_known {
        return Ok(());
    }
    bail!("{} does not belong into a backup", place.display());
}

/// Brings the schema up to date, looks at the audit log and notes where the database comes from.
async fn take_over(part: &Path, about: &About) -> anyhow::Result<()> {
    // It has none where nothing was deployed yet.
    oci::Store::open(part.join(REGISTRY))?;
    let head: Head = about.audit.parse()?;
    if let Some(damage) = Snapshot::damage(&part.join(DATABASE))? {
        bail!("it is damaged: {damage}");
    }
    let store = Store::open(&part.join(DATABASE))?;
    store.check_chain(Some(head)).await?;
    let details =
        json!({ "made_at": about.made_at, "version": about.version, "audit": about.audit });
    let entry = Entry::of(Action::Restore, None, details);
    Ok(store.audit(&Actor::server(), entry).await?)
}

/// The database last: without it the folder is none of a server.
fn move_into(part: &Path, data: &Path) -> anyhow::Result<()> {
    let mut names: Vec<_> = fs::read_dir(part)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort_by_key(|name| name == DATABASE);
    for name in names {
        fs::rename(part.join(&name), data.join(&name))
            .with_context(|| format!("cannot move {}", Path::new(&name).display()))?;
    }
    fs::remove_dir(part)?;
    File::open(data)?.sync_all()?;
    Ok(())
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create {}", folder.display()))
}
