//! The archive in PostgreSQL.
//!
//! Reads share a bounded pool of connections ([`Postgres`], on the runtime that asks). What is written
//! goes through one connection on a thread of its own ([`writer`]). Neither connects before it is
//! asked: a database that is down when the node starts is met by the first call, and tried again by
//! each that follows.
//!
//! Any PostgreSQL from 12 on; the tables lie in the first schema of the connection's search_path. No
//! extension and no superuser's right is needed. Left to others: retries and bisecting (`sinks`).

pub mod migrate;

mod copy;
mod positions;
mod reads;
mod session;
mod sqlstate;
mod timestamp;
mod tls;
mod writer;

use super::db_url::DbUrl;
use super::{Archived, ArchivedVote, Error, ListFilter, ListKey, Store, Writer};
use crate::model::{ApprovalId, ValidatorId};
use deadpool_postgres::{ClientWrapper, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use session::{Bounds, Sessions};
use std::time::Duration;

/// How the archive is reached, and what bounds it.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    pub url: DbUrl,
    /// Connections for reads; more readers wait for one, no longer than `read_timeout`.
    pub readers_max: usize,
    /// A read's time on the server. With waiting for a connection and making it, a call takes at most
    /// three times this.
    pub read_timeout: Duration,
    /// A statement of the writer.
    pub write_timeout: Duration,
    /// Waiting for another's lock.
    pub lock_timeout: Duration,
}

impl PostgresOptions {
    pub fn new(url: DbUrl) -> PostgresOptions {
        PostgresOptions {
            url,
            readers_max: 8,
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

/// One database.
pub struct Postgres {
    options: PostgresOptions,
    pool: Pool,
    writers: Sessions,
}

impl Postgres {
    /// Checks the options and reads the files they name; connects later.
    pub fn open(options: PostgresOptions) -> Result<Postgres, Error> {
        let bounds =
            |statement: Duration| Bounds { statement, lock: options.lock_timeout, idle: options.write_timeout };
        let readers = Sessions::new(&options.url, &bounds(options.read_timeout))?;
        let writers = Sessions::new(&options.url, &bounds(options.write_timeout))?;
        let connect_timeout = readers.timeout.min(options.read_timeout);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(readers.config(), readers, recycling);
        let pool = Pool::builder(manager)
            .max_size(options.readers_max.max(1))
            .wait_timeout(Some(options.read_timeout))
            .create_timeout(Some(connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Stopped(format!("the pool of connections cannot be made: {error}")))?;
        Ok(Postgres { options, pool, writers })
    }

    /// Applies the migrations that are missing, and names them. Blocking, for a command.
    pub fn migrate(&self) -> Result<Vec<String>, Error> {
        self.blocking(async |client| migrate::run(client).await)
    }

    /// Which migrations are there. Blocking, for a command.
    pub fn schema(&self) -> Result<crate::store::migrate::Schema, Error> {
        self.blocking(async |client| migrate::check(client).await)
    }

    fn blocking<T>(&self, work: impl AsyncFnOnce(&mut tokio_postgres::Client) -> Result<T, Error>) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Unavailable(format!("no runtime: {error}")))?;
        runtime.block_on(async {
            let (mut client, _connection) = self.writers.connect().await?;
            work(&mut client).await
        })
    }

    async fn read<T>(&self, work: impl AsyncFnOnce(&ClientWrapper) -> Result<T, Error>) -> Result<T, Error> {
        let client = self.pool.get().await.map_err(sqlstate::pool_error)?;
        // The server ends a statement in time; this is for one that is gone.
        let limit = self.options.read_timeout + Duration::from_millis(500);
        match tokio::time::timeout(limit, work(&client)).await {
            Ok(done) => done,
            Err(_) => {
                // Its answer may still come: nobody else's question must get it.
                drop(Object::take(client));
                Err(Error::Unavailable(format!("PostgreSQL did not answer within {limit:?}")))
            }
        }
    }
}

impl Store for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Error> {
        // Four statements of a transaction, each in its time.
        let timeout = self.options.write_timeout * 4;
        Ok(Box::new(writer::PostgresWriter::new(self.writers.clone(), timeout)?))
    }

    fn approvals(&self, ids: Vec<ApprovalId>) -> BoxFuture<'_, Result<Vec<Option<Archived>>, Error>> {
        Box::pin(async move { self.read(async |client| reads::approvals(client, &ids).await).await })
    }

    fn content(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<bytes::Bytes>, Error>> {
        Box::pin(self.read(async move |client| reads::content(client, id).await))
    }

    fn votes(&self, id: ApprovalId, after: u32, max: usize) -> BoxFuture<'_, Result<Vec<ArchivedVote>, Error>> {
        Box::pin(self.read(async move |client| reads::votes(client, id, after, max).await))
    }

    fn vote(&self, id: ApprovalId, validator: ValidatorId) -> BoxFuture<'_, Result<Option<ArchivedVote>, Error>> {
        Box::pin(async move { self.read(async |client| reads::vote(client, id, &validator).await).await })
    }

    fn eligible(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<ValidatorId>, Error>> {
        Box::pin(async move { self.read(async |client| reads::eligible(client, id, after.as_ref(), max).await).await })
    }

    fn list(
        &self,
        filter: ListFilter,
        after: Option<ListKey>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Archived>, Error>> {
        Box::pin(async move { self.read(async |client| reads::list(client, &filter, after, max).await).await })
    }
}
