//! Compiles the public contract with pure Rust (protox): no protoc to install. Generated code and
//! the descriptor stay in OUT_DIR.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/approvals.proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptor = protox::compile(["proto/approvals.proto"], ["proto"])?;
    fs::write(out.join("assent.descriptor"), prost::Message::encode_to_vec(&descriptor))?;
    tonic_prost_build::configure().bytes(".aurigraph.approvals.v1").compile_fds(descriptor)?;
    Ok(())
}
