//! The same for streams in MongoDB, against servers that speak its protocol.
//!
//! `cargo xtask test` installs them and says by environment variables where they are; without these a test here fails
//! and says so. With `MONGODB_URI` set the suite runs against that server instead of FerretDB, in databases of its own
//! that it drops afterwards.

mod proxy;
#[expect(clippy::duplicate_mod, reason = "one suite for both stores: `World` is another here")]
#[path = "../race.rs"]
mod race;
mod server;
#[expect(clippy::duplicate_mod, reason = "one suite for both stores: `World` is another here")]
#[path = "../store.rs"]
mod store;
#[expect(clippy::duplicate_mod, reason = "one suite for both stores: `World` is another here")]
#[path = "../tail.rs"]
mod tail;
mod trouble;
mod wire;

use super::*;
use crate::streams::tests as common;
use crate::telemetry::Secret;
use server::{Server, uri_given};
use std::ops::{Deref, DerefMut};

/// Each page is a scan of the whole collection on these servers.
const LARGE_RECORDS: u32 = 2_500;

/// As the embedded store's, in a database of its own.
struct World {
    world: common::World,
    database: String,
    uri: String,
    server: Option<Server>,
}

impl World {
    fn new() -> World {
        World::tuned(|_| ())
    }

    fn tuned(tune: impl FnOnce(&mut Tuning)) -> World {
        match uri_given() {
            Some(uri) => World::at(uri, None, tune),
            None => {
                let server = Server::ferretdb();
                World::at(server.uri(), Some(server), tune)
            }
        }
    }

    fn at(uri: String, server: Option<Server>, tune: impl FnOnce(&mut Tuning)) -> World {
        let mut tuning = Tuning::default();
        tune(&mut tuning);
        let database = server::free_database();
        let streams = open(&uri, &database, tuning).unwrap();
        let world = common::World { streams, folder: tempfile::tempdir().unwrap(), tuning };
        World { world, database, uri, server }
    }

    /// The same database, with another process's memory.
    fn other(&self) -> Arc<Streams> {
        open(&self.uri, &self.database, self.tuning).unwrap()
    }
}

fn open(uri: &str, database: &str, tuning: Tuning) -> Result<Arc<Streams>, String> {
    let settings = mongodb::Settings { uri: Secret::new(uri), database: database.to_owned() };
    let store = StoreSettings::Mongodb(settings);
    Streams::open_tuned(
        Settings { store, retention: Duration::from_secs(7 * 86_400) },
        tuning,
        Metrics::new(),
    )
}

impl Deref for World {
    type Target = common::World;
    fn deref(&self) -> &common::World {
        &self.world
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut common::World {
        &mut self.world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Ours goes with its folder.
        if self.server.is_none() {
            server::drop_database(&self.uri, &self.database);
        }
    }
}
