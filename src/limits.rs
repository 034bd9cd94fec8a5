//! How many connections there may be, in all and from one address.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::metrics::Refusal;

/// The bounds, and what is used of them.
#[derive(Debug)]
pub struct Limits {
    connections: AtomicUsize,
    connections_max: AtomicUsize,
    by_address: Mutex<FxHashMap<IpAddr, usize>>,
    by_address_max: AtomicUsize,
}

impl Limits {
    /// At most so many connections, and so many from one address (0: any number).
    pub fn new(connections_max: usize, by_address_max: usize) -> Arc<Limits> {
        Arc::new(Limits {
            connections: AtomicUsize::new(0),
            connections_max: AtomicUsize::new(connections_max),
            by_address: Mutex::default(),
            by_address_max: AtomicUsize::new(by_address_max),
        })
    }

    /// Sets both bounds anew. Who is there stays; whoever came while there was no bound for an address is not counted
    /// against one that is set now.
    pub fn set(&self, connections_max: usize, by_address_max: usize) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        self.by_address_max.store(by_address_max, Ordering::Relaxed);
    }

    /// Connections that there may be.
    pub fn connections_max(&self) -> usize {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes up room for a connection until the permit is dropped, and of `address`, if one is to be counted.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn admit(self: &Arc<Limits>, address: Option<IpAddr>) -> Result<Permit, Refusal> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::ServerFull);
        }
        // From here on the permit gives back what was taken.
        let mut permit = Permit { limits: Arc::clone(self), address: None };
        if let Some(address) = address {
            permit.count(address)?;
        }
        Ok(permit)
    }
}

impl Permit {
    /// Counts the connection as one of `address` as well. For a proxy's connection, whose client is known later.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn count(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let by_address_max = self.limits.by_address_max.load(Ordering::Relaxed);
        if by_address_max > 0 && self.address.is_none() {
            let mut table = self.limits.by_address.lock();
            let count = table.entry(address).or_default();
            if *count >= by_address_max {
                return Err(Refusal::AddressFull);
            }
            *count += 1;
            self.address = Some(address);
        }
        Ok(())
    }
}

/// Room for one connection.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    address: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limits.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut table = self.limits.by_address.lock();
        if let Some(count) = table.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                table.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_holds_and_is_given_back() {
        let limits = Limits::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
        let first = limits.admit(Some(a)).unwrap();
        let _second = limits.admit(Some(a)).unwrap();
        assert_eq!(limits.admit(Some(a)).unwrap_err(), Refusal::AddressFull);
        let _third = limits.admit(Some(b)).unwrap();
        assert_eq!(limits.admit(Some(b)).unwrap_err(), Refusal::ServerFull);
        drop(first);
        assert_eq!(limits.connections(), 2);
        drop(limits.admit(Some(a)).unwrap());
        assert_eq!(limits.connections(), 2);
        let mut by_proxy = limits.admit(None).unwrap();
        by_proxy.count(b).unwrap();
        let mut another = Limits::new(2, 1).admit(Some(a)).unwrap();
        another.count(b).expect("it is counted once");
        drop(by_proxy);
        limits.set(1, 0);
        assert_eq!(limits.admit(Some(b)).unwrap_err(), Refusal::ServerFull);
        limits.set(4, 0);
        let _more = [limits.admit(Some(a)).unwrap(), limits.admit(Some(a)).unwrap()];
    }
}
