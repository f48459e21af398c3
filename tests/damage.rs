//! Bytes that are not what was written: the node refuses to start, says which file, where in it and what to do, ends
//! with 1 and changes nothing; `assent journal verify` says the same. A torn tail is no damage.

use crate::support::approvals::{Client, id, request};
use crate::support::{Ended, Node, folder, run};
use assent::wire::v1::{ApprovalView, ValidatorDecision};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const SMALL: &[&str] = &["--segment-bytes=1048576", "--frame-bytes-max=131072", "--reserve-bytes=1048576"];
const APPROVALS: u64 = 12;

/// Three starts, each with a segment of its own, some openings and votes; the last one ends by kill -9.
async fn written() -> Arc<TempDir> {
    let mut node = Node::start(SMALL);
    for start in 0..3 {
        if start > 0 {
            node.restart();
        }
        let mut client = Client::of(&node).await;
        for number in start * APPROVALS / 3..(start + 1) * APPROVALS / 3 {
            client.open(request(number, 2, 3)).await.expect("opened");
            for name in ["alice", "bob"] {
                client.vote(number, name, ValidatorDecision::Approved, "fine").await.expect("counted");
            }
        }
        node.kill();
    }
    node.folder()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("there") {
        let path = entry.expect("listed").path();
        let name = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &name);
        } else {
            std::fs::copy(&path, &name).expect("copied");
        }
    }
}

/// Every file and its bytes; the lock's note of its process may change.
fn bytes(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("there") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            all.extend(bytes(&path));
        } else if path.file_name().is_some_and(|name| name != "LOCK") {
            all.insert(path.clone(), std::fs::read(&path).expect("read"));
        }
    }
    all
}

/// The segments of the log, oldest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("log-00000")).expect("there").map(|entry| entry.expect("listed").path());
    let is_segment =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"));
    let mut found: Vec<PathBuf> = entries.filter(is_segment).collect();
    found.sort();
    found
}

/// Where the frames of a segment end: its last block that is not all zeros.
fn used(bytes: &[u8]) -> usize {
    let last = bytes.chunks(4096).rposition(|block| block.iter().any(|byte| *byte != 0));
    last.map_or(0, |block| (block + 1) * 4096)
}

fn change(path: &Path, with: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("read");
    with(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// On a copy of the folder: `harm` it, and see that start and verify say all of `parts`, and that nothing changed.
fn refused(original: &TempDir, harm: impl FnOnce(&Path), parts: &[&str]) {
    let copied = Arc::new(folder());
    let data = copied.path().join("data");
    copy(&original.path().join("data"), &data);
    harm(&data);
    let before = bytes(&data);
    let Ended { code, stderr } = Node::try_start_on(copied.clone(), SMALL).err().expect("it does not start");
    assert_eq!(code, Some(1), "{stderr}");
    let said = run(copied.path(), &["journal", "verify", "data"], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in parts {
        assert!(stderr.contains(part), "the node does not say {part:?}:\n{stderr}");
        assert!(format!("{}{}", said.stdout, said.stderr).contains(part), "verify does not say {part:?}: {said:?}");
    }
    let after = bytes(&data);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "files came or went");
    before.iter().for_each(|(path, bytes)| assert!(after[path] == *bytes, "{} was changed", path.display()));
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn damage_is_refused_with_file_place_and_what_to_do() {
    let original = written().await;
    let all = segments(&original.path().join("data"));
    let last_used = all.iter().rposition(|path| used(&std::fs::read(path).expect("read")) > 0).expect("frames");
    assert!(last_used >= 2, "{all:?}");
    let advice = "restore the folder from a copy";

    let first = name(&all[0]);
    let flip = |data: &Path| change(&segments(data)[0], |bytes| bytes[2 * 4096 + 130] ^= 4);
    refused(&original, flip, &[&first, "damaged at byte 8192", "not whole", advice]);

    let last = name(&all[last_used]);
    // In the last segment the frames behind the flipped one tell that it was durable.
    let flip = |data: &Path| change(&segments(data)[last_used], |bytes| bytes[4096 + 130] ^= 1);
    refused(&original, flip, &[&last, "damaged at byte 4096", "knew it to be durable", advice]);

    let cut = |data: &Path| change(&segments(data)[last_used], |bytes| bytes.truncate(3 * 4096));
    refused(&original, cut, &[&last, "damaged at byte 12288", "cut off", advice]);

    let remove = |data: &Path| std::fs::remove_file(&segments(data)[1]).expect("removed");
    refused(&original, remove, &["log-00000", "segment 2 of the log is missing", advice]);

    let remove = |data: &Path| std::fs::remove_file(&segments(data)[0]).expect("removed");
    refused(&original, remove, &["log-00000", "is needed", advice]);

    let remove = |data: &Path| std::fs::remove_dir_all(data.join("log-00000")).expect("removed");
    refused(&original, remove, &["log-00000", "directory of a log is missing", advice]);

    let flip = |data: &Path| change(&data.join("meta"), |bytes| bytes[30] ^= 1);
    refused(&original, flip, &["meta", "checksum does not match", advice]);

    let remove = |data: &Path| std::fs::remove_file(data.join("meta")).expect("removed");
    refused(&original, remove, &["meta", "damaged at byte 0", advice]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_format_version_is_refused_by_its_number() {
    let original = written().await;
    let later = |bytes: &mut [u8]| {
        bytes[8..10].copy_from_slice(&2u16.to_le_bytes());
        let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four")) as usize;
        let checksum = crc32c::crc32c(&bytes[4..length]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    };
    let parts = ["format version 2", "reads version 1", "start the version of assent that wrote it"];
    refused(&original, |data| change(&data.join("meta"), |bytes| later(bytes)), &parts);
    refused(&original, |data| change(&segments(data)[0], |bytes| later(bytes)), &parts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_torn_tail_is_cut_off_and_nothing_acknowledged_goes_with_it() {
    let original = written().await;
    let copied = Arc::new(folder());
    let data = copied.path().join("data");
    copy(&original.path().join("data"), &data);
    let all = segments(&data);
    let last = all.iter().rposition(|path| used(&std::fs::read(path).expect("read")) > 0).expect("frames");
    // A frame of this life of the file that is not whole: what a crash in the middle of a write leaves.
    change(&all[last], |bytes| {
        let end = used(bytes);
        bytes.copy_within(end - 4096..end, end);
        bytes[end + 200] ^= 0xff;
    });
    let said = run(copied.path(), &["journal", "verify", "data"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("torn tail at byte"), "{said:?}");
    let node = Node::start_on(copied, SMALL);
    node.wait_for_line("was cut off");
    let mut client = Client::of(&node).await;
    for number in 0..APPROVALS {
        let state = client.state(number, ApprovalView::Full).await.expect("it is there");
        assert_eq!((state.approval_id, state.approvals), (id(number), 2));
    }
}

#[test]
fn a_second_node_hears_which_process_has_the_folder() {
    let first = Node::start(&[]);
    let Ended { code, stderr } = Node::try_start_on(first.folder(), &[]).err().expect("the folder is taken");
    assert_eq!(code, Some(1), "{stderr}");
    for part in ["in use by process", &first.pid().to_string(), first.data().to_str().expect("UTF-8"), "--data"] {
        assert!(stderr.contains(part), "it does not say {part:?}:\n{stderr}");
    }
    // Reading is allowed beside it.
    let said = run(first.folder().path(), &["journal", "verify", "data"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let taken = Arc::new(folder());
    // A file in its place: refused to root too, whom permissions do not stop.
    std::fs::write(taken.path().join("data"), "a file").expect("written");
    let Ended { code, stderr } = Node::try_start_on(taken.clone(), &[]).err().expect("it does not start");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot create") && stderr.contains("data"), "{stderr}");
    let said = run(taken.path(), &["journal", "verify", "data"], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
}
