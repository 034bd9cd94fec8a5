//! How much there may be of what all clients share, in all and of one address; and how often one address may do something.
//!
//! By default one address has at most half of each table, so that one client alone, with however many connections, never
//! fills what the others need. Who counts as one address is for [`Prefix`] to say; what it has and has done is its
//! [`Account`], shared by everything that counts by address: acceptors, workers, the control thread and the table of topics.
//! The server's own feeds have no account: they aren't bounded by address.
//!
//! A connection takes its place with a [`Permit`] and looks its account up once, under a lock; whatever it charges
//! afterwards is an atomic operation or two. All of it is given back when the permit is dropped, whatever the connection came to.

mod account;
mod lately;
mod places;
mod prefix;
mod quota;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytesize::ByteSize;
use parking_lot::{Mutex, MutexGuard};

use self::account::{Accounts, PARTS, Shares, TABLES, take};
pub use self::{
    account::{Account, Charge, MUCH, Table},
    places::{Place, Places},
    prefix::Prefix,
    quota::{Quota, Spent, weight},
};
use crate::{clock::Moment, config::Config, metrics::Refusal};

/// The bounds; `usize::MAX` for any number.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections.
    pub connections: usize,
    /// Bytes of unfinished messages.
    pub assembly: usize,
    /// Bytes of all that connections hold.
    pub held: usize,
    /// How often one address may connect.
    pub connects: Quota,
    /// What one address may have, by [`Table`].
    pub shares: [usize; TABLES],
}

impl Bounds {
    /// Those of the settings.
    pub fn of(config: &Config) -> Bounds {
        // An address that was given no share has room for a message, which may be more than half.
        let room = |set: Option<ByteSize>, whole: ByteSize| {
            let set = set.map(|size| size.as_u64() as usize);
            let least = if set.is_none() { config.message_room() as usize } else { 0 };
            share(set, whole.as_u64() as usize).max(least)
        };
        Bounds {
            connections: config.max_connections,
            assembly: config.max_assembly.as_u64() as usize,
            held: config.max_held.as_u64() as usize,
            connects: Quota::new(config.max_connects_per_ip),
            shares: [
                share(config.max_connections_per_ip, config.max_connections),
                share(config.max_subscriptions_per_ip, config.max_subscriptions_total),
                share(config.max_topics_per_ip, config.max_topics),
                share(config.max_values_per_ip.map(|size| size.as_u64() as usize), config.max_values.as_u64() as usize),
                room(config.max_assembly_per_ip, config.max_assembly),
                room(config.max_held_per_ip, config.max_held),
                share(None, config.tls_buffers.as_u64() as usize),
                share(None, config.tls_buffers.as_u64() as usize),
            ],
        }
    }
}

/// What one address may have of a table: what was set, where 0 is any number; half of the table, if nothing was.
pub fn share(set: Option<usize>, whole: usize) -> usize {
    match set {
        Some(0) => usize::MAX,
        Some(most) => most,
        None => whole.div_ceil(2),
    }
}

/// The status and the sentence that a client is told whose connection was not admitted.
pub fn told(why: Refusal) -> (u16, &'static str) {
    match why {
        Refusal::AddressFull => (503, "There are too many connections from your address (--max-connections-per-ip)."),
        Refusal::ConnectsLimited => (429, "Your address connects too often (--max-connects-per-ip): try again later."),
        _ => (503, "The server is full: try again later."),
    }
}

/// The bounds, and what is used of them.
#[derive(Debug)]
pub struct Limits {
    connections: AtomicUsize,
    connections_max: AtomicUsize,
    assembly: AtomicUsize,
    assembly_max: AtomicUsize,
    held: AtomicUsize,
    held_max: AtomicUsize,
    shares: Arc<Shares>,
    /// By a hash of the address, so that no sweep of all of them has everybody wait.
    accounts: Box<[Mutex<Accounts>]>,
    key: RandomState,
    ipv6_len: u8,
}

impl Limits {
    /// These bounds, with IPv6 addresses counted by prefixes of `ipv6_len` bits.
    pub fn new(bounds: &Bounds, ipv6_len: u8) -> Arc<Limits> {
        let shares = Arc::new(Shares::new(bounds.shares));
        Arc::new(Limits {
            connections: AtomicUsize::new(0),
            connections_max: AtomicUsize::new(bounds.connections),
            assembly: AtomicUsize::new(0),
            assembly_max: AtomicUsize::new(bounds.assembly),
            held: AtomicUsize::new(0),
            held_max: AtomicUsize::new(bounds.held),
            accounts: (0..PARTS).map(|_| Mutex::new(Accounts::new(&shares, bounds.connects))).collect(),
            key: RandomState::new(),
            shares,
            ipv6_len,
        })
    }

    /// At most so many connections, and no other bound: for tests and measurements of something else.
    #[cfg(any(feature = "bench", test))]
    pub fn of_connections(connections_max: usize) -> Arc<Limits> {
        let connects = Quota::new("0".parse().expect("no limit"));
        let shares = [usize::MAX; TABLES];
        let (assembly, held) = (usize::MAX, usize::MAX);
        Limits::new(&Bounds { connections: connections_max, assembly, held, connects, shares }, 64)
    }

    /// Sets the bounds anew. Who is there stays, and whoever has more than it may keeps it.
    pub fn set(&self, bounds: &Bounds) {
        self.connections_max.store(bounds.connections, Ordering::Relaxed);
        self.assembly_max.store(bounds.assembly, Ordering::Relaxed);
        self.held_max.store(bounds.held, Ordering::Relaxed);
        self.shares.set(bounds.shares);
        self.accounts.iter().for_each(|part| part.lock().connects = bounds.connects);
    }

    /// Connections that there may be.
    pub fn connections_max(&self) -> usize {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes of unfinished messages that there may be.
    pub fn assembly_max(&self) -> usize {
        self.assembly_max.load(Ordering::Relaxed)
    }

    /// Bytes that connections may hold.
    pub fn held_max(&self) -> usize {
        self.held_max.load(Ordering::Relaxed)
    }

    /// Addresses that have an account.
    pub fn addresses(&self) -> usize {
        self.accounts.iter().map(|part| part.lock().len()).sum()
    }

    /// The account of an address, for something other than a connection of its own.
    pub fn account(&self, address: IpAddr, now: Moment) -> Arc<Account> {
        let prefix = Prefix::of(address, self.ipv6_len);
        self.part_of(prefix).find(prefix, now)
    }

    /// The accounts among which that of `prefix` is, or comes to be.
    fn part_of(&self, prefix: Prefix) -> MutexGuard<'_, Accounts> {
        self.accounts[self.key.hash_one(prefix) as usize % PARTS].lock()
    }

    /// Takes up room for a connection until the permit is dropped, and of `address`, if one is to be counted.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn admit(self: &Arc<Limits>, address: Option<IpAddr>, now: Moment) -> Result<Permit, Refusal> {
        if !take(&self.connections, 1, self.connections_max()) {
            return Err(Refusal::ServerFull);
        }
        // From here on the permit gives back what was taken.
        let mut permit = Permit { limits: Arc::clone(self), account: None, subscriptions: 0, assembly: 0, held: 0 };
        if let Some(address) = address {
            permit.count(address, now)?;
        }
        Ok(permit)
    }
}

/// Room for one connection, and what that connection has of other tables.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    /// None for a connection that isn't counted for an address: a trusted proxy's, whose client isn't known (yet).
    account: Option<Arc<Account>>,
    subscriptions: u32,
    assembly: u32,
    held: u32,
}

/// What nobody is refused, nor cut for, however little there is left of what all may hold. An ordinary connection holds less.
pub const HELD_LEAST: usize = 4096;

impl Permit {
    /// Counts the connection as one of `address` as well. For a proxy's connection, whose client is known later.
    ///
    /// # Errors
    /// There are as many as there may be, or they come too often.
    pub fn count(&mut self, address: IpAddr, now: Moment) -> Result<(), Refusal> {
        if self.account.is_some() {
            return Ok(());
        }
        let account = {
            let prefix = Prefix::of(address, self.limits.ipv6_len);
            let mut accounts = self.limits.part_of(prefix);
            let account = accounts.find(prefix, now);
            if !accounts.connects.allows_shared(&account.connects, now) {
                return Err(Refusal::ConnectsLimited);
            }
            account
        };
        if !account.take(Table::Connections, 1, account.most(Table::Connections)) {
            return Err(Refusal::AddressFull);
        }
        account.take_anyway(Table::Held, self.held());
        self.account = Some(account);
        Ok(())
    }

    /// The account of the address that the connection is counted for.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.account.as_ref()
    }

    /// Counts `n` subscriptions more.
    ///
    /// # Errors
    /// How many its address may have: these would be too many, and none is counted.
    pub fn subscribe(&mut self, n: usize) -> Result<(), usize> {
        if let Some(account) = &self.account {
            let most = account.most(Table::Subscriptions);
            if !account.take(Table::Subscriptions, n, most) {
                return Err(most);
            }
            self.subscriptions += n as u32;
        }
        Ok(())
    }

    /// Counts `n` subscriptions less.
    pub fn unsubscribe(&mut self, n: usize) {
        if let Some(account) = &self.account {
            debug_assert!(n <= self.subscriptions as usize, "{n} of {} end", self.subscriptions);
            account.give_back(Table::Subscriptions, n);
            self.subscriptions -= n as u32;
        }
    }

    /// Hands on what `n` of its subscriptions are of its address's share, which may then outlive the connection.
    pub fn part(&mut self, n: usize) -> Option<Charge> {
        let account = self.account.as_ref()?;
        debug_assert!(n <= self.subscriptions as usize, "{n} of {} end", self.subscriptions);
        self.subscriptions -= n as u32;
        Some(Charge::taken(account, Table::Subscriptions, n))
    }

    /// From now on the connection holds so many bytes of unfinished messages.
    ///
    /// # Errors
    /// Which bound is reached: it still holds as many as before.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.assembly as usize;
        if let Some(more) = bytes.checked_sub(before) {
            self.may_hold(bytes, more)?;
            if let Some(account) = &self.account
                && !account.take(Table::Assembly, more, account.most(Table::Assembly))
            {
                return Err(Refusal::AddressAssemblyFull);
            }
            if !take(&self.limits.assembly, more, self.limits.assembly_max()) {
                if let Some(account) = &self.account {
                    account.give_back(Table::Assembly, more);
                }
                return Err(Refusal::AssemblyFull);
            }
        } else {
            self.give_back(before - bytes);
        }
        // A message has at most 512 MiB.
        self.assembly = bytes as u32;
        Ok(())
    }

    /// Whether there is room for `more` of what all connections hold; none is needed for less than [`HELD_LEAST`] in one piece.
    ///
    /// # Errors
    /// Which bound would be exceeded.
    pub fn may_hold(&self, piece: usize, more: usize) -> Result<(), Refusal> {
        if piece < HELD_LEAST {
            return Ok(());
        }
        if self.account.as_ref().is_some_and(|account| !account.fits(Table::Held, more)) {
            return Err(Refusal::AddressHeldFull);
        }
        let held = self.limits.held.load(Ordering::Relaxed);
        if held.saturating_add(more) > self.limits.held_max() { Err(Refusal::HeldFull) } else { Ok(()) }
    }

    /// Notes that the connection holds so many bytes, of any kind. That is so whether there is room for it or not.
    pub fn holds(&mut self, bytes: usize) {
        // No connection comes near 4 GiB: each kind has a bound well below.
        let (before, bytes) = (self.held, u32::try_from(bytes).unwrap_or(u32::MAX));
        self.held = bytes;
        let (more, less) = (bytes.saturating_sub(before) as usize, before.saturating_sub(bytes) as usize);
        self.limits.held.fetch_add(more, Ordering::Relaxed);
        self.limits.held.fetch_sub(less, Ordering::Relaxed);
        if let Some(account) = &self.account {
            account.take_anyway(Table::Held, more);
            account.give_back(Table::Held, less);
        }
    }

    /// What it was said to hold last.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// Which bound of what connections hold is exceeded, of its address or of all; none if none is.
    pub fn held_excess(&self) -> Option<Refusal> {
        self.may_hold(HELD_LEAST, 0).err()
    }

    /// Whether all connections hold more than they may.
    pub fn all_hold_too_much(&self) -> bool {
        self.limits.held.load(Ordering::Relaxed) > self.limits.held_max()
    }

    /// It holds none any more.
    pub fn let_go(&mut self) {
        let held = std::mem::take(&mut self.assembly);
        self.give_back(held as usize);
    }

    fn give_back(&self, bytes: usize) {
        self.limits.assembly.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(account) = &self.account {
            account.give_back(Table::Assembly, bytes);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limits.connections.fetch_sub(1, Ordering::Relaxed);
        self.let_go();
        self.holds(0);
        if let Some(account) = &self.account {
            account.give_back(Table::Subscriptions, self.subscriptions as usize);
            account.give_back(Table::Connections, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Moment = Moment(1_000_000_000);

    fn bounds(connections: usize, per_address: usize) -> Bounds {
        Bounds {
            connections,
            assembly: 1000,
            held: 1_000_000,
            connects: Quota::new("0".parse().unwrap()),
            shares: [per_address; TABLES],
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_bound_holds_and_is_given_back() {
        let limits = Limits::new(&bounds(3, 2), 64);
        let (a, b) = (address("127.0.0.1"), address("127.0.0.2"));
        let first = limits.admit(Some(a), NOW).unwrap();
        let _second = limits.admit(Some(a), NOW).unwrap();
        assert_eq!(limits.admit(Some(a), NOW).unwrap_err(), Refusal::AddressFull);
        let _third = limits.admit(Some(b), NOW).unwrap();
        assert_eq!(limits.admit(Some(b), NOW).unwrap_err(), Refusal::ServerFull);
        drop(first);
        assert_eq!(limits.connections(), 2);
        drop(limits.admit(Some(a), NOW).unwrap());
        assert_eq!(limits.connections(), 2);
        let mut by_proxy = limits.admit(None, NOW).unwrap();
        by_proxy.count(b, NOW).unwrap();
        let mut another = Limits::new(&bounds(2, 1), 64).admit(Some(a), NOW).unwrap();
        another.count(b, NOW).expect("it is counted once");
        drop(by_proxy);
        limits.set(&bounds(1, usize::MAX));
        assert_eq!(limits.admit(Some(b), NOW).unwrap_err(), Refusal::ServerFull);
        limits.set(&bounds(4, usize::MAX));
        let _more = [limits.admit(Some(a), NOW).unwrap(), limits.admit(Some(a), NOW).unwrap()];
    }

    #[test]
    fn one_address_has_half_of_each_table_unless_it_was_set() {
        let config = Config { max_connections: 9, max_topics_per_ip: Some(0), ..Config::default() };
        let shares = Bounds::of(&config).shares;
        assert_eq!(shares, [5, 500_000, usize::MAX, 128 << 20, 128 << 20, 128 << 20, 32 << 20, 32 << 20]);
        let config = Config { max_connections_per_ip: Some(7), max_topics: 1, ..config };
        assert_eq!(Bounds::of(&config).shares[..3], [7, 500_000, usize::MAX]);
        assert_eq!(Bounds::of(&Config { max_topics_per_ip: None, ..config }).shares[2], 1, "one is no less than half");
    }

    #[test]
    fn one_client_is_one_address_in_whatever_form() {
        let limits = Limits::new(&bounds(10, 1), 64);
        let _held = ["192.0.2.7", "2001:db8:1:2::7"].map(|text| limits.admit(Some(address(text)), NOW).unwrap());
        for same in ["::ffff:192.0.2.7", "2001:db8:1:2:3::8"] {
            assert_eq!(limits.admit(Some(address(same)), NOW).unwrap_err(), Refusal::AddressFull, "{same}");
        }
        limits.admit(Some(address("2001:db8:1:3::7")), NOW).unwrap();
        assert_eq!(limits.addresses(), 3);
    }

    #[test]
    fn nobody_waits_for_more_than_a_small_part_of_all_accounts() {
        let limits = Limits::new(&bounds(1, 1), 64);
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let held: Vec<_> = (0..20_000).map(|n| limits.account(address(n), NOW)).collect();
        let largest = limits.accounts.iter().map(|part| part.lock().len()).max();
        assert!(largest < Some(200) && limits.addresses() == held.len(), "{largest:?}");
    }

    #[test]
    fn what_a_connection_holds_is_bounded_by_address_and_in_all_and_goes_with_it() {
        let limits = Limits::new(&bounds(10, 600), 64);
        let [mut first, mut second] = [(); 2].map(|()| limits.admit(Some(address("127.0.0.1")), NOW).unwrap());
        let mut other = limits.admit(Some(address("127.0.0.2")), NOW).unwrap();
        first.hold(500).unwrap();
        assert_eq!(second.hold(101), Err(Refusal::AddressAssemblyFull));
        second.hold(100).unwrap();
        assert_eq!(other.hold(401), Err(Refusal::AssemblyFull));
        other.hold(400).unwrap();
        first.hold(400).unwrap();
        assert_eq!(second.hold(201), Err(Refusal::AddressAssemblyFull), "nothing stays of what was refused");
        assert_eq!((first.subscribe(599), second.subscribe(2), other.subscribe(600)), (Ok(()), Err(600), Ok(())));
        first.unsubscribe(1);
        second.subscribe(2).unwrap();
        let account = Arc::clone(first.account().unwrap());
        assert_eq!(account.used(Table::Subscriptions), 600);
        drop((first, second, other));
        let left = [Table::Connections, Table::Subscriptions, Table::Assembly].map(|table| account.used(table));
        assert_eq!((left, limits.assembly.load(Ordering::Relaxed)), ([0; 3], 0));
    }

    #[test]
    fn whoever_comes_and_goes_is_stopped_and_comes_back_to_the_same_quota() {
        let limits =
            Limits::new(&Bounds { connects: Quota::new("10/s".parse().unwrap()), ..bounds(100, usize::MAX) }, 64);
        let tries = |from: &str, at| (0..50).filter(|_| limits.admit(Some(address(from)), at).is_ok()).count();
        assert_eq!(tries("127.0.0.1", NOW), 20, "two seconds' worth at once");
        assert_eq!(limits.admit(Some(address("127.0.0.1")), NOW).unwrap_err(), Refusal::ConnectsLimited);
        assert_eq!(limits.connections(), 0, "none of them stayed");
        assert_eq!(tries("127.0.0.2", NOW), 20);
        assert_eq!(tries("127.0.0.1", NOW + Duration::from_millis(500)), 5);
        let mut by_proxy = limits.admit(None, NOW).unwrap();
        assert_eq!(by_proxy.count(address("127.0.0.2"), NOW), Err(Refusal::ConnectsLimited));
    }

    #[test]
    fn what_connections_hold_is_counted_also_beyond_the_bounds_and_only_who_asks_for_more_is_refused() {
        let limits = Limits::new(&Bounds { held: 100_000, ..bounds(10, 60_000) }, 64);
        let mut first = limits.admit(Some(address("127.0.0.1")), NOW).unwrap();
        let mut other = limits.admit(None, NOW).unwrap();
        first.holds(50_000);
        assert_eq!(first.may_hold(10_001, 10_001), Err(Refusal::AddressHeldFull));
        assert_eq!((first.may_hold(10_000, 10_000), first.may_hold(HELD_LEAST - 1, usize::MAX)), (Ok(()), Ok(())));
        assert_eq!((other.may_hold(50_000, 50_000), other.may_hold(50_001, 50_001)), (Ok(()), Err(Refusal::HeldFull)));
        first.holds(70_000);
        assert_eq!((first.held_excess(), other.held_excess()), (Some(Refusal::AddressHeldFull), None));
        other.holds(40_000);
        assert_eq!((other.held_excess(), other.hold(5000)), (Some(Refusal::HeldFull), Err(Refusal::HeldFull)));
        // A proxy's connection takes along what it holds to the address that it turns out to be of.
        other.count(address("127.0.0.2"), NOW).unwrap();
        let account = Arc::clone(other.account().unwrap());
        assert_eq!(account.used(Table::Held), 40_000);
        other.holds(10_000);
        drop(first);
        assert_eq!((account.used(Table::Held), limits.held.load(Ordering::Relaxed)), (10_000, 10_000));
        drop(other);
        assert_eq!((account.used(Table::Held), limits.held.load(Ordering::Relaxed)), (0, 0));
    }
}
