//! The loops between sockets and answers. Each owns its sockets, reads the network as it is at the moment of the
//! packet, and ends when it is told to or when its link is gone.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, netdevice, recvfrom, sendto};
use stead_model::address::Mac;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::advert::{self, Presence, Schedule, Solicited};
use super::leases::Book;
use super::network::Net;
use super::socket::Link;
use super::store::{Store, lock, now_s};
use super::{dhcp4, dhcp6, sys};

/// The network as it is wanted now; `None` once the task is to end.
pub(crate) type Wish = watch::Receiver<Option<Arc<Net>>>;

/// No packet of these protocols is longer on an Ethernet; jumbo frames are cut and then refused.
const PACKET_MAX_BYTES: usize = 2048;
/// Packets answered in one go, before other tasks have their turn.
pub(crate) const BATCH: usize = 64;
const EXHAUSTED_EVERY: Duration = Duration::from_secs(60);

/// Waits until the task is to end.
pub(crate) async fn ended(wish: &mut Wish) {
    let _ = wish.wait_for(Option::is_none).await.map(drop);
}

pub(crate) fn current(wish: &Wish) -> Option<Arc<Net>> {
    wish.borrow().clone()
}

/// An error on a socket: fatal if the link is gone, else a note. A packet that could not be sent is sent again by
/// who asked.
pub(crate) fn tolerate(fd: impl AsFd, link: &Link, error: &std::io::Error) -> Result<()> {
    if netdevice::name_to_index(fd, &link.name) != Ok(link.index) {
        bail!("link `{}` is gone", link.name);
    }
    tracing::debug!("on link `{}`: {error}", link.name);
    Ok(())
}

pub(crate) async fn dhcp4(fd: OwnedFd, link: Link, mut wish: Wish, store: Arc<Store>) -> Result<()> {
    let fd = sys::register(fd)?;
    let mut buffer = [0; PACKET_MAX_BYTES];
    let mut exhausted: Option<Instant> = None;
    loop {
        let mut ready = tokio::select! {
            () = ended(&mut wish) => return Ok(()),
            ready = fd.readable() => ready?,
        };
        let Some(net) = current(&wish) else { return Ok(()) };
        let book: Arc<Mutex<Book>> = store.book(&net.id);
        let now_s = now_s();
        for _ in 0..BATCH {
            let received = ready.try_io(|fd| Ok(recvfrom(fd, &mut buffer, RecvFlags::empty())?));
            let count = match received {
                Err(_would_block) => break,
                Ok(Err(error)) => {
                    tolerate(&fd, &link, &error)?;
                    continue;
                }
                Ok(Ok((count, _, _))) => count,
            };
            let outcome = {
                let mut book = lock(&book);
                dhcp4::answer(&net, &mut book, buffer.get(..count).unwrap_or(&[]), now_s)
            };
            match outcome {
                dhcp4::Outcome::Send { bytes, to } => {
                    if let Err(error) = sendto(&fd, &bytes, SendFlags::empty(), &to) {
                        tolerate(&fd, &link, &error.into())?;
                    }
                }
                dhcp4::Outcome::Exhausted if exhausted.is_none_or(|at| at.elapsed() > EXHAUSTED_EVERY) => {
                    exhausted = Some(Instant::now());
                    tracing::warn!("network `{}` has no address left for machines it does not know", net.id);
                }
                dhcp4::Outcome::Exhausted | dhcp4::Outcome::Quiet => {}
            }
        }
        if lock(&book).is_changed() {
            store.touch();
        }
        drop(ready);
        tokio::task::yield_now().await;
    }
}

/// The two sockets of DHCPv6.
pub(crate) struct Dhcp6Sockets {
    pub(crate) packets: OwnedFd,
    pub(crate) answers: OwnedFd,
}

pub(crate) async fn dhcp6(sockets: Dhcp6Sockets, link: Link, mut wish: Wish) -> Result<()> {
    let Dhcp6Sockets { packets, answers } = sockets;
    let packets = sys::register(packets)?;
    let mut buffer = [0; PACKET_MAX_BYTES];
    loop {
        let mut ready = tokio::select! {
            () = ended(&mut wish) => return Ok(()),
            ready = packets.readable() => ready?,
        };
        let Some(net) = current(&wish) else { return Ok(()) };
        for _ in 0..BATCH {
            let (count, sender) = match ready.try_io(|fd| sys::receive_packet(fd, &mut buffer)) {
                Err(_would_block) => break,
                Ok(Err(error)) => {
                    tolerate(&packets, &link, &error)?;
                    continue;
                }
                Ok(Ok(received)) => received,
            };
            let Ok(mac) = Mac::new(sender.mac) else { continue };
            if sender.ourselves {
                continue;
            }
            let Some(datagram) = dhcp6::datagram(buffer.get(..count).unwrap_or(&[])) else { continue };
            let Some(answer) = dhcp6::answer(&net, mac, datagram.payload) else { continue };
            let to = SocketAddrV6::new(datagram.source, dhcp6::CLIENT_PORT, 0, link.index);
            if let Err(error) = sendto(&answers, &answer, SendFlags::empty(), &to) {
                tolerate(&answers, &link, &error.into())?;
            }
        }
        drop(ready);
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn advert(fd: OwnedFd, link: Link, mut wish: Wish) -> Result<()> {
    let fd = sys::register(fd)?;
    let start = Instant::now();
    let mut schedule = Schedule::new(start.elapsed());
    let mut told = None;
    loop {
        let Some(net) = current(&wish) else {
            return say_goodbye(&fd, &link, told.as_deref());
        };
        let due = start + schedule.next();
        tokio::select! {
            changed = wish.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let new = current(&wish);
                if new.as_deref().is_some_and(|new| says(new) != says(&net)) {
                    schedule.changed(start.elapsed());
                }
            }
            () = tokio::time::sleep_until(due.into()) => {
                // The link-local address may not be there yet: then the next one is soon, as one of the first.
                if !send_advert(&fd, &link, &net, advert::ALL_NODES)? {
                    tokio::time::sleep(NOT_READY).await;
                    continue;
                }
                told = Some(net);
                schedule.sent(start.elapsed(), chance(&link));
            }
            ready = fd.readable() => {
                let mut ready = ready?;
                answer_solicitations(&mut ready, &link, &net, |source| schedule.solicited(start.elapsed(), source))?;
            }
        }
    }
}

/// How soon to try again while the link cannot send.
const NOT_READY: Duration = Duration::from_millis(200);

fn says(net: &Net) -> Option<Vec<u8>> {
    advert::advertisement(net, Presence::Here)
}

fn say_goodbye(fd: &AsyncFd<OwnedFd>, link: &Link, net: Option<&Net>) -> Result<()> {
    let Some(packet) = net.and_then(|net| advert::advertisement(net, Presence::Leaving)) else {
        return Ok(());
    };
    let to = SocketAddrV6::new(advert::ALL_NODES, 0, 0, link.index);
    if let Err(error) = sendto(fd, &packet, SendFlags::empty(), &to) {
        // The link may be gone before us; then there is nobody to tell.
        tracing::debug!("no last advertisement on link `{}`: {error}", link.name);
    }
    Ok(())
}

fn answer_solicitations(
    ready: &mut tokio::io::unix::AsyncFdReadyGuard<'_, OwnedFd>,
    link: &Link,
    net: &Net,
    mut decide: impl FnMut(Ipv6Addr) -> Solicited,
) -> Result<()> {
    let mut buffer = [0; PACKET_MAX_BYTES];
    for _ in 0..BATCH {
        let received = ready.try_io(|fd| Ok(recvfrom(fd, &mut buffer, RecvFlags::empty())?));
        let (count, source) = match received {
            Err(_would_block) => break,
            Ok(Err(error)) => {
                tolerate(ready.get_inner(), link, &error)?;
                continue;
            }
            Ok(Ok((count, _, source))) => {
                (count, source.and_then(|source| SocketAddr::try_from(source).ok()))
            }
        };
        let Some(SocketAddr::V6(source)) = source else { continue };
        let message = buffer.get(..count).unwrap_or(&[]);
        if advert::is_solicitation(message, *source.ip()) && decide(*source.ip()) == Solicited::Unicast {
            send_advert(ready.get_inner(), link, net, *source.ip())?;
        }
    }
    Ok(())
}

fn send_advert(fd: impl AsFd, link: &Link, net: &Net, to: Ipv6Addr) -> Result<bool> {
    let Some(packet) = says(net) else { return Ok(true) };
    match sendto(&fd, &packet, SendFlags::empty(), &SocketAddrV6::new(to, 0, 0, link.index)) {
        Ok(_) => Ok(true),
        Err(error) => {
            tolerate(&fd, link, &error.into())?;
            Ok(!matches!(error, Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::NETDOWN))
        }
    }
}

/// Something that differs from link to link and from time to time, so that networks do not keep step.
fn chance(link: &Link) -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    u64::from(nanos).wrapping_add(link.index.into())
}
