//! The addresses that strangers hold: machines that no project declares. Every change costs the same however
//! many there are.
//!
//! An address is chosen by the hash of who asks, and the next free one where that is taken. An offer keeps
//! nothing: a flood of questions from invented clients costs no memory and takes no address away. Two clients
//! offered the same address are told apart when they ask to hold it: the second is refused and asks again.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use stead_model::address::Mac;

use super::network::Net;

/// Who holds a lease. Both together: cloned disks repeat a client identifier, and a link with many clients
/// behind it (ipvlan) repeats a MAC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The hardware address in the packet.
    pub mac: Mac,
    /// The client identifier (option 61); empty where it sent none.
    pub id: Box<[u8]>,
}

/// A stranger's lease, as it is listed and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The hardware address.
    pub mac: Mac,
    /// The client identifier, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// What it was given.
    pub address: Ipv4Addr,
    /// The name that it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
}

/// The leases of one network.
#[derive(Debug, Default)]
pub struct Book {
    held: HashMap<Client, Held>,
    /// Every address that cannot be given out: held, or declined by somebody (`None`).
    taken: HashMap<Ipv4Addr, Option<Client>>,
    expiry: BTreeSet<(u64, Ipv4Addr)>,
    changed: bool,
}

#[derive(Debug)]
struct Held {
    address: Ipv4Addr,
    expires_s: u64,
    host_name: Option<String>,
}

/// More leases than this are not kept for one network, however large its pool is (some 4 MiB).
pub const LEASES_MAX: usize = 16 * 1024;

/// How long an address that a client found in use by another is left alone, in seconds.
pub const DECLINED_S: u64 = 600;

impl Book {
    /// The address that `client` would get: the one it has, the one it would like, or a free one.
    pub fn offer(
        &mut self,
        net: &Net,
        client: &Client,
        wish: Option<Ipv4Addr>,
        now_s: u64,
    ) -> Option<Ipv4Addr> {
        self.expire(now_s);
        let (first, last) = net.wanted.dhcp.as_ref()?.pool?;
        if let Some(held) = self.held.get(client).filter(|held| is_in_pool(net, held.address)) {
            return Some(held.address);
        }
        if let Some(wish) = wish.filter(|wish| self.is_free(net, *wish)) {
            return Some(wish);
        }
        let (first, last) = (u32::from(first), u32::from(last));
        let size = last.checked_sub(first)?.saturating_add(1);
        // Fixed addresses inside the pool make this a little too generous; the search below then finds none.
        if self.taken.len() >= usize::try_from(size).unwrap_or(usize::MAX).min(LEASES_MAX) {
            return None;
        }
        let start = u32::try_from(hash(client) % u64::from(size)).unwrap_or(0);
        (start..size)
            .chain(0..start)
            .map(|offset| Ipv4Addr::from(first.saturating_add(offset)))
            .find(|address| self.is_free(net, *address))
    }

    /// Gives `address` to `client` until `expires_s`; false if it cannot have it.
    pub fn hold(&mut self, net: &Net, client: &Client, wanted: Wanted, now_s: u64) -> bool {
        self.expire(now_s);
        let Wanted { address, host_name, expires_s } = wanted;
        let own = self.held.get(client).is_some_and(|held| held.address == address);
        if !(is_in_pool(net, address) && (own || self.is_free(net, address) && self.taken.len() < LEASES_MAX))
        {
            return false;
        }
        self.forget(client);
        self.insert(client.clone(), Held { address, expires_s, host_name });
        true
    }

    /// Takes `address` back from `client`, if it has it.
    pub fn release(&mut self, client: &Client, address: Ipv4Addr) {
        if self.held.get(client).is_some_and(|held| held.address == address) {
            self.forget(client);
        }
    }

    /// Leaves `address` alone for a while: `client`, which holds it, found another there.
    pub fn decline(&mut self, client: &Client, address: Ipv4Addr, now_s: u64) {
        if self.held.get(client).is_some_and(|held| held.address == address) {
            self.forget(client);
            self.taken.insert(address, None);
            self.expiry.insert((now_s.saturating_add(DECLINED_S), address));
        }
    }

    /// All leases, by address.
    pub fn list(&self) -> Vec<Lease> {
        let mut leases: Vec<Lease> = self
            .held
            .iter()
            .map(|(client, held)| Lease {
                mac: client.mac,
                client_id: to_hex(&client.id),
                address: held.address,
                host_name: held.host_name.clone(),
                expires_s: held.expires_s,
            })
            .collect();
        leases.sort_by_key(|lease| lease.address);
        leases
    }

    /// The leases of an earlier process. Of two for one address or one client, the first counts.
    pub fn restore(leases: &[Lease]) -> Self {
        let mut book = Self::default();
        for lease in leases.iter().take(LEASES_MAX) {
            let Some(id) = from_hex(&lease.client_id) else { continue };
            let client = Client { mac: lease.mac, id };
            if !book.held.contains_key(&client) && !book.taken.contains_key(&lease.address) {
                let (address, expires_s) = (lease.address, lease.expires_s);
                book.insert(client, Held { address, expires_s, host_name: lease.host_name.clone() });
            }
        }
        book.changed = false;
        book
    }

    /// Whether there is something to store since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether there is something to store.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    fn is_free(&self, net: &Net, address: Ipv4Addr) -> bool {
        is_in_pool(net, address) && !self.taken.contains_key(&address)
    }

    fn insert(&mut self, client: Client, held: Held) {
        self.taken.insert(held.address, Some(client.clone()));
        self.expiry.insert((held.expires_s, held.address));
        self.held.insert(client, held);
        self.changed = true;
    }

    fn forget(&mut self, client: &Client) {
        if let Some(held) = self.held.remove(client) {
            self.taken.remove(&held.address);
            self.expiry.remove(&(held.expires_s, held.address));
            self.changed = true;
        }
    }

    fn expire(&mut self, now_s: u64) {
        while let Some(&(expires_s, address)) = self.expiry.first() {
            if expires_s > now_s {
                return;
            }
            self.expiry.pop_first();
            if let Some(Some(client)) = self.taken.remove(&address) {
                self.held.remove(&client);
                self.changed = true;
            }
        }
    }
}

/// What a client is to hold.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The address.
    pub address: Ipv4Addr,
    /// What the client calls itself.
    pub host_name: Option<String>,
    /// When it ends.
    pub expires_s: u64,
}

/// Whether strangers may have this address at all.
fn is_in_pool(net: &Net, address: Ipv4Addr) -> bool {
    let (Some(dhcp), Some(gateway)) = (&net.wanted.dhcp, net.wanted.gateway) else { return false };
    dhcp.pool.is_some_and(|(first, last)| first <= address && address <= last)
        && gateway.contains(&address)
        && address != gateway.broadcast()
        && address != gateway.network()
        && !net.is_fixed(address)
}

/// FNV-1a, and a last mixing of the high bits into the low ones. Nothing depends on its strength: a client that
/// aims at another's address finds it taken.
fn hash(client: &Client) -> u64 {
    let bytes = client.mac.bytes();
    let mixed = bytes.iter().chain(&*client.id).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Box<[u8]>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
