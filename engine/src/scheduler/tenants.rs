//! What each adapter version has, and has had, of the engine: the virtual token counters of Sheng et al. 2024
//! (*Fairness in Serving Large Language Models*), one for each adapter version and priority. Whoever has had the least
//! is next; whoever comes back after a while starts where the others are, so that nobody saves up.

use adapters::Version;

use crate::request::Priority;

/// All adapter versions with requests, the base model among them.
#[derive(Default)]
pub(crate) struct Tenants {
    slots: Vec<Tenant>,
    changed: bool,
}

/// One adapter version; arrays are by priority.
#[derive(Debug, Clone, Default)]
struct Tenant {
    /// `None`: the base model.
    version: Option<Version>,
    waiting: [usize; 2],
    running: [usize; 2],
    service: [u64; 2],
    /// Scratch of one step.
    counted: [usize; 2],
    granted: u64,
}

impl Tenant {
    fn is_active(&self, priority: usize) -> bool {
        self.waiting[priority] + self.running[priority] > 0
    }

    fn is_absent(&self) -> bool {
        !self.is_active(0) && !self.is_active(1)
    }
}

impl Tenants {
    /// Nobody, after whoever there was.
    pub(super) fn anew() -> Self {
        Self {
            slots: Vec::new(),
            changed: true,
        }
    }

    /// One more waiting request; returns the tenant's number, which holds while it has requests.
    pub(super) fn arrive(&mut self, version: Option<&Version>, priority: Priority) -> usize {
        let class = priority as usize;
        let floors = [self.floor(0), self.floor(1)];
        let known = |tenant: &Tenant| tenant.version.as_ref() == version;
        let index = self.slots.iter().position(known).unwrap_or_else(|| {
            let tenant = Tenant {
                version: version.cloned(),
                ..Tenant::default()
            };
            // Whoever has had no more than the others would start where they are: nothing about it is worth keeping.
            let even = |old: &Tenant| {
                old.is_absent() && old.service[0] <= floors[0] && old.service[1] <= floors[1]
            };
            match self.slots.iter().position(even) {
                Some(index) => {
                    self.slots[index] = tenant;
                    index
                }
                None => {
                    self.slots.push(tenant);
                    self.slots.len() - 1
                }
            }
        });
        let tenant = &mut self.slots[index];
        if !tenant.is_active(class) {
            tenant.service[class] = tenant.service[class].max(floors[class]);
        }
        tenant.waiting[class] += 1;
        self.changed = true;
        index
    }

    /// The least that a tenant with requests has had; when there is none, the most that any has had.
    fn floor(&self, class: usize) -> u64 {
        let active = self.slots.iter().filter(|tenant| tenant.is_active(class));
        let least = active.map(|tenant| tenant.service[class]).min();
        let all = self.slots.iter().map(|tenant| tenant.service[class]);
        least.or(all.max()).unwrap_or(0)
    }

    /// A waiting request begins to run.
    pub(super) fn admit(&mut self, tenant: usize, priority: Priority) {
        self.withdraw(tenant, priority);
        self.slots[tenant].running[priority as usize] += 1;
    }

    /// A running request waits again.
    pub(super) fn pause(&mut self, tenant: usize, priority: Priority) {
        self.leave(tenant, priority);
        self.slots[tenant].waiting[priority as usize] += 1;
    }

    /// A waiting request is gone.
    pub(super) fn withdraw(&mut self, tenant: usize, priority: Priority) {
        self.slots[tenant].waiting[priority as usize] -= 1;
        self.changed = true;
    }

    /// A running request is gone.
    pub(super) fn leave(&mut self, tenant: usize, priority: Priority) {
        self.slots[tenant].running[priority as usize] -= 1;
        self.changed = true;
    }

    /// Running requests of a tenant.
    pub(super) fn running(&self, tenant: usize, priority: Priority) -> usize {
        self.slots[tenant].running[priority as usize]
    }

    /// What a tenant has had, grants of the step included.
    pub(super) fn service(&self, tenant: usize, priority: Priority) -> u64 {
        self.slots[tenant].service[priority as usize] + self.slots[tenant].granted
    }

    /// Books what a tenant got.
    pub(super) fn charge(&mut self, tenant: usize, priority: Priority, units: u64) {
        self.slots[tenant].service[priority as usize] += units;
    }

    /// Promises units to a tenant until [`Tenants::clear_grants`].
    pub(super) fn grant(&mut self, tenant: usize, units: u64) {
        self.slots[tenant].granted += units;
    }

    pub(super) fn clear_grants(&mut self) {
        self.slots.iter_mut().for_each(|tenant| tenant.granted = 0);
    }

    pub(super) fn count_anew(&mut self) {
        (self.slots.iter_mut()).for_each(|tenant| tenant.counted = [0; 2]);
    }

    /// How often this was asked for the tenant since [`Tenants::count_anew`].
    pub(super) fn count(&mut self, tenant: usize, priority: Priority) -> usize {
        let counted = &mut self.slots[tenant].counted[priority as usize];
        *counted += 1;
        *counted - 1
    }

    /// Whether requests came or went since this was last asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Running and waiting requests by adapter version, in the order of versions; the base model is not listed.
    pub(crate) fn census(&self) -> [Vec<(String, usize)>; 2] {
        let list = |count: fn(&Tenant) -> [usize; 2]| {
            let tenants = self.slots.iter().filter_map(|tenant| {
                let requests = count(tenant).iter().sum();
                let version = tenant.version.as_ref()?;
                (requests > 0).then(|| (version.as_str().to_owned(), requests))
            });
            let mut list: Vec<_> = tenants.collect();
            list.sort_unstable();
            list
        };
        [list(|tenant| tenant.running), list(|tenant| tenant.waiting)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERACTIVE: Priority = Priority::Interactive;

    fn version(digit: char) -> Version {
        let digits: String = std::iter::repeat_n(digit, 64).collect();
        digits.parse().expect("a version")
    }

    #[test]
    fn a_newcomer_starts_where_the_least_served_is() {
        let mut tenants = Tenants::default();
        let first = tenants.arrive(Some(&version('a')), INTERACTIVE);
        let second = tenants.arrive(Some(&version('b')), INTERACTIVE);
        tenants.charge(first, INTERACTIVE, 900);
        tenants.charge(second, INTERACTIVE, 700);
        let third = tenants.arrive(None, INTERACTIVE);
        assert_eq!(tenants.service(third, INTERACTIVE), 700);
        assert_eq!(tenants.service(third, Priority::Background), 0);
    }

    #[test]
    fn whoever_had_more_finds_it_on_the_bill_when_it_returns() {
        let mut tenants = Tenants::default();
        let greedy = tenants.arrive(Some(&version('a')), INTERACTIVE);
        let modest = tenants.arrive(Some(&version('b')), INTERACTIVE);
        tenants.admit(greedy, INTERACTIVE);
        tenants.charge(greedy, INTERACTIVE, 900);
        tenants.charge(modest, INTERACTIVE, 100);
        tenants.leave(greedy, INTERACTIVE);
        let other = tenants.arrive(Some(&version('c')), INTERACTIVE);
        assert_ne!(other, greedy);
        let back = tenants.arrive(Some(&version('a')), INTERACTIVE);
        assert_eq!((back, tenants.service(back, INTERACTIVE)), (greedy, 900));
    }

    #[test]
    fn the_slots_of_those_that_left_are_used_again() {
        let mut tenants = Tenants::default();
        for digit in ['a', 'b', 'c', 'd', 'e'] {
            let tenant = tenants.arrive(Some(&version(digit)), INTERACTIVE);
            tenants.admit(tenant, INTERACTIVE);
            tenants.charge(tenant, INTERACTIVE, 50);
            tenants.leave(tenant, INTERACTIVE);
        }
        assert_eq!(tenants.slots.len(), 1);
    }

    #[test]
    fn the_census_counts_versions_and_not_the_base() {
        let mut tenants = Tenants::default();
        let first = tenants.arrive(Some(&version('b')), INTERACTIVE);
        tenants.arrive(Some(&version('a')), Priority::Background);
        tenants.arrive(Some(&version('b')), Priority::Background);
        tenants.arrive(None, INTERACTIVE);
        tenants.admit(first, INTERACTIVE);
        let [running, waiting] = tenants.census();
        let named = |digit: char| version(digit).as_str().to_owned();
        assert_eq!(running, [(named('b'), 1)]);
        assert_eq!(waiting, [(named('a'), 1), (named('b'), 1)]);
        assert!(tenants.take_changed() && !tenants.take_changed());
    }
}
