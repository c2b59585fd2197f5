//! A store that an oracle reuses for many inputs, so that not every input opens a store.
//!
//! The store is on a simulated disk and has no catalogue. A simulated disk never frees memory, so
//! the store is replaced by an empty one after [`MAX_USES`] inputs.

use prefd_engine::{Config, Engine};

use crate::sim_store::Store;

/// Number of inputs after which the store is replaced.
const MAX_USES: u32 = 500;

/// A store that is replaced from time to time.
pub(crate) struct ReusableStore {
    configure: Box<dyn Fn(&mut Config)>,
    store: Store,
    engine: Engine,
    uses: u32,
}

impl ReusableStore {
    /// Opens a store. `configure` can change the configuration of [`Store::config`].
    pub(crate) fn new(configure: impl Fn(&mut Config) + 'static) -> Self {
        let configure = Box::new(configure);
        let (store, engine) = open(&*configure);
        Self {
            configure,
            store,
            engine,
            uses: 0,
        }
    }

    /// Returns the open engine, and true if the store was just replaced.
    pub(crate) fn take(&mut self) -> (&Engine, bool) {
        self.uses += 1;
        let is_replaced = self.uses > MAX_USES;
        if is_replaced {
            (self.store, self.engine) = open(&*self.configure);
            self.uses = 1;
        }
        (&self.engine, is_replaced)
    }
}

fn open(configure: &dyn Fn(&mut Config)) -> (Store, Engine) {
    let store = Store::without_catalogue();
    let mut config = store.config();
    configure(&mut config);
    let engine = Engine::open(config).unwrap();
    (store, engine)
}
