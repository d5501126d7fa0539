//! What cannot be opened is refused with words that help, and is not touched.

mod house;

use std::fs::{self, File};
use std::path::Path;

use house::{COMMAND_TIME_MAX, Device, FAILED, Outcome, bytes_of, finish, thence};

const SPACE: &str = "atlas";

/// A device with a space and an object, no node.
fn settled(name: &'static str) -> Device {
    let device = Device::new(name);
    device.ok(&["space", "create", SPACE]);
    device.ok(&["put", SPACE, "places", "fez", r#"{"people":1}"#]);
    device
}

/// Every way to open the store is refused and leaves it byte for byte as it is.
#[track_caller]
fn refused_and_untouched(device: &Device, words: &[&str]) {
    let before = bytes_of(&device.store());
    let key = fs::read(device.data().join("device.key")).ok();
    for arguments in [
        &["space", "list"][..],
        &["space", "create", "another"],
        &["get", SPACE, "places", "fez"],
        &["put", SPACE, "places", "fez", "{}"],
        &["export", SPACE],
        &["status"],
        &["sync"],
        &["node", "--listen", "127.0.0.1:0"],
    ] {
        let mut outcome = device.run(arguments).expect(FAILED);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        assert!(!outcome.stderr.contains("panicked"), "{arguments:?}: {}", outcome.stderr);
        for word in words {
            outcome = outcome.says(word);
        }
        device.run_json(arguments).expect(FAILED).error();
        assert!(bytes_of(&device.store()) == before, "{arguments:?} touched the store");
        assert!(fs::read(device.data().join("device.key")).ok() == key, "{arguments:?} touched the key");
    }
}

#[test]
fn the_store_of_another_device_is_refused() {
    let (a, b) = (settled("A"), settled("B"));
    let of_b = bytes_of(&b.store());
    fs::copy(a.store(), b.store()).expect("the file can be copied");
    refused_and_untouched(&b, &["device", "thence.redb"]);

    // With its own store back, B is itself again.
    fs::write(b.store(), of_b).expect("the file can be written");
    assert!(b.sees(SPACE, "places", "fez"));
}

#[test]
fn a_store_whose_key_is_gone_is_refused() {
    let device = settled("A");
    let key = device.data().join("device.key");
    let secret = bytes_of(&key);
    fs::remove_file(&key).expect("the key can be removed");
    refused_and_untouched(&device, &["device.key"]);
    assert!(!key.exists(), "no new identity takes its place");

    fs::write(&key, secret).expect("the key can be put back");
    assert!(device.sees(SPACE, "places", "fez"));
}

#[test]
fn a_damaged_key_is_refused() {
    let device = settled("A");
    let key = device.data().join("device.key");
    let secret = bytes_of(&key);
    for damaged in [&secret[..secret.len() / 2], b"", b"not a key at all, but long enough to be taken for one, perhaps"]
    {
        fs::write(&key, damaged).expect("the key can be written");
        refused_and_untouched(&device, &["device.key"]);
        device.run(&["id"]).expect(FAILED).says("device.key");
    }
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let device = settled("A");
    let good = bytes_of(&device.store());
    let mut other_magic = good.clone();
    other_magic[..4].copy_from_slice(b"nope");
    let noise: Vec<u8> = {
        let mut dice = house::Dice::new(3);
        (0..64 * 1024).map(|_| dice.below(256) as u8).collect()
    };
    let text = "a text that somebody saved under the wrong name\n".repeat(200).into_bytes();
    for garbage in [text, noise, other_magic, good[..100].to_vec(), b"x".to_vec()] {
        fs::write(device.store(), &garbage).expect("the file can be written");
        refused_and_untouched(&device, &["thence.redb"]);
    }
    fs::write(device.store(), &good).expect("the file can be written");
    assert!(device.sees(SPACE, "places", "fez"));
}

#[test]
fn a_store_in_use_is_waited_for_and_then_refused() {
    let device = settled("A");
    let before = bytes_of(&device.store());
    {
        let holder = File::options().read(true).write(true).open(device.store()).expect("the store is a file");
        holder.lock().expect("nobody else holds it");
        device.run(&["get", SPACE, "places", "fez"]).expect(FAILED).says("in use");
        device.run_json(&["node", "--listen", "127.0.0.1:0"]).expect(FAILED).error();
        drop(holder);
    }
    assert_eq!(bytes_of(&device.store()), before);
    assert!(device.sees(SPACE, "places", "fez"));
}

#[test]
fn a_second_node_in_the_same_folder_is_refused() {
    let device = settled("A");
    let node = device.start_node(&[]);
    device.run(&["node", "--listen", "127.0.0.1:0"]).expect(FAILED).says("running");
    device.run_json(&["node", "--listen", "127.0.0.1:0"]).expect(FAILED).error();
    assert!(device.sees(SPACE, "places", "fez"), "the first one goes on");
    node.terminate();
}

#[test]
fn what_a_killed_node_leaves_behind_is_in_nobodys_way() {
    let device = settled("A");
    for _ in 0..3 {
        device.start_node(&[]).kill();
        assert!(device.sees(SPACE, "places", "fez"), "without the node");
    }
    let node = device.start_node(&[]);
    assert!(device.sees(SPACE, "places", "fez"));
    node.terminate();
}

#[test]
fn an_address_in_use_is_refused() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    let node = a.start_node(&[]);
    let address = node.address().to_string();
    b.run(&["node", "--listen", &address]).expect(FAILED).says(&address);
}

/// Runs a command with this data folder.
fn in_folder(folder: &Path, arguments: &[&str]) -> Outcome {
    let mut command = thence();
    command.arg("--data").arg(folder).args(arguments);
    finish(command, COMMAND_TIME_MAX)
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let device = Device::blank("A");
    let file = device.beside("a-file");
    fs::write(&file, "in the way").expect("a file");
    for folder in [file.clone(), file.join("below-it")] {
        for arguments in [&["init"][..], &["node", "--listen", "127.0.0.1:0"], &["space", "create", SPACE]] {
            in_folder(&folder, arguments).expect(FAILED).says("a-file");
        }
    }
    assert_eq!(bytes_of(&file), b"in the way");
}

#[cfg(unix)]
#[test]
fn a_folder_without_write_permission_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let device = Device::blank("A");
    let folder = device.beside("locked");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).expect("it is ours");
    // The superuser may write everywhere; then there is nothing to refuse.
    if File::create(folder.join("probe")).is_err() {
        for arguments in [&["init"][..], &["node", "--listen", "127.0.0.1:0"]] {
            in_folder(&folder, arguments).expect(FAILED).says("locked");
        }
        assert_eq!(fs::read_dir(&folder).expect("readable").count(), 0);
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn a_damaged_config_file_is_refused_by_name() {
    let device = settled("A");
    let config = device.beside("thence.toml");
    let path = config.to_str().expect("UTF-8").to_owned();
    for damaged in ["listen = ", "listen = 7", "no-such-setting = true", "\u{0}\u{1}", "listen = \"nowhere\""] {
        fs::write(&config, damaged).expect("a config file");
        device.run(&["--config", &path, "node"]).refused().says("thence.toml");
        device.run_json(&["--config", &path, "node"]).error();
    }
    fs::write(&config, [0xFF, 0xFE, 0x00]).expect("a config file");
    device.run(&["--config", &path, "node"]).refused().says("thence.toml");
    fs::remove_file(&config).expect("it is ours");
    device.run(&["--config", &path, "node"]).refused().says("thence.toml");
}
