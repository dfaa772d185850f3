//! A Dockerfile and its context to an image in a registry, with nothing but these libraries; prints
//! what it took as JSON. `docs/tools/bench-image` measures with it.
//!
//! ```text
//! cargo run -p deploy-image --example push_image -- --context DIR --store DIR localhost:5000/app:1
//! ```
//!
//! A second run with the same store reads no file that has not changed and sends one request.
//! With `--registry-store DIR`, the store of a registry of ours on this machine, layers are made right there. With `--repositories 3` the image goes to `app`, `app-2` and `app-3`, the later ones by mount. A registry that asks for a
//! password gets it from `REGISTRY_USERNAME` and `REGISTRY_PASSWORD`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use deploy_image::{
    Cache, Compression, Context, Dockerfile, Ignore, Image, NoImages, Options, Toward,
    assemble_toward, plan,
};
use oci::{
    Ahead, BlobSource, Client, ClientOptions, Credentials, Descriptor, ImageManifest, ImagePush,
    Known, Reference, Repository, Store, Tag,
};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "push_image [--context DIR] [--dockerfile FILE] --store DIR [--gzip LEVEL] \
    [--registry-store DIR] [--repositories N] REGISTRY/REPOSITORY:TAG";

fn main() -> Result<(), Failure> {
    let begun = Instant::now();
    let job = Job::from_arguments(std::env::args().skip(1))?;
    let store = Store::open(job.store.join("oci"))?;
    let client = job.client()?;
    let ahead = Ahead::new(&client, job.repository.clone());
    let (image, assembled) = job.assemble(&store, &ahead)?;
    let pushes = job.push(&image, &client, &ahead)?;
    let report = json!({
        "digest": image.digest.to_string(),
        "assembled": assembled,
        "pushes": pushes,
        "seconds": begun.elapsed().as_secs_f64(),
        "peak_memory_bytes": peak_memory(),
    });
    #[expect(clippy::print_stdout, reason = "the report is this program's result")]
    {
        println!("{report}");
    }
    Ok(())
}

/// What to make and where it goes.
struct Job {
    context: PathBuf,
    dockerfile: PathBuf,
    store: PathBuf,
    compression: Compression,
    registry: String,
    repository: Repository,
    tag: Tag,
    repositories: usize,
    registry_store: Option<Store>,
}

impl Job {
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let (options, image) = read(arguments)?;
        let option = |name: &str| options.get(name).cloned();
        let context = PathBuf::from(option("--context").unwrap_or_else(|| ".".to_owned()));
        let image: Reference = image.ok_or(USAGE)?.parse()?;
        Ok(Self {
            dockerfile: option("--dockerfile")
                .map_or_else(|| context.join("Dockerfile"), PathBuf::from),
            context,
            store: option("--store").ok_or(USAGE)?.into(),
            compression: match option("--gzip") {
                Some(level) => Compression::Gzip(level.parse()?),
                None => Compression::None,
            },
            registry: image.registry().to_owned(),
            repository: image.repository().clone(),
            tag: image.tag().ok_or("the image needs a tag")?.clone(),
            repositories: option("--repositories").map_or(Ok(1), |count| count.parse())?,
            registry_store: match option("--registry-store") {
                Some(folder) => Some(Store::existing(folder).ok_or("there is no store")?),
                None => None,
            },
        })
    }

    fn client(&self) -> Result<Client, Failure> {
        let options = ClientOptions {
            credentials: credentials(),
            ..ClientOptions::default()
        };
        Ok(Client::new(&self.registry, options)?)
    }

    /// Dockerfile to image in the store; what has not changed since the last run is not read.
    fn assemble(&self, store: &Store, ahead: &Ahead<'_>) -> Result<(Image, Value), Failure> {
        let begun = Instant::now();
        let text = std::fs::read_to_string(&self.dockerfile)?;
        let dockerfile = Dockerfile::parse(&self.dockerfile.to_string_lossy(), &text)?;
        let ignore = Ignore::find(&self.context, &self.dockerfile)?;
        let context = Context::new(self.context.clone(), ignore);
        let options = Options {
            compression: self.compression,
            ..Options::default()
        };
        let planned = plan(&dockerfile, &context, &options, &NoImages)?;
        let mut cache = Cache::open(self.store.join("layers.json"));
        let send = |blob: &Descriptor, source: &dyn BlobSource| {
            let mut known = Known::new();
            known.produced(blob.digest);
            ahead.send(blob, source, &known);
        };
        let toward = match &self.registry_store {
            Some(registry) => Toward::Store(registry),
            None => Toward::Sender(&send),
        };
        let image = assemble_toward(&planned, store, toward, &mut cache)?;
        cache.save()?;
        let report = json!({
            "seconds": begun.elapsed().as_secs_f64(),
            "layers": image.layers.len(),
            "bytes": image.layers.iter().map(|layer| layer.size).sum::<u64>(),
            "layers_built": image.counters.layers_built,
            "layers_cached": image.counters.layers_cached,
            "bytes_read": image.counters.bytes_read,
        });
        Ok((image, report))
    }

    /// The image to every repository, one after the other, with one client as a server would.
    fn push(
        &self,
        image: &Image,
        client: &Client,
        ahead: &Ahead<'_>,
    ) -> Result<Vec<Value>, Failure> {
        let manifest = ImageManifest::from_slice(&image.manifest)?;
        let mut reports = Vec::new();
        for number in 1..=self.repositories {
            let begun = Instant::now();
            let repository = self.repository(number)?;
            let pushed = oci::push_image(
                client,
                &ImagePush {
                    repository: &repository,
                    manifest: &manifest,
                    sources: &image.sources,
                    tag: Some(&self.tag),
                    mount_from: &[],
                    known: &self.known(image, &manifest, number),
                    store: self.registry_store.as_ref(),
                    ahead: (number == 1).then_some(ahead),
                },
            )?;
            reports.push(json!({
                "repository": repository.to_string(),
                "seconds": begun.elapsed().as_secs_f64(),
                "requests": pushed.requests,
                "bytes_sent": pushed.bytes,
                "uploaded": pushed.uploaded,
                "existing": pushed.existing,
                "mounted": pushed.mounted,
                "placed": pushed.placed,
            }));
        }
        Ok(reports)
    }

    /// What the tool knows: which layers it has just made and, once pushed, where they are.
    fn known(&self, image: &Image, manifest: &ImageManifest, number: usize) -> Known {
        let mut known = Known::new();
        if number == 1 {
            let made = image.layers.iter().filter(|layer| !layer.cached);
            made.for_each(|layer| known.produced(layer.digest));
        } else {
            let blobs = manifest.blobs();
            blobs.for_each(|blob| known.held_by(blob.digest, self.repository.clone()));
        }
        known
    }

    fn repository(&self, number: usize) -> Result<Repository, Failure> {
        if number == 1 {
            return Ok(self.repository.clone());
        }
        Ok(format!("{}-{number}", self.repository).parse()?)
    }
}

/// Options by name, and the one word that is none.
fn read(
    mut arguments: impl Iterator<Item = String>,
) -> Result<(BTreeMap<String, String>, Option<String>), Failure> {
    const NAMES: [&str; 6] = [
        "--context",
        "--dockerfile",
        "--store",
        "--gzip",
        "--repositories",
        "--registry-store",
    ];
    let (mut options, mut image) = (BTreeMap::new(), None);
    while let Some(argument) = arguments.next() {
        if NAMES.contains(&argument.as_str()) {
            let value = arguments.next().ok_or(USAGE)?;
            options.insert(argument, value);
        } else if argument.starts_with('-') || image.is_some() {
            return Err(format!("{argument} is not understood; usage: {USAGE}").into());
        } else {
            image = Some(argument);
        }
    }
    Ok((options, image))
}

fn credentials() -> Option<Credentials> {
    Some(Credentials {
        username: std::env::var("REGISTRY_USERNAME").ok()?,
        password: std::env::var("REGISTRY_PASSWORD").ok()?.into(),
    })
}

/// The most memory this process has had, by the kernel's account (`proc(5)`, `VmHWM`).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}
