//! Who may import whom, and what is named only where it belongs.
//!
//! Reads `src/` as text: comments, strings and `#[cfg(test)]` modules are left out, then every path
//! that starts at `crate::` (or climbs there by `super::`) is held against the table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room and whom it may use. `*`: whatever it wires, except the rules.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("queue", &[]),
    ("journal", &[]),
    ("metrics", &[]),
    ("health", &[]),
    ("engine", &["model"]),
    ("wire", &["model"]),
    ("shard", &["model", "engine", "journal", "queue", "metrics", "health"]),
    ("grpc", &["model", "wire", "shard", "store", "webhooks", "metrics", "health"]),
    ("store", &["model", "metrics", "health"]),
    ("sinks", &["model", "wire", "shard", "store", "metrics", "health"]),
    ("webhooks", &["model", "wire", "store", "sinks", "metrics", "health"]),
    ("http", &["model", "shard", "store", "webhooks", "metrics", "health"]),
    ("load", &["model", "wire", "grpc::client", "webhooks"]),
    ("config", &["*"]),
    ("server", &["*"]),
    ("cli", &["*"]),
];

/// What rooms marked `*` must not know.
const THE_RULES: &str = "engine";

/// A word that may stand only in these rooms or files (paths below src/, a folder ends with /).
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("glommio", &["shard/", "journal/"], "glommio stands behind two seams: a shard's executor, a Storage"),
    (
        "tonic",
        // The generated code of wire names tonic, and the load generator has a codec of its own, so
        // that it can send bytes it encoded itself. Nobody else: the front can then be exchanged.
        &["grpc/", "wire/mod.rs", "load/"],
        "tonic belongs to grpc/, to the generated code in wire/mod.rs and to load's codec",
    ),
    ("axum", &["http/"], "HTTP belongs to http/"),
    (
        "SystemTime",
        &["shard/", "server.rs", "cli/", "load/"],
        "the wall clock is read by a shard (once a batch) and at the edges; everywhere else time is an argument",
    ),
    (
        "unsafe",
        &[
            "queue/",
            // Aligned memory, and calls to the kernel that have no safe form.
            "journal/buffer.rs",
            "journal/posix.rs",
            "journal/uring.rs",
            "engine/memory.rs",
            // A shard's eventfd, handed to glommio as a file.
            "shard/executor.rs",
            // The hot decoder.
            "wire/scan.rs",
            "wire/rows.rs",
            "wire/hex.rs",
            "cli/probe.rs",
        ],
        "unsafe lives in queue/, buffers and system calls of the journal, engine/memory.rs and the hot decoder",
    ),
];

/// A word that must not stand in a room: what it does not know.
const NOT_IN: &[(&str, &[&str], &str)] = &[
    (
        "engine",
        &["tokio", "glommio", "async", "await", "Instant", "SystemTime", "rand", "fs", "thread", "net"],
        "the engine is pure: no clock, randomness, async, files or threads",
    ),
    ("model", &["tokio", "async", "Instant", "SystemTime", "rand", "fs", "thread"], "the model is plain data"),
    ("wire", &["tokio", "glommio", "async", "net", "thread"], "wire knows no sockets and no runtimes"),
    (
        "shard",
        &["prost", "tonic", "axum", "tokio_postgres", "rdkafka"],
        "a shard knows no protobuf, HTTP, SQL or Kafka",
    ),
    ("queue", &["ApprovalId", "VoteCommand", "Event"], "queues know no votes"),
    ("journal", &["ApprovalId", "VoteCommand", "Voted", "tokio"], "the journal knows no votes and no tokio"),
    ("http", &["prost", "tonic"], "the window knows no gRPC"),
    ("store", &["rdkafka"], "the store knows no Kafka"),
];

/// One file: its path below src/, its room, and its code without comments, strings and tests.
struct Source {
    path: String,
    room: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&root).expect("it is below").to_string_lossy().replace('\\', "/");
        let room = path.split('/').next().expect("a first part").trim_end_matches(".rs").to_string();
        // A file of its own that holds tests only (`#[cfg(test)] mod x_tests;`).
        let tests_only = path.ends_with("tests.rs");
        let text = fs::read_to_string(file).expect("sources are UTF-8");
        Source { code: if tests_only { String::new() } else { without_tests(&code_of(&text)) }, path, room }
    };
    files.iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// The text with every comment, string and character literal taken out.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
        } else if let Some(length) = raw_string(rest).filter(|_| !ends_with_word(&code)) {
            at += length;
            code.push_str("\"\"");
        } else if rest.starts_with('"') {
            at += quoted(rest, b'"');
            code.push_str("\"\"");
        } else if rest.starts_with('\'') && is_character(rest) {
            at += quoted(rest, b'\'');
            code.push_str("' '");
        } else {
            let letter = rest.chars().next().expect("not at the end");
            code.push(letter);
            at += letter.len_utf8();
        }
    }
    code
}

/// Comments nest in Rust.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest.as_bytes()[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.as_bytes()[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"`, when one starts here.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r')?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    let body = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let close = body.find(&end)?;
    Some(rest.len() - body.len() + close + end.len())
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A character literal, not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut letters = rest.chars().skip(1);
    match letters.next() {
        Some('\\') => true,
        Some(_) => letters.next() == Some('\''),
        None => false,
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn ends_with_word(code: &str) -> bool {
    code.chars().next_back().is_some_and(is_word)
}

/// Without the items behind `#[cfg(test)]`: up to the end of their braces, or their semicolon.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let item = &rest[start..];
        let mut depth = 0;
        let end = item.char_indices().find(|(_, letter)| match letter {
            '{' => {
                depth += 1;
                false
            }
            '}' => {
                depth -= 1;
                depth == 0
            }
            ';' => depth == 0,
            _ => false,
        });
        rest = end.map_or("", |(at, _)| &item[at + 1..]);
    }
    kept + rest
}

/// Paths from the crate's root that this code names, two words deep: `shard::Shards`, `model`.
fn paths(source: &Source) -> BTreeSet<String> {
    // How often `super` leads from here to the crate's root.
    let depth = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs").split('/').count();
    let mut found = BTreeSet::new();
    for prefix in ["crate::".to_string(), "super::".repeat(depth)] {
        for (at, _) in source.code.match_indices(&prefix) {
            let before = source.code[..at].chars().next_back();
            let climbs = source.code[..at].ends_with("super::");
            if before.is_some_and(is_word) || climbs {
                continue;
            }
            let tail = &source.code[at + prefix.len()..];
            match tail.trim_start().strip_prefix('{') {
                Some(group) => found.extend(items(group).iter().map(|item| two_words(item))),
                None => drop(found.insert(two_words(tail))),
            }
        }
    }
    // What climbs further, or stays, is met by the other prefix or leads nowhere else.
    found.retain(|path| !["", "super", "self"].contains(&path.split("::").next().expect("a first word")));
    found
}

/// The items of a group, up to its closing brace.
fn items(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                item.push(letter);
            }
        }
    }
    items.push(item);
    items
}

fn two_words(path: &str) -> String {
    let word = |text: &str| text.trim_start().chars().take_while(|letter| is_word(*letter)).collect::<String>();
    let first = word(path);
    match path.trim_start()[first.len()..].strip_prefix("::").map(word) {
        Some(second) if !second.is_empty() => format!("{first}::{second}"),
        _ => first,
    }
}

#[test]
fn rooms_use_only_whom_they_may() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !["main", "lib"].contains(&source.room.as_str())) {
        let Some((_, allowed)) = MAY_USE.iter().find(|(room, _)| *room == source.room) else {
            wrong.push(format!("src/{}: the room {} is not in the table of tests/layers.rs", source.path, source.room));
            continue;
        };
        for path in paths(source) {
            let used = path.split("::").next().expect("a first word");
            let granted = |entry: &str| match entry {
                "*" => used != THE_RULES,
                narrow if narrow.contains("::") => path == narrow,
                room => room == used,
            };
            if used != source.room && !allowed.iter().any(|entry| granted(entry)) {
                let list = match allowed {
                    [] => "nobody".into(),
                    ["*"] => format!("whatever it wires, but not {THE_RULES}"),
                    some => some.join(", "),
                };
                wrong.push(format!("src/{} uses crate::{path}; {} may use {list}", source.path, source.room));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the table (design: who may import whom):\n{}", wrong.join("\n"));
}

/// Whether the code names this word, as a word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word)
        .any(|(at, _)| !ends_with_word(&code[..at]) && !code[at + word.len()..].chars().next().is_some_and(is_word))
}

#[test]
fn words_stand_only_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (word, places, why) in ONLY_IN {
            let here = |place: &str| source.path == place || place.ends_with('/') && source.path.starts_with(place);
            // A type vouches for engine/memory.rs that any bytes are a value of it: the promise stands beside
            // the type, the code that relies on it does not.
            let code = source.code.replace("unsafe impl Plain for", "impl Plain for");
            if !places.iter().any(|place| here(place)) && names(&code, word) {
                wrong.push(format!("src/{} names `{word}`: {why}", source.path));
            }
        }
        for (room, words, why) in NOT_IN.iter().filter(|(room, ..)| *room == source.room) {
            for word in words.iter().filter(|word| names(&source.code, word)) {
                wrong.push(format!("src/{} names `{word}` in {room}: {why}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "words in the wrong place:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_sees_code_and_nothing_else() {
    let check = |path: &str, text: &str, expected: &[&str]| {
        let code = without_tests(&code_of(text));
        let source = Source { path: path.into(), room: "room".into(), code };
        assert_eq!(paths(&source).iter().map(String::as_str).collect::<Vec<_>>(), expected, "{text}");
    };
    check(
        "room/a.rs",
        "use crate::model::Vote; let x = crate::engine::table::new();",
        &["engine::table", "model::Vote"],
    );
    check("room/a.rs", "use crate::{engine, queue::{C, D},\n model::*};", &["engine", "model", "queue"]);
    check("room/a.rs", "// crate::a\n/* crate::b /* crate::c */ */ let s = \"crate::d\";", &[]);
    check("room/a.rs", "let r = r#\"crate::a\"#; let c = '\"'; use crate::b::C;", &["b::C"]);
    check("room/a.rs", "fn f<'a>(x: &'a str) {} use crate::b;", &["b"]);
    check("room/a.rs", "use super::super::b::C; use super::d;", &["b::C"]);
    check("room/mod.rs", "use super::b::C; mod a { use super::super::x; }", &["b::C"]);
    check("room.rs", "pub(crate) fn f() {} use super::b;", &["b"]);
    check("room/a.rs", "#[cfg(test)]\nmod tests { use crate::x; fn f() { {} } }\nuse crate::y;", &["y"]);
    check("room/a.rs", "#[cfg(test)]\nmod a_tests;\nuse crate::y;", &["y"]);
    assert!(names("unsafe { x }", "unsafe") && !names("unsafe_op_in_unsafe_fn", "unsafe"));
}
