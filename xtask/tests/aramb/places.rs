//! Where the file is, what kind of file it is, and that it stays so.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use testkit::aramb::{Generation, Mishap};
use testkit::process::eventually;

use crate::shop::{FILE, LIMIT, Shop, assert_failed};

/// It may hold secrets: who could not read it before cannot read it in between or afterwards.
#[test]
fn nobody_else_may_read_or_write_it_in_between() {
    for mode in [0o600, 0o640, 0o644] {
        let shop = Shop::new(Generation::Old);
        let file = shop.root().join("aramb.toml");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        // Somebody else's, where this is root's to say.
        let _ = chown(&file, Some(1234), Some(1234));
        let before = fs::metadata(&file).unwrap();
        let gate = shop.double.gate("deploy");
        shop.double.inject(&Mishap::at("deploy").waits_at(&gate));
        let running = shop.start(&[], &[]);
        assert!(eventually(LIMIT, || shop.double.calls_of("deploy").len() == 1));
        let facts = fs::metadata(&file).unwrap();
        assert_ne!(shop.file(), FILE);
        assert_eq!(facts.mode() & 0o7777, mode, "in between");
        shop.double.open(&gate);
        shop.keep(running.wait(LIMIT)).expect_success();
        let after = fs::metadata(&file).unwrap();
        assert_eq!(after.mode() & 0o7777, mode, "afterwards");
        for facts in [facts, after] {
            assert_eq!((facts.uid(), facts.gid()), (before.uid(), before.gid()));
        }
    }
}

#[test]
fn a_link_stays_a_link() {
    let shop = Shop::new(Generation::New);
    let (file, target) = (
        shop.root().join("aramb.toml"),
        shop.root().join("deploy/aramb.toml"),
    );
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::rename(&file, &target).unwrap();
    symlink("deploy/aramb.toml", &file).unwrap();
    shop.write("deploy/backend/Dockerfile", "FROM scratch\n");
    shop.deploy(&[]).expect_success();
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), FILE);
    let given = shop.double.given();
    let given = given
        .iter()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let image = shop.image("backend-build");
    assert!(
        given.clone().all(|text| text.contains(&image)),
        "{:?}",
        given.collect::<Vec<_>>()
    );
}

/// The command reads `aramb.toml` and nothing else: it would deploy another file than the one that was named.
#[test]
fn a_file_of_another_name_is_refused_before_anything_is_built() {
    let shop = Shop::new(Generation::Old);
    shop.write("shop.toml", FILE.replace("npm start", "npm run other"));
    let told = shop.deploy(&["--config", "shop.toml"]);
    let error = "shop.toml is not called aramb.toml";
    assert_failed(&told, error, "1 - Read aramb.toml");
    assert_eq!(shop.double.calls_of("build"), []);
    assert_eq!(shop.double.calls_of("deploy"), []);
}

/// The file is kept there before it is replaced.
#[test]
fn where_nothing_can_be_kept_nothing_is_replaced() {
    let shop = Shop::new(Generation::Old);
    shop.write(".git/systemprompt", "a file, where a folder is to be");
    let told = shop.deploy(&[]);
    assert_failed(
        &told,
        "Failed to update aramb.toml",
        "7 - Update aramb.toml",
    );
    assert_eq!(shop.double.calls_of("build"), []);
    assert_eq!(shop.file(), FILE);
    // Without images nothing has to be.
    shop.deploy(&["--services", "postgres-db"]).expect_success();
}

#[test]
fn it_may_be_below_the_repository_or_in_a_work_tree() {
    let shop = Shop::new(Generation::Old);
    shop.write("apps/shop/backend/Dockerfile", "FROM scratch\n");
    shop.write("apps/shop/aramb.toml", FILE);
    shop.commit("below");
    shop.git(&["worktree", "add", "-q", "../tree"]);
    let tree = shop
        .root()
        .join("../tree/apps/shop")
        .canonicalize()
        .unwrap();
    for folder in [shop.root().join("apps/shop"), tree] {
        shop.double.forget();
        shop.deploy_from(&folder, &[], &["deploy"]).expect_success();
        let deployed = shop.double.calls_of("deploy");
        assert_eq!(deployed.len(), 1);
        assert_eq!(deployed[0].folder, folder);
        assert_eq!(fs::read_to_string(folder.join("aramb.toml")).unwrap(), FILE);
        assert_eq!(shop.git(&["status", "--porcelain"]).stdout, "");
    }
}

/// A hook is told of its repository by variables, relative to a folder that is not ours.
#[test]
fn a_hook_of_git_deploys_what_is_in_the_folder() {
    let shop = Shop::new(Generation::Old);
    shop.git(&["init", "-q", "../other"]);
    let other = shop.root().join("../other/.git");
    for git in [".git", other.to_str().unwrap()] {
        let index = format!("{git}/index");
        let hook = [("GIT_DIR", git), ("GIT_INDEX_FILE", &index)];
        shop.deploy_with(&["--require-clean"], &hook)
            .expect_success();
        let given = shop.double.given().pop().unwrap();
        assert!(String::from_utf8_lossy(&given).contains(&shop.image("backend-build")));
    }
    assert!(!other.join("systemprompt").exists());
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let shop = Shop::new(Generation::Old);
    let pipe = shop.root().join("pipe/aramb.toml");
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    let mode = nix::sys::stat::Mode::S_IRUSR;
    nix::unistd::mkfifo(&pipe, mode).unwrap();
    for path in ["pipe/aramb.toml", "backend", "/dev/zero"] {
        let told = shop.deploy(&["--config", path]);
        let details = assert_failed(&told, "aramb.toml cannot be read", "1 - Read aramb.toml");
        assert!(details.contains("it is not a file"), "{told}");
    }
}

/// Where there is no repository nothing is made to say what would be done, and what is made is not for one that comes later.
#[test]
fn without_a_repository_nothing_is_in_the_way_of_one() {
    let shop = Shop::without_git(Generation::Old, FILE);
    shop.deploy(&["--services", "postgres-db", "--dry-run"])
        .expect_success();
    assert!(!shop.root().join(".systemprompt").exists());
    shop.deploy(&["--services", "postgres-db"]).expect_success();
    shop.git(&["init", "-q"]);
    shop.commit("begin");
    let tracked = shop.git(&["ls-files"]).stdout;
    assert_eq!(tracked, "aramb.toml\nbackend/Dockerfile\n");
}
