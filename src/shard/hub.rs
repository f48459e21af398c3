//! (under construction)
use super::{Shards, Tail};
use crate::journal::FolderMeta;
use crate::queue::Bell;
use std::path::PathBuf;
use std::sync::Arc;
#[derive(Clone)]
pub struct Feed;
impl Feed {
    pub fn new(_: PathBuf, _: Arc<FolderMeta>, _: Vec<Arc<Tail>>, _: Arc<Bell>, _: Shards) -> Feed { Feed }
}
