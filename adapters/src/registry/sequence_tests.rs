//! Random sequences of operations, compared after each step with a model made of plain vectors.

use std::collections::BTreeMap;
use std::sync::Weak;

use proptest::prelude::*;

use super::tests::{summary, version};
use super::*;

#[derive(Debug, Clone)]
enum Operation {
    Insert(usize, u8, Demand, bool),
    Activate(usize, u8, Option<u8>),
    Rollback(usize),
    Remove(usize),
    RemoveVersion(usize, u8),
    Lease(usize, Option<u8>),
    DropLease(usize),
}

#[derive(Debug, Clone)]
enum Demand {
    Create,
    Upsert,
    Swap(u8),
}

/// A name in the model: (version, load) pairs in order, where each load of weights has a number of its own.
#[derive(Debug, Clone)]
struct Name {
    retained: Vec<(u8, usize)>,
    active: u8,
    previous: Option<u8>,
}

#[derive(Default)]
struct Model {
    names: BTreeMap<&'static str, Name>,
    loads: usize,
}

const NAMES: [&str; 2] = ["mood", "gist"];

type Outcome<T> = Result<T, &'static str>;

impl Name {
    fn load(&self, number: u8) -> Outcome<usize> {
        let found = self.retained.iter().find(|(version, _)| *version == number);
        found.map(|(_, load)| *load).ok_or("version_not_found")
    }

    fn activate(&mut self, number: u8) -> u8 {
        if number != self.active {
            self.previous = Some(self.active);
            self.active = number;
        }
        number
    }

    fn expect(&self, expected: u8) -> Outcome<()> {
        if expected == self.active {
            Ok(())
        } else {
            Err("compare_and_swap_lost")
        }
    }
}

impl Model {
    fn name(&mut self, name: usize) -> Outcome<&mut Name> {
        self.names.get_mut(NAMES[name]).ok_or("adapter_not_found")
    }

    fn insert(&mut self, name: usize, number: u8, demand: &Demand, activate: bool) -> Outcome<()> {
        self.loads += 1;
        let load = self.loads;
        match (self.name(name), demand) {
            (Err(missing), Demand::Swap(_)) => return Err(missing),
            (Err(_), Demand::Create | Demand::Upsert) => {
                let first = Name {
                    retained: vec![(number, load)],
                    active: number,
                    previous: None,
                };
                self.names.insert(NAMES[name], first);
            }
            (Ok(_), Demand::Create) => return Err("adapter_already_loaded"),
            (Ok(state), Demand::Swap(_) | Demand::Upsert) => {
                if let Demand::Swap(expected) = demand {
                    state.expect(*expected)?;
                }
                if state.load(number).is_err() {
                    state.retained.push((number, load));
                }
                if activate {
                    state.activate(number);
                }
            }
        }
        Ok(())
    }

    fn remove_version(&mut self, name: usize, number: u8) -> Outcome<()> {
        let state = self.name(name)?;
        state.load(number)?;
        if state.retained.len() == 1 {
            self.names.remove(NAMES[name]);
            return Ok(());
        }
        if state.active == number {
            return Err("version_is_active");
        }
        state.retained.retain(|(version, _)| *version != number);
        state.previous = state.previous.filter(|previous| *previous != number);
        Ok(())
    }

    fn activate(&mut self, name: usize, number: u8, expected: Option<u8>) -> Outcome<Version> {
        let state = self.name(name)?;
        expected.map_or(Ok(()), |expected| state.expect(expected))?;
        state.load(number)?;
        Ok(version(state.activate(number)))
    }

    fn rollback(&mut self, name: usize) -> Outcome<Version> {
        let state = self.name(name)?;
        let previous = state.previous.ok_or("nothing_to_roll_back")?;
        Ok(version(state.activate(previous)))
    }

    fn lease(&mut self, name: usize, number: Option<u8>) -> Outcome<usize> {
        let state = self.name(name)?;
        state.load(number.unwrap_or(state.active))
    }
}

/// The registry and its model, side by side.
#[derive(Default)]
struct Pair {
    registry: Registry<usize>,
    model: Model,
    leases: Vec<Lease<usize>>,
    weights: Vec<Weak<usize>>,
}

impl Pair {
    fn apply(&mut self, operation: &Operation) {
        let Self {
            registry, model, ..
        } = self;
        match *operation {
            Operation::Insert(name, number, ref demand, activate) => {
                let expected = model.insert(name, number, demand, activate);
                let weights = Arc::new(model.loads);
                self.weights.push(Arc::downgrade(&weights));
                let policy = match demand {
                    Demand::Create => Policy::Create,
                    Demand::Upsert => Policy::Upsert,
                    Demand::Swap(expected) => Policy::CompareAndSwap(version(*expected)),
                };
                let summary = summary(version(number), 9);
                let got = registry.insert(NAMES[name], summary, weights, policy, activate);
                assert_eq!(coded(got), expected);
            }
            Operation::Activate(name, number, expected) => {
                let swap = expected.map(|expected| version(expected).to_string());
                let got = registry.activate(NAMES[name], version(number).as_str(), swap.as_deref());
                assert_eq!(coded(got), model.activate(name, number, expected));
            }
            Operation::Rollback(name) => {
                assert_eq!(coded(registry.rollback(NAMES[name])), model.rollback(name));
            }
            Operation::Remove(name) => {
                let expected = model.name(name).map(|_| ());
                model.names.remove(NAMES[name]);
                assert_eq!(coded(registry.remove(NAMES[name])), expected);
            }
            Operation::RemoveVersion(name, number) => {
                let got = registry.remove_version(NAMES[name], &version(number).as_str()[..10]);
                assert_eq!(coded(got), model.remove_version(name, number));
            }
            Operation::Lease(name, number) => {
                let got = match number {
                    Some(number) => registry.lease_version(NAMES[name], version(number).as_str()),
                    None => registry.lease(NAMES[name]),
                };
                let load = got.as_ref().map(|lease| **lease.weights());
                assert_eq!(load.map_err(RegistryError::code), model.lease(name, number));
                self.leases.extend(got);
            }
            Operation::DropLease(index) => {
                if !self.leases.is_empty() {
                    self.leases.swap_remove(index % self.leases.len());
                }
            }
        }
        self.compare();
    }

    fn compare(&self) {
        let held = |load: usize| {
            self.leases
                .iter()
                .filter(|lease| **lease.weights() == load)
                .count()
        };
        let entries = self.registry.list();
        assert_eq!(entries.len(), self.model.names.len());
        for (entry, (name, expected)) in entries.iter().zip(&self.model.names) {
            assert_eq!(entry.name, *name);
            assert_eq!(entry.active, version(expected.active));
            assert_eq!(entry.previous, expected.previous.map(version));
            let got: Vec<_> = entry
                .versions
                .iter()
                .map(|status| {
                    (
                        status.summary.version.clone(),
                        status.active,
                        status.in_flight,
                    )
                })
                .collect();
            let want: Vec<_> = expected
                .retained
                .iter()
                .map(|(number, load)| (version(*number), *number == expected.active, held(*load)))
                .collect();
            assert_eq!(got, want);
        }
        for (index, weights) in self.weights.iter().enumerate() {
            let load = index + 1;
            let mut retained = self.model.names.values().flat_map(|name| &name.retained);
            let wanted = held(load) > 0 || retained.any(|(_, retained)| *retained == load);
            assert_eq!(weights.strong_count() > 0, wanted, "weights of load {load}");
        }
    }
}

fn coded<T>(result: Result<T, RegistryError>) -> Outcome<T> {
    result.map_err(|error| error.code())
}

fn operation() -> impl Strategy<Value = Operation> {
    let name = || 0..NAMES.len();
    let number = || 1_u8..5;
    let demand = prop_oneof![
        1 => Just(Demand::Create),
        3 => Just(Demand::Upsert),
        2 => number().prop_map(Demand::Swap),
    ];
    prop_oneof![
        6 => (name(), number(), demand, any::<bool>())
            .prop_map(|(name, number, demand, activate)| Operation::Insert(name, number, demand, activate)),
        3 => (name(), number(), proptest::option::of(number()))
            .prop_map(|(name, number, expected)| Operation::Activate(name, number, expected)),
        2 => name().prop_map(Operation::Rollback),
        1 => name().prop_map(Operation::Remove),
        2 => (name(), number()).prop_map(|(name, number)| Operation::RemoveVersion(name, number)),
        3 => (name(), proptest::option::of(number()))
            .prop_map(|(name, number)| Operation::Lease(name, number)),
        2 => any::<usize>().prop_map(Operation::DropLease),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_operations_follows_the_model(
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        let mut pair = Pair::default();
        for operation in &operations {
            pair.apply(operation);
        }
    }
}
