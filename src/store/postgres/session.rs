//! One connection: how it is made, and the bounds that the server holds it to.

use super::{sqlstate, tls};
use crate::store::Error;
use crate::store::db_url::{DbUrl, SslMode};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Makes connections to one database.
#[derive(Clone)]
pub(super) struct Sessions {
    config: Config,
    tls: MakeRustlsConnect,
    /// Sent first on every connection.
    settings: String,
    /// For all hosts together, handshake included.
    pub timeout: Duration,
}

/// What the server holds a connection to, so that nothing of ours stays behind when we are gone.
pub(super) struct Bounds {
    pub statement: Duration,
    pub lock: Duration,
    /// Of a transaction whose client has gone silent.
    pub idle: Duration,
}

impl Sessions {
    pub fn new(url: &DbUrl, bounds: &Bounds) -> Result<Sessions, Error> {
        // A server, database or role may have durable commits turned off; the archive's must be, since
        // the journal forgets what is archived. A stronger setting than `on` is left alone.
        let settings = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            bounds.statement.as_millis(),
            bounds.lock.as_millis(),
            bounds.idle.as_millis()
        );
        let timeout = url.connect_timeout * (url.hosts.len() as u32 + 1);
        Ok(Sessions { config: config(url), tls: tls::connector(url)?, settings, timeout })
    }

    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// As [`Sessions::open`], within the time limit.
    pub async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let late = || Error::Unavailable(format!("PostgreSQL did not let us in within {:?}", self.timeout));
        let opened = tokio::time::timeout(self.timeout, self.open()).await;
        opened.map_err(|_| late())?.map_err(sqlstate::error)
    }

    /// The task drives the connection, and ends with the client. In a runtime.
    pub async fn open(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        // Whoever waits for an answer gets the error too, and reports it.
        let task = tokio::spawn(async move { drop(connection.await) });
        client.batch_execute(&self.settings).await?;
        Ok((client, task))
    }
}

impl deadpool_postgres::Connect for Sessions {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(self.open())
    }
}

fn config(url: &DbUrl) -> Config {
    let mut config = Config::new();
    for (host, port) in &url.hosts {
        config.host(host).port(*port);
    }
    config.user(&url.user).dbname(&url.database).application_name(&url.application_name);
    config.connect_timeout(url.connect_timeout).tcp_user_timeout(Duration::from_secs(30));
    config.keepalives_idle(Duration::from_secs(30)).keepalives_interval(Duration::from_secs(10)).keepalives_retries(3);
    if let Some(password) = &url.password {
        config.password(password.reveal());
    }
    if let Some(options) = &url.options {
        config.options(options);
    }
    if url.read_write {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config.ssl_mode(match url.ssl_mode {
        SslMode::Disable => tokio_postgres::config::SslMode::Disable,
        SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
    });
    config
}
