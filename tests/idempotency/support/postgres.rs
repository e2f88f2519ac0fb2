//! Databases of PostgreSQL, one for each test.

use steadfast::idempotency::PostgresStore;
use steadfast::storage::PostgresStorage;
use steadfast::storage::deadpool_postgres::{Manager, Pool};
use steadfast::storage::tokio_postgres::{Client, Config, NoTls};

/// A database of its own, in which nothing is migrated.
pub(crate) struct Database {
    /// Without PgBouncer.
    pub(crate) direct: Config,
    /// As asked for.
    pub(crate) config: Config,
}

impl Database {
    /// Makes the database `name` anew. `None` where there is no server.
    pub(crate) async fn new(name: &str) -> Option<Self> {
        Some(Self::at(&super::postgres_url()?, name).await)
    }

    /// The same on the server at `url`.
    pub(crate) async fn at(url: &str, name: &str) -> Self {
        let mut direct: Config = url.parse().unwrap();
        let admin = connect(&direct).await;
        let name = format!("steadfast_{name}");
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        direct.dbname(&name);
        let config = direct.clone();
        Self { direct, config }
    }

    /// The same, through PgBouncer.
    pub(crate) async fn behind_pgbouncer(name: &str) -> Option<Self> {
        let url = super::pgbouncer_url()?;
        let mut database = Self::new(name).await?;
        let name = database.direct.get_dbname().unwrap().to_owned();
        database.config = url.parse().unwrap();
        database.config.dbname(&name);
        Some(database)
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.direct).await
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    pub(crate) fn pool(&self, connections: usize) -> Pool {
        let manager = Manager::new(self.config.clone(), NoTls);
        Pool::builder(manager).max_size(connections).build().unwrap()
    }

    /// A store that is migrated, over so many connections.
    pub(crate) async fn store(&self, connections: usize) -> PostgresStore {
        let store = PostgresStore::new(&PostgresStorage::new(self.pool(connections)));
        store.migrate().await.unwrap();
        store
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
