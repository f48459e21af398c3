//! `assent` says what it does, ends with the right exit code, and the README's tables are its own.

use crate::support::{folder, run};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

fn readme() -> String {
    std::fs::read_to_string(README).expect("there is a README")
}

#[test]
fn help_teaches() {
    let folder = folder();
    let said = run(folder.path(), &["--help"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in ["serve", "doctor", "journal", "Try it:", "Exit codes:"] {
        assert!(said.stdout.contains(part), "no {part:?} in\n{}", said.stdout);
    }
    let said = run(folder.path(), &["serve", "--help"], &[]);
    for setting in assent::config::SETTINGS {
        assert!(said.stdout.contains(&format!("--{}", setting.flag)), "no --{} in the help", setting.flag);
    }
    assert_eq!(run(folder.path(), &["--version"], &[]).stdout.trim(), concat!("assent ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2_and_names_what_is_wrong() {
    let folder = folder();
    let check = |arguments: &[&str], environment: &[(&str, &str)], part: &str| {
        let said = run(folder.path(), arguments, environment);
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        assert!(said.stderr.contains(part), "{arguments:?} does not say {part:?}: {}", said.stderr);
    };
    check(&["frobnicate"], &[], "frobnicate");
    check(&["serve", "--frob"], &[], "--frob");
    check(&["--shards", "0"], &[], "flag --shards");
    check(&["serve", "--shards"], &[], "--shards");
    check(&["serve"], &[("ASSENT_SHRADS", "1")], "ASSENT_SHRADS");
    check(&["serve"], &[("ASSENT_SHARDS", "99")], "environment ASSENT_SHARDS");
    check(&["doctor", "--config", "missing.toml"], &[], "missing.toml");
}

#[test]
fn doctor_says_what_each_finding_means() {
    let folder = folder();
    let said = run(folder.path(), &["doctor", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    let findings = report["findings"].as_array().expect("a list");
    let names: Vec<_> = findings.iter().map(|finding| finding["name"].as_str().expect("a name")).collect();
    for name in ["kernel", "io_uring", "memlock", "disk sync", "direct I/O", "open files", "clock", "grpc port"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for finding in findings {
        let bad = finding["level"] != "ok";
        assert_eq!(bad, finding["advice"].is_string(), "what is not ok comes with advice: {finding}");
    }
    assert_eq!(said.code, Some(if report["worst"] == "fail" { 1 } else { 0 }));
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "it leaves nothing behind");
}

#[test]
fn doctor_fails_on_a_port_in_use() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let said = run(folder.path(), &["doctor", "--grpc", &address], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains(&format!("{address} is in use")), "{}", said.stdout);
}

/// The README holds what the program prints. After a change:
/// `UPDATE_README=1 cargo test --test promises readme` writes it again.
#[test]
fn the_readme_shows_the_settings_and_metrics_of_this_build() {
    for (name, table) in [("settings", assent::config::markdown()), ("metrics", assent::metrics::table::markdown())] {
        let text = readme();
        let (head, rest) = text.split_once(&format!("<!-- {name}: ")).expect("the place is marked");
        let (mark, rest) = rest.split_once('\n').expect("the mark is a line");
        let (shown, tail) = rest.split_once(&format!("<!-- end of {name} -->")).expect("its end is marked");
        if std::env::var_os("UPDATE_README").is_some() {
            let text = format!("{head}<!-- {name}: {mark}\n{table}<!-- end of {name} -->{tail}");
            std::fs::write(README, text).expect("the repository can be written");
        } else {
            assert!(shown == table, "README.md shows other {name}; write them with UPDATE_README=1 (see the test)");
        }
    }
}
