//! An image of this machine's own `systemprompt`, pushed as any client would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use management_api::client::Client;
use oci::{
    BlobSource, ClientOptions, Credentials, Descriptor, Digest, DigestReader, ImageConfig,
    ImageManifest, ImagePush, Platform, RootFs, RunConfig, media_type,
};

const PROGRAM: &str = "/app/bin/systemprompt";

/// A layer on disk.
pub(super) struct Layer {
    path: PathBuf,
    descriptor: Descriptor,
}

/// Writes a layer of the program and the libraries that it needs.
pub(super) fn layer(program: &Path, folder: &Path) -> Layer {
    let path = folder.join("layer.tar");
    let mut tar = tar::Builder::new(File::create(&path).expect("create a layer"));
    tar.append_path_with_name(program, PROGRAM.trim_start_matches('/'))
        .expect("put the program into the layer");
    for library in libraries(program) {
        tar.append_path_with_name(&library, library.trim_start_matches('/'))
            .expect("put a library into the layer");
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o1777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    tar.append_data(&mut header, "tmp/", io::empty())
        .expect("put a folder into the layer");
    tar.finish().expect("finish the layer");
    let (digest, size) = measure(&path);
    Layer {
        path,
        descriptor: Descriptor::new(media_type::OCI_LAYER, digest, size),
    }
}

/// Pushes an image of the layer and answers the reference to deploy.
pub(super) fn push(
    client: &Client,
    tenant: &str,
    tag: &str,
    layer: &Layer,
    arguments: &[&str],
) -> String {
    let token = client.registry_token(tenant).expect("a registry token");
    let options = ClientOptions {
        credentials: Some(Credentials {
            username: token.username,
            password: token.token,
        }),
        ..ClientOptions::default()
    };
    let registry = oci::Client::new(&token.registry, options).expect("a registry client");
    let config = config(tag, layer, arguments).to_vec();
    let descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    let mut sources: BTreeMap<Digest, Box<dyn BlobSource>> = BTreeMap::new();
    sources.insert(descriptor.digest, Box::new(config));
    sources.insert(layer.descriptor.digest, Box::new(layer.path.clone()));
    let push = ImagePush {
        repository: &tenant.parse().expect("a repository"),
        manifest: &ImageManifest::new(descriptor, vec![layer.descriptor.clone()]),
        sources: &sources,
        tag: Some(&tag.parse().expect("a tag")),
        mount_from: &[],
        known: &oci::Known::new(),
        store: None,
        ahead: None,
    };
    oci::push_image(&registry, &push).expect("push an image");
    reference(client, tenant, tag)
}

/// The reference of a tag in the platform's own registry.
pub(super) fn reference(client: &Client, tenant: &str, tag: &str) -> String {
    let host = client.base_url().trim_start_matches("http://");
    format!("{host}/{tenant}:{tag}")
}

/// The tag goes into the environment, so that two tags are two images.
fn config(tag: &str, layer: &Layer, arguments: &[&str]) -> ImageConfig {
    let platform = Platform::host();
    let entrypoint = [&[PROGRAM], arguments].concat();
    ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        config: RunConfig {
            env: vec![format!("IMAGE={tag}")],
            entrypoint: Some(entrypoint.iter().map(|&part| part.to_owned()).collect()),
            ..RunConfig::default()
        },
        rootfs: RootFs {
            diff_ids: vec![layer.descriptor.digest],
            ..RootFs::default()
        },
        ..ImageConfig::default()
    }
}

/// What `ldd` says that the program loads, the loader included.
fn libraries(program: &Path) -> BTreeSet<String> {
    let output = Command::new("ldd").arg(program).output().expect("run ldd");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/') && Path::new(word).is_file())
        .map(str::to_owned)
        .collect()
}

fn measure(path: &Path) -> (Digest, u64) {
    let file = File::open(path).expect("open the layer");
    let mut reader = DigestReader::new(file);
    let size = io::copy(&mut reader, &mut io::sink()).expect("read the layer");
    (reader.finish().0, size)
}
