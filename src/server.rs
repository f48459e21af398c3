//! (room under construction)

pub fn run(_config: crate::config::Config) -> anyhow::Result<()> {
    anyhow::bail!("the server is not wired yet")
}
