//! Every setting can come from flag, variable or file; the strongest wins, and a bad one is named.

use assent::config::{Config, Durability, Io, Kind, Machine, SETTINGS, Setting, Sources};
use std::path::PathBuf;

const MACHINE: Machine = Machine { memory_bytes: 8 << 30, cores: 4 };

fn sources(flags: &[(&str, &str)], environment: &[(&str, &str)], file: Option<PathBuf>) -> Sources {
    let owned =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Sources { flags: owned(flags), environment: owned(environment), file, machine: MACHINE }
}

/// Loads with a file of this text.
fn load(flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("assent.toml");
    std::fs::write(&path, file).expect("it is ours");
    Config::load(&sources(flags, environment, Some(path))).map_err(|error| error.to_string())
}

fn check_error(loaded: Result<Config, String>, says: &[&str]) {
    let error = loaded.expect_err("this must not load");
    says.iter().for_each(|part| assert!(error.contains(part), "{error:?} does not say {part:?}"));
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let file = "[shard]\ncount = 2\n";
    assert_eq!(load(&[], &[], "").unwrap().shard.count, 1);
    assert_eq!(load(&[], &[], file).unwrap().shard.count, 2);
    assert_eq!(load(&[], &[("ASSENT_SHARDS", "3")], file).unwrap().shard.count, 3);
    assert_eq!(load(&[("shards", "4")], &[("ASSENT_SHARDS", "3")], file).unwrap().shard.count, 4);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("named.toml");
    std::fs::write(&path, "durability = \"memory\"").expect("it is ours");
    let environment = [("ASSENT_CONFIG", path.to_str().unwrap())];
    assert_eq!(Config::load(&sources(&[], &environment, None)).unwrap().durability, Durability::Memory);
}

#[test]
fn a_whole_file_is_read() {
    let config = load(
        &[],
        &[],
        r#"
        data = "/somewhere"
        io = "posix"
        accept_clock = true
        [grpc]
        addr = "[::1]:1234"
        worker_threads = 3
        [limits]
        content_bytes_max = "1 MiB"
        approvals_max = 1000
        [journal]
        segment_bytes = 134217728
        "#,
    )
    .unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/somewhere"));
    assert_eq!((config.io, config.accept_clock), (Io::Posix, true));
    assert_eq!(config.grpc_addr, "[::1]:1234".parse().unwrap());
    assert_eq!(config.grpc.worker_threads, 3);
    assert_eq!((config.limits.content_bytes_max, config.limits.approvals_max), (1 << 20, 1_000));
    assert_eq!(config.journal.segment_bytes, 128 << 20);
}

#[test]
fn unknown_names_are_errors_that_name_them() {
    check_error(load(&[], &[], "[shard]\ncuont = 2"), &["shard.cuont", "assent.toml"]);
    check_error(load(&[], &[], "[nothing]\nat_all = 2"), &["nothing.at_all"]);
    check_error(load(&[], &[("ASSENT_SHARD", "2")], ""), &["ASSENT_SHARD"]);
    check_error(load(&[("shard", "2")], &[], ""), &["--shard"]);
    check_error(load(&[], &[], "not toml"), &["assent.toml"]);
    check_error(load(&[], &[], "[limits]\napprovals_max = 1.5"), &["limits.approvals_max", "float"]);
    let missing = Config::load(&sources(&[], &[], Some("/no/such/file.toml".into())));
    check_error(missing.map_err(|error| error.to_string()), &["/no/such/file.toml", "cannot be read"]);
}

#[test]
fn what_clients_read_is_left_alone() {
    load(&[], &[("ASSENT_ENDPOINT", "http://127.0.0.1:1"), ("PATH", "/bin"), ("ASSENTED", "1")], "").unwrap();
}

/// Values just inside and just outside a setting's bound.
fn edges(setting: &Setting) -> (Vec<String>, Vec<String>) {
    let text = |numbers: &[Option<u64>]| numbers.iter().flatten().map(u64::to_string).collect::<Vec<_>>();
    match setting.kind {
        Kind::Number { min, max } | Kind::Seconds { min, max } | Kind::Bytes { min, max } => {
            let mut outside = text(&[min.checked_sub(1), Some(max + 1)]);
            outside.extend(["-1", "", "many", "1.5"].map(String::from));
            (text(&[Some(min), Some(max)]), outside)
        }
        Kind::PowerOfTwo { min, max } => {
            (text(&[Some(min), Some(max)]), text(&[Some(min / 2), Some(max * 2), Some(min + 1)]))
        }
        Kind::Switch => (vec!["true".into(), "off".into()], vec!["maybe".into(), "".into()]),
        Kind::Path => (vec!["some/where".into()], vec!["".into()]),
        Kind::Address => (vec!["127.0.0.1:0".into(), "[::]:65535".into()], vec!["localhost".into(), "1:2:3".into()]),
        Kind::Choice(choices) => (choices.iter().map(|choice| choice.to_string()).collect(), vec!["other".into()]),
    }
}

#[test]
fn every_setting_holds_its_bound_in_every_source() {
    for setting in SETTINGS {
        let (inside, outside) = edges(setting);
        for value in inside {
            // At its bound a setting may clash with another one; then that is what is said.
            if let Err(error) = load(&[(setting.flag, &value)], &[], "") {
                assert!(!error.contains("flag --"), "--{} {value}: {error}", setting.flag);
            }
        }
        for value in outside {
            let flag = format!("--{}", setting.flag);
            check_error(load(&[(setting.flag, &value)], &[], ""), &[setting.key, &flag, "must be"]);
            let variable = setting.variable();
            check_error(load(&[], &[(&variable, &value)], ""), &[setting.key, &variable, "must be"]);
            let (section, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
            let head = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
            let file = format!("{head}{name} = {value:?}\n");
            check_error(load(&[], &[], &file), &[setting.key, "assent.toml", "must be"]);
        }
    }
}

#[test]
fn names_are_unique_and_spelled_alike() {
    let mut seen = std::collections::HashSet::new();
    for setting in SETTINGS {
        assert!(
            seen.insert(setting.key) && seen.insert(setting.flag) || setting.key == setting.flag,
            "{}",
            setting.key
        );
        assert!(!setting.flag.contains('_') && !setting.key.contains('-'), "{}", setting.key);
        assert!(setting.help.len() <= 100, "{}: help is for one line", setting.key);
    }
}

#[test]
fn defaults_fit_small_and_large_machines() {
    for memory_bytes in [256 << 20, 1 << 30, 24 << 30, 4 << 40] {
        for cores in [1, 2, 1_024] {
            let machine = Machine { memory_bytes, cores };
            Config::load(&Sources { machine, ..sources(&[], &[], None) }).unwrap();
        }
    }
}

#[test]
fn settings_that_do_not_agree_are_refused() {
    check_error(load(&[("lifetime-default-seconds", "3000000")], &[], ""), &["lifetime_default", "lifetime_max"]);
    check_error(load(&[("message-bytes-max", "65536")], &[], ""), &["limits.message_bytes_max", "content_bytes_max"]);
    check_error(load(&[("segment-bytes", "1MiB")], &[], ""), &["journal.segment_bytes", "frame_bytes_max"]);
    check_error(load(&[("segment-bytes", "268435457")], &[], ""), &["journal.segment_bytes", "blocks"]);
    check_error(load(&[("folder-bytes-max", "1MiB")], &[], ""), &["journal.folder_bytes_max", "at least"]);
    check_error(load(&[("unacknowledged-max", "10")], &[], ""), &["unacknowledged_max", "batch_items_max"]);
    check_error(load(&[("grpc", "127.0.0.1:9003")], &[], ""), &["http.addr", "127.0.0.1:9003"]);
    check_error(load(&[("tls-cert", "a")], &[], ""), &["--tls-cert", "--tls-key"]);
    check_error(load(&[("tls-key", "a")], &[], ""), &["--tls-key", "--tls-cert"]);
    check_error(load(&[("tls-client-ca", "a")], &[], ""), &["--tls-client-ca", "--tls-cert"]);
}

#[test]
fn an_operator_is_warned() {
    let warned = |flags: &[(&str, &str)], environment: &[(&str, &str)], about: &str| {
        let warnings = load(flags, environment, "").unwrap().warnings;
        assert!(warnings.iter().any(|warning| warning.contains(about)), "{warnings:?} do not name {about}");
    };
    assert!(load(&[], &[], "").unwrap().warnings.is_empty());
    warned(&[], &[("KAFKA_BROKERS", "broker:9092")], "KAFKA_BROKERS");
    warned(&[], &[("DB_URL", "postgres://host/db")], "DB_URL");
    warned(&[("durability", "memory")], &[], "--durability memory");
    warned(&[("grpc", "0.0.0.0:9004")], &[], "--grpc 0.0.0.0:9004");
    warned(&[("accept-clock", "true")], &[], "--accept-clock");
    let tls = [("grpc", "0.0.0.0:9004"), ("tls-cert", "a"), ("tls-key", "b")];
    assert!(load(&tls, &[], "").unwrap().warnings.is_empty(), "with TLS another address is no warning");
}
