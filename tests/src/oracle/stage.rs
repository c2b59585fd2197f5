//! A store for an oracle that needs one but does not look at it: on a simulated disk,
//! without a catalogue, and replaced by an empty one every so often, since nothing on
//! a simulated disk is ever given back.

use prefd_engine::{Config, Engine};

use crate::sim_store::Store;

/// Uses of one store.
const USES: u32 = 500;

/// The store.
pub(crate) struct Stage {
    configure: Box<dyn Fn(&mut Config)>,
    store: Store,
    engine: Engine,
    uses: u32,
}

impl Stage {
    /// `configure` changes what [`Store::config`] says.
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

    /// The open store, and whether it is another than before.
    pub(crate) fn take(&mut self) -> (&Engine, bool) {
        self.uses += 1;
        let is_worn = self.uses > USES;
        if is_worn {
            (self.store, self.engine) = open(&*self.configure);
            self.uses = 1;
        }
        (&self.engine, is_worn)
    }
}

fn open(configure: &dyn Fn(&mut Config)) -> (Store, Engine) {
    let store = Store::without_catalogue();
    let mut config = store.config();
    configure(&mut config);
    let engine = Engine::open(config).unwrap();
    (store, engine)
}
