//! What one address has of the tables that all clients share, and how often it has done something.
//!
//! There is one [`Account`] for each address that has a connection, or of which there is a topic or a last value. It is looked
//! up once for a connection, under a lock; from then on whoever has something holds a reference, and to count is one atomic
//! operation. What is held by number (connections, subscriptions) is given back by the [`Permit`](super::Permit); what outlives
//! its connection (a topic, a last value) holds a [`Charge`].
//!
//! An account that nobody holds any more stays until all that it did is long enough ago, so that nobody gets a fresh quota by
//! coming back. Those that are left over are swept out when there are twice as many accounts as after the last sweep: an
//! address costs some 200 bytes, and there are never more than twice as many as are in use, and [`IDLE_MAX`]. They lie in
//! [`PARTS`] tables by a hash of the address, each with a lock of its own: one is swept, or grows, in some ten microseconds.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Prefix,
    lately::Lately,
    quota::{Quota, SharedSpent},
};
use crate::clock::Moment;

/// What one address may have no more of than its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Connections (`--max-connections-per-ip`).
    Connections,
    /// Subscriptions (`--max-subscriptions-per-ip`).
    Subscriptions,
    /// Topics that it was the first to publish on (`--max-topics-per-ip`).
    Topics,
    /// Bytes of last values that it has published (`--max-values-per-ip`).
    Values,
    /// Bytes of unfinished messages (`--max-assembly-per-ip`).
    Assembly,
    /// Bytes of all that its connections hold (`--max-held-per-ip`).
    Held,
    /// Bytes that were encrypted for its connections, and that the kernel hasn't taken (half of `--tls-buffers`).
    TlsHeld,
    /// Bytes that have come of it and are not whole records, or not read (half of `--tls-buffers`).
    TlsKept,
}

/// How many tables there are.
pub const TABLES: usize = 8;

/// Accounts that nobody holds and that are kept for what they did lately: an attacker with more addresses than this gets
/// fresh quotas, and has them anyway.
pub const IDLE_MAX: usize = 65_536;

/// Tables in which accounts lie.
pub const PARTS: usize = 256;

/// No sweep of one of them while there are fewer in it.
const SWEEP_LEAST: usize = 256;

/// What each address may have, by [`Table`]; `usize::MAX` for any number.
#[derive(Debug)]
pub struct Shares([AtomicUsize; TABLES]);

impl Shares {
    /// These bounds.
    pub fn new(most: [usize; TABLES]) -> Shares {
        Shares(most.map(AtomicUsize::new))
    }

    /// Sets them anew. Who has more keeps it.
    pub fn set(&self, most: [usize; TABLES]) {
        for (share, most) in self.0.iter().zip(most) {
            // Relaxed, here and in all that counts: nothing but the number itself depends on it.
            share.store(most, Ordering::Relaxed);
        }
    }

    /// What one address may have of `table`.
    pub fn most(&self, table: Table) -> usize {
        self.0[table as usize].load(Ordering::Relaxed)
    }
}

/// What one address has, and has done.
#[derive(Debug)]
pub struct Account {
    used: [AtomicUsize; TABLES],
    shares: Arc<Shares>,
    /// Commands and pings that came lately.
    pub commands: SharedSpent,
    /// Publications that came lately.
    pub publications: SharedSpent,
    /// KiB that it has published lately, by whatever way.
    published: Lately,
    /// Tokens that it has shown lately, and that had to be judged.
    pub tokens: SharedSpent,
    /// Connections that came lately.
    pub(super) connects: SharedSpent,
}

/// KiB: who has published as much [`Lately`] has published much. That is so much at once, or 11 MiB a second all the time.
pub const MUCH: f32 = 4096.0;

impl Account {
    fn new(shares: &Arc<Shares>) -> Arc<Account> {
        Arc::new(Account {
            used: Default::default(),
            shares: Arc::clone(shares),
            commands: SharedSpent::default(),
            publications: SharedSpent::default(),
            published: Lately::default(),
            tokens: SharedSpent::default(),
            connects: SharedSpent::default(),
        })
    }

    /// It has published something that counts as so many KiB.
    pub fn has_published(&self, weight: u32, now: Moment) {
        self.published.add(weight as f32, 4.0 * MUCH, now);
    }

    /// Whether it has published so many KiB lately, or more.
    pub fn has_published_much(&self, allowance: f32, now: Moment) -> bool {
        self.published.amount(now) >= allowance
    }

    /// How much it has of a table.
    #[cfg(test)]
    pub fn used(&self, table: Table) -> usize {
        self.used[table as usize].load(Ordering::Relaxed)
    }

    /// What it may have of a table.
    pub fn most(&self, table: Table) -> usize {
        self.shares.most(table)
    }

    /// Takes `n` more of a table, if it then has no more than `most`. Returns whether it did.
    pub(super) fn take(&self, table: Table, n: usize, most: usize) -> bool {
        take(&self.used[table as usize], n, most)
    }

    /// How much more it may have of a table.
    pub fn left(&self, table: Table) -> usize {
        self.most(table).saturating_sub(self.used[table as usize].load(Ordering::Relaxed))
    }

    /// Takes `n` more of a table, whatever it then has.
    pub fn take_anyway(&self, table: Table, n: usize) {
        self.used[table as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Whether it could take `n` more of a table.
    pub(super) fn fits(&self, table: Table, n: usize) -> bool {
        self.used[table as usize].load(Ordering::Relaxed).saturating_add(n) <= self.most(table)
    }

    /// Gives `n` back.
    pub fn give_back(&self, table: Table, n: usize) {
        let before = self.used[table as usize].fetch_sub(n, Ordering::Relaxed);
        debug_assert!(before >= n, "{table:?}: {n} of {before} given back");
    }

    fn rests(&self, now: Moment) -> bool {
        let spent = [&self.commands, &self.publications, &self.tokens, &self.connects];
        spent.iter().all(|spent| spent.is_over(now)) && self.published.is_over(now)
    }
}

/// Adds `n`, if the sum is then no more than `most`; never more, not even for a moment.
pub(super) fn take(used: &AtomicUsize, n: usize, most: usize) -> bool {
    let add = |used: usize| used.checked_add(n).filter(|sum| *sum <= most);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

/// What something that outlives its connection holds of an account, until it is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    table: Table,
    held: usize,
}

impl Charge {
    /// Charges an account with `n` of a table, if it then has no more than `most`.
    pub fn new(account: &Arc<Account>, table: Table, n: usize, most: usize) -> Option<Charge> {
        account.take(table, n, most).then(|| Charge { account: Arc::clone(account), table, held: n })
    }

    /// For `n` of a table that the account was charged with before.
    pub(super) fn taken(account: &Arc<Account>, table: Table, n: usize) -> Charge {
        Charge { account: Arc::clone(account), table, held: n }
    }

    /// Whether it is this account that is charged.
    pub fn is_of(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(&self.account, account)
    }

    /// Holds `n` from now on, if the account may have that much. Returns whether it does.
    pub fn resize(&mut self, n: usize) -> bool {
        let fits = match n.checked_sub(self.held) {
            Some(0) => true,
            Some(more) => self.account.take(self.table, more, self.account.most(self.table)),
            None => {
                self.account.give_back(self.table, self.held - n);
                true
            }
        };
        if fits {
            self.held = n;
        }
        fits
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(self.table, self.held);
    }
}

/// One part of the accounts, by address. Hashed with keys of its own: clients choose their addresses.
#[derive(Debug)]
pub(super) struct Accounts {
    by_prefix: HashMap<Prefix, Arc<Account>>,
    shares: Arc<Shares>,
    sweep_at: usize,
    /// How often one address may connect.
    pub connects: Quota,
}

impl Accounts {
    pub fn new(shares: &Arc<Shares>, connects: Quota) -> Accounts {
        Accounts { by_prefix: HashMap::new(), shares: Arc::clone(shares), sweep_at: SWEEP_LEAST, connects }
    }

    pub fn len(&self) -> usize {
        self.by_prefix.len()
    }

    /// The account of an address, made if there was none.
    pub fn find(&mut self, prefix: Prefix, now: Moment) -> Arc<Account> {
        if let Some(account) = self.by_prefix.get(&prefix) {
            return Arc::clone(account);
        }
        if self.by_prefix.len() >= self.sweep_at {
            self.sweep(now);
        }
        let account = Account::new(&self.shares);
        self.by_prefix.insert(prefix, Arc::clone(&account));
        account
    }

    /// Drops the accounts that nobody holds and that have done nothing lately.
    fn sweep(&mut self, now: Moment) {
        // References are made under the lock, or from one that somebody holds: who is alone here stays alone.
        let is_held = |account: &Arc<Account>| Arc::strong_count(account) > 1;
        let mut idle = 0;
        self.by_prefix.retain(|_, account| {
            let rests = !is_held(account);
            debug_assert!(!rests || account.used.iter().all(|used| used.load(Ordering::Relaxed) == 0));
            let stays = !rests || (!account.rests(now) && idle < IDLE_MAX / PARTS);
            idle += usize::from(rests && stays);
            stays
        });
        self.sweep_at = SWEEP_LEAST.max(2 * self.by_prefix.len());
        self.by_prefix.shrink_to(self.sweep_at);
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn account(most: usize) -> Arc<Account> {
        Account::new(&Arc::new(Shares::new([most; TABLES])))
    }

    #[test]
    fn many_at_once_never_have_more_than_the_share_and_leave_nothing() {
        let account = account(100);
        thread::scope(|scope| {
            for thread in 0..4 {
                let account = &account;
                scope.spawn(move || {
                    for n in 0..5000 {
                        let held = (n * 7 + thread) % 60;
                        let Some(mut charge) = Charge::new(account, Table::Values, held, 100) else { continue };
                        assert!(account.used(Table::Values) <= 100);
                        charge.resize((n * 11 + thread) % 90);
                        assert!(account.used(Table::Values) <= 100);
                    }
                });
            }
        });
        assert_eq!(account.used(Table::Values), 0);
    }

    #[test]
    fn a_charge_that_does_not_grow_stays_as_it_was() {
        let account = account(10);
        let mut first = Charge::new(&account, Table::Values, 6, 10).unwrap();
        let second = Charge::new(&account, Table::Values, 4, 10).unwrap();
        assert!(Charge::new(&account, Table::Values, 1, 10).is_none());
        assert!(!first.resize(7) && first.resize(5) && first.resize(6));
        drop(second);
        assert!(first.resize(10) && first.is_of(&account));
        assert_eq!((account.used(Table::Values), account.used(Table::Topics)), (10, 0));
    }

    #[test]
    fn accounts_of_addresses_that_have_gone_are_swept_out_once_their_quotas_are_whole_again() {
        let shares = Arc::new(Shares::new([usize::MAX; TABLES]));
        let mut accounts = Accounts::new(&shares, Quota::new("10/s".parse().unwrap()));
        let prefix = |n: u32| Prefix::of(std::net::Ipv4Addr::from(n).into(), 64);
        let start = Moment(1_000_000_000);
        let held = accounts.find(prefix(0), start);
        let busy = accounts.find(prefix(1), start);
        assert!(accounts.connects.allows_shared(&busy.connects, start));
        let known = Arc::as_ptr(&busy);
        drop(busy);
        for n in 2..5000 {
            drop(accounts.find(prefix(n), start));
            assert!(accounts.len() <= SWEEP_LEAST, "{}", accounts.len());
        }
        assert_eq!(Arc::as_ptr(&accounts.find(prefix(1), start)), known, "it is remembered for a while");
        accounts.sweep(start + Duration::from_secs(1));
        assert_eq!(accounts.len(), 1);
        assert!(Arc::ptr_eq(&held, &accounts.find(prefix(0), start)));
    }

    #[test]
    fn however_many_addresses_were_busy_lately_only_so_many_are_remembered() {
        let shares = Arc::new(Shares::new([usize::MAX; TABLES]));
        let mut accounts = Accounts::new(&shares, Quota::new("10/s".parse().unwrap()));
        let most = (IDLE_MAX / PARTS) as u32;
        for n in 0..20 * most {
            let account = accounts.find(Prefix::of(std::net::Ipv4Addr::from(n).into(), 64), Moment(1));
            assert!(accounts.connects.allows_shared(&account.connects, Moment(1)));
        }
        assert!(accounts.len() <= 2 * most as usize, "{}", accounts.len());
    }
}
