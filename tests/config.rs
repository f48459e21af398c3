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
        Kind::Hosts => (vec!["a:1,b:2".into(), "[::1]:9092".into()], vec!["".into(), "a".into(), "a:1,".into()]),
        Kind::TopicPart => (vec!["a".into(), "a.b_c-9".into()], vec!["".into(), "a b".into(), "a".repeat(101)]),
        Kind::Text => (vec!["a b".into()], vec!["".into(), "a".repeat(1_025)]),
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
fn kafka_is_set_by_its_own_variable_and_passes_properties_through() {
    let environment = [("KAFKA_BROKERS", "a:1,b:2")];
    assert_eq!(load(&[], &environment, "").unwrap().kafka.brokers.as_deref(), Some("a:1,b:2"));
    assert_eq!(
        load(&[], &environment, "[kafka]\nbrokers = \"c:3\"").unwrap().kafka.brokers.as_deref(),
        Some("a:1,b:2")
    );
    let stronger = [environment[0], ("ASSENT_KAFKA_BROKERS", "d:4")];
    assert_eq!(load(&[], &stronger, "").unwrap().kafka.brokers.as_deref(), Some("d:4"));
    assert_eq!(load(&[("kafka-brokers", "e:5")], &stronger, "").unwrap().kafka.brokers.as_deref(), Some("e:5"));
    assert!(load(&[], &[], "").unwrap().kafka.options([7; 16]).unwrap().is_none(), "without brokers it is off");
    check_error(load(&[], &[("KAFKA_BROKERS", "nowhere")], ""), &["kafka.brokers", "KAFKA_BROKERS", "must be"]);

    let file = "[kafka.properties]\n\"linger.ms\" = 50\nsocket.keepalive.enable = true\n";
    let options = load(&[], &environment, file).unwrap().kafka.options([7; 16]).unwrap().expect("it is on");
    let given =
        |name: &str| options.properties.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str());
    assert_eq!((given("linger.ms"), given("socket.keepalive.enable")), (Some("50"), Some("true")));
    let refused = |line: &str, says: &[&str]| check_error(load(&[], &[], &format!("[kafka.properties]\n{line}")), says);
    refused("\"transactional.id\" = \"x\"", &["kafka.properties", "transactional.id", "deployment"]);
    refused("acks = 1", &["acks", "exactly once"]);
    refused("\"security.protocol\" = \"ssl\"", &["security.protocol", "kafka.security"]);
}

#[test]
fn kafka_security_is_checked_as_a_whole() {
    let sasl = [("kafka-security", "sasl_plaintext"), ("kafka-sasl-username", "me")];
    check_error(load(&sasl[..1], &[], ""), &["kafka.sasl_username"]);
    check_error(load(&sasl, &[], ""), &["kafka.sasl_password_file"]);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("password");
    let whole = [sasl[0], sasl[1], ("kafka-sasl-password-file", path.to_str().unwrap()), ("kafka-brokers", "a:1")];
    let kafka = load(&whole, &[], "").unwrap().kafka;
    let missing = kafka.options([7; 16]).expect_err("there is no such file").to_string();
    assert!(missing.contains("kafka.sasl_password_file"), "{missing}");
    std::fs::write(&path, "secret\n").expect("it is ours");
    let options = kafka.options([7; 16]).unwrap().expect("it is on");
    assert!(options.properties.contains(&("sasl.password".into(), "secret".into())));
    assert!(!format!("{options:?}").contains("secret"), "a password is never shown");
    if cfg!(not(feature = "kafka-tls")) {
        check_error(load(&[("kafka-security", "ssl")], &[], ""), &["kafka.security", "kafka-tls"]);
        check_error(
            load(&[("kafka-sasl-mechanism", "SCRAM-SHA-256")], &[], ""),
            &["kafka.sasl_mechanism", "kafka-tls"],
        );
    }
}

#[test]
fn an_operator_is_warned() {
    let warned = |flags: &[(&str, &str)], environment: &[(&str, &str)], about: &str| {
        let warnings = load(flags, environment, "").unwrap().warnings;
        assert!(warnings.iter().any(|warning| warning.contains(about)), "{warnings:?} do not name {about}");
    };
    assert!(load(&[], &[], "").unwrap().warnings.is_empty());
    let sinks = [("KAFKA_BROKERS", "broker:9092"), ("DB_URL", "postgres://me@host/db")];
    assert!(load(&[], &sinks, "").unwrap().warnings.is_empty());
    warned(&[("durability", "memory")], &[], "--durability memory");
    warned(&[("grpc", "0.0.0.0:9004")], &[], "--grpc 0.0.0.0:9004");
    warned(&[("accept-clock", "true")], &[], "--accept-clock");
    let tls = [("grpc", "0.0.0.0:9004"), ("tls-cert", "a"), ("tls-key", "b")];
    assert!(load(&tls, &[], "").unwrap().warnings.is_empty(), "with TLS another address is no warning");
}
