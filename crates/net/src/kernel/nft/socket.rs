//! The nftables socket of one network namespace: transactions, and what there is, read back.

use std::fmt;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::netlink;

use super::{lacks, *};
use crate::kernel::socket::{NLM_F_DUMP, Refused, Socket};
use crate::kernel::tlv::{self, Message, attribute};

/// Something to change. Its `Display` is one line. All requests of one [`NftSocket::run`] are done, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftRequest {
    /// Makes a table; refused with `EEXIST` if there is one.
    Create(Table),
    /// Makes a table, in place of the one there is.
    Replace(Table),
    /// Makes chains, and the table that they are in; the rules of those that exist are replaced.
    SetChains(Family, &'static str, Vec<Chain>),
    /// Removes a table.
    DeleteTable(Family, &'static str),
    /// Adds elements; those that are there already stay.
    Add(Elements),
    /// Removes elements, where they are there.
    Remove(Elements),
}

/// A table that exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenTable {
    /// The kernel's number of its family: 1 is `inet`, 2 `ip`, 5 `netdev`, 7 `bridge`, 10 `ip6`.
    pub family: u8,
    /// Its name.
    pub name: String,
}

/// A chain that exists, ours or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenChain {
    /// Its table.
    pub table: SeenTable,
    /// Its name.
    pub name: String,
    /// The kernel's number of the hook where packets enter it: 2 is `forward`.
    pub hook: Option<u32>,
    /// Its place among the chains of the hook.
    pub priority: Option<i32>,
    /// Whether its policy is to drop.
    pub drops: bool,
    /// Whether it has rules, which may do anything.
    pub has_rules: bool,
}

/// How often we try to remove chains while others keep changing rules.
const REMOVE_ATTEMPTS: u32 = 50;
/// How often we read a set that the kernel is moving to a larger table, once for each doubling of it.
const ELEMENTS_ATTEMPTS: u32 = 50;
/// The kernel's `ERESTART`: the rules are of another generation than the transaction was made for.
const OTHER_GENERATION: Errno = Errno::from_raw_os_error(85);

/// The nftables socket of one network namespace.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
}

impl NftSocket {
    /// Takes a `NETLINK_NETFILTER` socket, which belongs to the namespace in which it was made.
    pub fn new(fd: OwnedFd) -> Result<Self> {
        Ok(Self { socket: Socket::new(fd)? })
    }

    /// Opens one in the current network namespace.
    pub fn open() -> Result<Self> {
        Socket::open(Some(netlink::NETFILTER)).map(|socket| Self { socket }).map_err(explained)
    }

    /// Carries out all requests, or none. The cause of an error is [`Refused`]; above it, what the kernel lacks.
    pub fn run(&self, requests: &[NftRequest]) -> Result<()> {
        let groups: Vec<_> =
            requests.iter().map(|request| (request.to_string(), request.messages())).collect();
        let Err(refused) = self.transaction(groups, None)? else { return Ok(()) };
        let missing = if lacks::may_be(refused.errno) { self.missing(requests)? } else { Vec::new() };
        let refused = anyhow::Error::new(refused);
        Err(if missing.is_empty() { refused } else { refused.context(lacks::words(&missing)) })
    }

    /// The parts of nftables that these requests need and this kernel does not have.
    pub fn missing(&self, requests: &[NftRequest]) -> Result<Vec<&'static str>> {
        let mut missing = Vec::new();
        for (part, table) in lacks::trials(requests) {
            let trial = (part.to_owned(), lacks::messages(&table));
            if self.transaction(vec![trial], None)?.is_err_and(|refused| lacks::may_be(refused.errno)) {
                missing.push(part);
            }
        }
        Ok(missing)
    }

    /// Removes the chains of these names from a table, and the table with its last chain. Somebody else may
    /// add chains of theirs meanwhile: then we look again.
    pub fn remove_chains(&self, family: Family, table: &'static str, names: &[String]) -> Result<()> {
        for _ in 0..REMOVE_ATTEMPTS {
            let generation = self.generation()?;
            let (ours, others): (Vec<_>, Vec<_>) = self
                .chains()?
                .into_iter()
                .filter(|chain| chain.table.family == family.number() && chain.table.name == table)
                .partition(|chain| names.contains(&chain.name));
            if ours.is_empty() {
                return Ok(());
            }
            let messages = if others.is_empty() {
                vec![wire::table(wire::DELTABLE, 0, family, table)]
            } else {
                // Rules first: they may lead from one of our chains to another.
                let each = |kind| ours.iter().map(move |chain| wire::chain(kind, family, table, &chain.name));
                each(wire::DELRULE).chain(each(wire::DELCHAIN)).collect()
            };
            let request = format!("- chains {} of table {family} {table}", names.join(", "));
            match self.transaction(vec![(request, messages)], Some(generation))? {
                Err(refused) if refused.errno == OTHER_GENERATION => {}
                result => return Ok(result?),
            }
        }
        bail!("the rules kept changing during {REMOVE_ATTEMPTS} attempts to remove chains of `{table}`")
    }

    /// All tables.
    pub fn tables(&self) -> Result<Vec<SeenTable>> {
        let question = wire::message(wire::GETTABLE, NLM_F_DUMP, 0);
        let read = |body: &[u8]| {
            let name = tlv::text(attribute(body.get(4..)?, wire::TABLE)?);
            Some(SeenTable { family: *body.first()?, name })
        };
        let tables = self.socket.dump(&question, |received| read(received.body));
        tables.map_err(explained).context("cannot list nftables' tables")
    }

    /// All chains, of all families.
    pub fn chains(&self) -> Result<Vec<SeenChain>> {
        let question = wire::message(wire::GETCHAIN, NLM_F_DUMP, 0);
        let chains = self.socket.dump(&question, |received| wire::read_chain(received.body));
        chains.map_err(explained).context("cannot list nftables' chains")
    }

    /// The elements of the sets that we fill, of a table like this; none if there is no such table. The
    /// elements are sorted.
    pub fn elements(&self, table: &Table) -> Result<Option<Vec<Elements>>> {
        let there = |seen: &SeenTable| seen.family == table.family.number() && seen.name == table.name;
        if !self.tables()?.iter().any(there) {
            return Ok(None);
        }
        let ours = table.sets.iter().filter(|set| matches!(set.filled, Filled::ByUs(_)));
        ours.map(|set| self.there(table, set)).collect::<Result<_>>().map(Some)
    }

    /// The elements of a set, which is made where an earlier version of this program made the table without it.
    fn there(&self, table: &Table, set: &Set) -> Result<Elements> {
        match self.set_elements(table, set) {
            Err(error) if error.downcast_ref() == Some(&Errno::NOENT) => {
                let what = format!("+ set {} of table {} {}", set.name, table.family, table.name);
                self.transaction(vec![(what, vec![wire::new_set(table, set, 1)])], None)??;
                Ok(Elements { family: table.family, table: table.name, set: set.name, elements: Vec::new() })
            }
            found => found,
        }
    }

    /// While the kernel moves a large set to a larger table, its dump, which counts from the start for each
    /// datagram, names some elements twice and leaves as many out; it does not say so as it does of other changes.
    fn set_elements(&self, table: &Table, set: &Set) -> Result<Elements> {
        let question = wire::list_elements(table.family, table.name, set.name, NLM_F_DUMP);
        for _ in 0..ELEMENTS_ATTEMPTS {
            let parts = self
                .socket
                .dump(&question, |received| Some(wire::read_elements(received.body, &set.key)))
                .with_context(|| format!("cannot list the elements of set `{}`", set.name))?;
            let mut elements: Vec<Element> = parts.into_iter().flatten().collect();
            elements.sort();
            if elements.is_sorted_by(|one, next| one < next) {
                return Ok(Elements { family: table.family, table: table.name, set: set.name, elements });
            }
        }
        bail!("the elements of set `{}` kept moving during {ELEMENTS_ATTEMPTS} readings", set.name)
    }

    /// The number of the last transaction.
    fn generation(&self) -> Result<u32> {
        let question = wire::message(wire::GETGEN, wire::ANSWERED, 0);
        let numbers = self.socket.dump(&question, |received| {
            attribute(received.body.get(4..)?, 1).and_then(|value| tlv::array_at(value, 0))
        });
        let numbers = numbers.context("cannot read the generation of nftables' rules")?;
        numbers.first().copied().map(u32::from_be_bytes).context("nftables' rules have no generation")
    }

    /// Sends messages, grouped by what they are for.
    fn transaction(
        &self,
        groups: Vec<(String, Vec<Message>)>,
        generation: Option<u32>,
    ) -> Result<Result<(), Refused>> {
        let mut owners = Vec::new();
        let mut all = Vec::new();
        for (request, messages) in groups {
            owners.extend(std::iter::repeat_n(request, messages.len()));
            all.extend(messages);
        }
        let Some(last) = all.last_mut() else { return Ok(Ok(())) };
        last.add_flags(wire::ANSWERED);
        let Some((index, errno, words)) = self.socket.transaction(wire::batch(all, generation))? else {
            return Ok(Ok(()));
        };
        // Message 0 is the beginning of the batch: all of it was turned down.
        let request = index.checked_sub(1).and_then(|index| owners.get(index).cloned());
        let request = request.unwrap_or_else(|| owners.first().cloned().unwrap_or_default());
        Ok(Err(Refused { request, errno, words }))
    }
}

/// The same error, and above it that the kernel has no nftables, if that is why: no such protocol, or a subsystem that it does not know.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(&(Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::INVAL)) => error
            .context("this kernel has no nftables; hint: `modprobe nf_tables`, or use a kernel that has it"),
        _ => error,
    }
}

impl NftRequest {
    fn messages(&self) -> Vec<Message> {
        match self {
            Self::Create(table) => wire::whole_table(table, wire::EXCLUSIVE),
            Self::Replace(table) => {
                // Made first, so that there is one to remove.
                let mut messages = vec![
                    wire::table(wire::NEWTABLE, wire::CREATE, table.family, table.name),
                    wire::table(wire::DELTABLE, 0, table.family, table.name),
                ];
                messages.extend(wire::whole_table(table, 0));
                messages
            }
            Self::SetChains(family, table, chains) => {
                let mut messages = vec![wire::table(wire::NEWTABLE, wire::CREATE, *family, table)];
                let bare = chains.iter().map(|chain| Chain { rules: Vec::new(), ..chain.clone() });
                messages.extend(wire::chains(*family, table, &bare.collect::<Vec<_>>()));
                messages.extend(
                    chains.iter().map(|chain| wire::chain(wire::DELRULE, *family, table, &chain.name)),
                );
                messages.extend(wire::chains(*family, table, chains));
                messages
            }
            Self::DeleteTable(family, table) => vec![wire::table(wire::DELTABLE, 0, *family, table)],
            Self::Add(elements) => wire::set_elements(wire::NEWSETELEM, elements),
            Self::Remove(elements) => {
                // Added first, so that there is something to remove: kernels before 6.3 have no other way to
                // remove what may be absent.
                let mut messages = wire::set_elements(wire::NEWSETELEM, elements);
                messages.extend(wire::set_elements(wire::DELSETELEM, elements));
                messages
            }
        }
    }
}

impl fmt::Display for NftRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(table) => write!(f, "+ table {} {}", table.family, table.name),
            Self::Replace(table) => write!(f, "~ table {} {}", table.family, table.name),
            Self::SetChains(family, table, chains) => {
                let names: Vec<_> = chains.iter().map(|chain| chain.name.as_str()).collect();
                write!(f, "+ chains {} of table {family} {table}", names.join(", "))
            }
            Self::DeleteTable(family, table) => write!(f, "- table {family} {table}"),
            Self::Add(elements) => write!(f, "+ {elements}"),
            Self::Remove(elements) => write!(f, "- {elements}"),
        }
    }
}

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elements: Vec<_> = self.elements.iter().map(|element| text::joined(element, " . ")).collect();
        write!(f, "elements {} of @{} in table {} {}", elements.join(", "), self.set, self.family, self.table)
    }
}
