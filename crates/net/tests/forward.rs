//! Published ports, in namespaces with real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "forward/lab.rs"]
mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::net::{getpeername, getsockname, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use lab::{HOST4, HOST6, LIMIT, Lab, OUTSIDE4, OUTSIDE6, accept, connect, ip};

/// Sends both ways and checks that it arrives.
#[track_caller]
fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    let mut buffer = [0; 5];
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    server.write_all(b"world").unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"world");
}

/// Bytes that differ everywhere, so that a lost or moved page shows.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn bytes_go_both_ways_and_are_counted() {
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    let mut client = lab.connect("127.0.0.1:80");
    let mut server = accept(&listener);
    assert_eq!(server.peer_addr().unwrap().ip(), ip("10.9.0.1"));
    talk(&mut client, &mut server);
    lab.until("both ways are counted", || {
        let status = lab.status("127.0.0.1:80/tcp");
        (status.live, status.to_machine, status.to_client) == (1, 5, 5)
    });
    drop((client, server));
    lab.until("the connection is gone", || lab.status("127.0.0.1:80/tcp").live == 0);
}

#[test]
fn what_is_sent_arrives_whole() {
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    let data = noise(64 * 1024 * 1024 + 17);
    let mut client = lab.connect("127.0.0.1:80");
    let mut server = accept(&listener);
    thread::scope(|scope| {
        let (mut to_machine, mut to_client) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let data = &data;
        scope.spawn(move || {
            to_machine.write_all(data).unwrap();
            to_machine.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(move || {
            to_client.write_all(data).unwrap();
            to_client.shutdown(Shutdown::Write).unwrap();
        });
        let at_machine = scope.spawn(move || {
            let mut received = Vec::new();
            server.read_to_end(&mut received).unwrap();
            received
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == *data, "the machine's bytes differ");
        assert!(at_machine.join().unwrap() == *data, "the client's bytes differ");
    });
}

#[test]
fn either_way_can_end_while_the_other_goes_on() {
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    for client_first in [true, false] {
        let client = lab.connect("127.0.0.1:80");
        let server = accept(&listener);
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        first.write_all(b"last words").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
        for _ in 0..3 {
            second.write_all(b"still here").unwrap();
            let mut buffer = [0; 10];
            first.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"still here");
        }
        drop(second);
        assert_eq!(patient(|| first.read(&mut [0; 1])).unwrap(), 0);
    }
}

/// Closes a socket so that the peer gets a reset.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
}

#[test]
fn a_reset_is_passed_on_both_ways() {
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    for client_first in [true, false] {
        let mut client = lab.connect("127.0.0.1:80");
        let mut server = accept(&listener);
        talk(&mut client, &mut server);
        let (first, mut second) = if client_first { (client, server) } else { (server, client) };
        reset(first);
        assert_eq!(patient(|| second.read(&mut [0; 1])).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_reset_is_passed_on_even_while_nobody_reads() {
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    let client = lab.connect("127.0.0.1:80");
    let mut server = accept(&listener);
    fill(&client);
    reset(client);
    let end = std::io::copy(&mut server, &mut std::io::sink());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    lab.until("the connection is gone", || lab.status("127.0.0.1:80/tcp").live == 0);
}

/// Calls again what was interrupted: a socket with a time limit does not go on by itself, and as an ordinary user
/// that was seen to happen (why is not known).
fn patient<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Writes until the other side takes no more for a while; gives how much it took.
fn fill(stream: &TcpStream) -> usize {
    let mut written = 0;
    stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let block = vec![7; 64 * 1024];
    loop {
        match patient(|| (&*stream).write(&block)) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn those_that_never_read_hold_little_and_block_nobody() {
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    let silent: Vec<_> = (0..20).map(|_| (lab.connect("127.0.0.1:80"), accept(&listener))).collect();
    for (client, _) in silent.iter().take(5) {
        // What is held: the two sockets' buffers on either side (4 to 6 MiB each at most) and one pipe.
        let held = fill(client);
        assert!(held < 32 * 1024 * 1024, "{held} bytes are held for a reader that does not read");
    }
    let mut client = lab.connect("127.0.0.1:80");
    let mut server = accept(&listener);
    talk(&mut client, &mut server);
    // A slow reader gets everything in the end.
    let (client, mut server) = silent.into_iter().next().unwrap();
    let taken = lab.status("127.0.0.1:80/tcp").to_machine;
    client.shutdown(Shutdown::Write).unwrap();
    let received = std::io::copy(&mut server, &mut std::io::sink()).unwrap();
    assert!(received > 0 && taken > 0);
}

#[test]
fn ipv4_and_ipv6_are_carried_to_each_other() {
    let lab = Lab::new();
    let (four, six) = (lab.listen("10.9.0.2:8000"), lab.listen("[fd09::2]:8000"));
    lab.publish(
        "0.0.0.0:80/tcp [fd09::2]:8000
         [::]:80/tcp 10.9.0.2:8000
         [::1]:81/tcp [fd09::2]:8000",
    );
    for (address, listener) in
        [("127.0.0.1:80", &six), ("[::1]:80", &four), ("[::1]:81", &six), ("192.0.2.1:80", &six)]
    {
        let mut client = lab.connect(address);
        talk(&mut client, &mut accept(listener));
    }
}

#[test]
fn a_machine_sees_who_its_clients_are() {
    let lab = Lab::new();
    lab.let_sockets_be_transparent();
    let (four, six) = (lab.listen("10.9.0.2:8000"), lab.listen("[fd09::2]:8000"));
    lab.publish(
        "0.0.0.0:80/tcp 10.9.0.2:8000
         [::]:80/tcp [fd09::2]:8000",
    );
    for (host, outside, listener) in [(HOST4, OUTSIDE4, &four), (HOST6, OUTSIDE6, &six)] {
        let address = std::net::SocketAddr::new(ip(host), 80).to_string();
        let mut client = connect(&lab.outside, &address);
        let mut server = accept(listener);
        assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
        assert_eq!(server.peer_addr().unwrap().ip(), ip(outside));
        talk(&mut client, &mut server);
        // A client on the host itself that comes by way of its outer address.
        let mut client = lab.connect(&address);
        let mut server = accept(listener);
        assert_eq!(server.peer_addr().unwrap().ip(), ip(host));
        talk(&mut client, &mut server);
    }
    // By way of loopback there is no address to keep.
    let mut client = lab.connect("127.0.0.1:80");
    let mut server = accept(&four);
    assert_eq!(server.peer_addr().unwrap().ip(), ip("10.9.0.1"));
    talk(&mut client, &mut server);
}

#[test]
fn where_answers_take_another_way_we_speak_with_our_own_address() {
    let lab = Lab::new();
    lab.let_sockets_be_transparent();
    lab.machine.run("ip route del default");
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("0.0.0.0:80/tcp 10.9.0.2:8000");
    for _ in 0..2 {
        let mut client = connect(&lab.outside, "192.0.2.1:80");
        let mut server = accept(&listener);
        assert_eq!(server.peer_addr().unwrap().ip(), ip("10.9.0.1"));
        talk(&mut client, &mut server);
    }
}

/// A connection is reset: whoever connects may be told of it by that already, or when they read.
#[track_caller]
fn assert_reset(lab: &Lab, address: &str) {
    let met = lab.try_connect(address).and_then(|mut client| patient(|| client.read(&mut [0; 1])));
    assert_eq!(met.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_machine_that_does_not_listen_refuses_and_later_accepts() {
    let lab = Lab::new();
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    assert_reset(&lab, "127.0.0.1:80");
    lab.until("it is counted", || lab.status("127.0.0.1:80/tcp").refused == 1);
    let listener = lab.listen("10.9.0.2:8000");
    let mut client = lab.connect("127.0.0.1:80");
    talk(&mut client, &mut accept(&listener));
}

#[test]
fn an_absent_machine_ends_its_clients_within_the_limit() {
    let lab = Lab::new();
    lab.publish("127.0.0.1:80/tcp 10.9.0.77:8000");
    let start = std::time::Instant::now();
    assert_reset(&lab, "127.0.0.1:80");
    assert!(start.elapsed() < LIMIT / 2 + LIMIT / 10);
}

#[test]
fn a_taken_port_names_its_holder_and_is_tried_again() {
    let lab = Lab::new();
    let own = std::process::id();
    let holder = lab.host.within(|| TcpListener::bind("127.0.0.1:80").unwrap());
    let errors = lab.set("127.0.0.1:80/tcp 10.9.0.2:8000\n 127.0.0.1:81/tcp 10.9.0.2:8000");
    assert_eq!(errors.len(), 1);
    let text = &errors[&"127.0.0.1:80/tcp".parse().unwrap()];
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(*text, format!("`127.0.0.1:80/tcp` is taken by `{}` (pid {own})", name.trim()));
    assert_eq!(lab.status("127.0.0.1:80/tcp").error.as_ref(), Some(text));
    assert_eq!(lab.status("127.0.0.1:81/tcp").error, None);
    drop(holder);
    // A child that another test's thread starts has our descriptors until it runs its program.
    lab.until("the port is free", || lab.set("127.0.0.1:80/tcp 10.9.0.2:8000").is_empty());
    assert_eq!(lab.status("127.0.0.1:80/tcp").error, None);
    let text = lab.set("192.0.2.99:80/tcp 10.9.0.2:8000").into_values().next().unwrap();
    assert_eq!(text, "this computer does not have the address of `192.0.2.99:80/tcp`");
}

#[test]
fn ports_change_while_connections_live() {
    let lab = Lab::new();
    let (first, second) = (lab.listen("10.9.0.2:8000"), lab.listen("10.9.0.2:8001"));
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000\n 127.0.0.1:81/tcp 10.9.0.2:8000");
    let mut kept = lab.connect("127.0.0.1:80");
    let mut kept_server = accept(&first);
    let mut removed = lab.connect("127.0.0.1:81");
    let mut removed_server = accept(&first);
    talk(&mut kept, &mut kept_server);
    talk(&mut removed, &mut removed_server);
    // One port leads elsewhere, the other is gone.
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8001");
    talk(&mut kept, &mut kept_server);
    assert_eq!(patient(|| removed.read(&mut [0; 1])).unwrap(), 0);
    assert_eq!(patient(|| removed_server.read(&mut [0; 1])).unwrap(), 0);
    // Its connections end a moment before its listener does.
    lab.until("nobody listens", || lab.host.within(|| TcpStream::connect("127.0.0.1:81")).is_err());
    let mut new = lab.connect("127.0.0.1:80");
    talk(&mut new, &mut accept(&second));
    // The same port on another address, at once.
    lab.publish("0.0.0.0:80/tcp 10.9.0.2:8001");
    assert_eq!(patient(|| kept.read(&mut [0; 1])).unwrap(), 0);
    talk(&mut lab.connect("192.0.2.1:80"), &mut accept(&second));
}

#[test]
fn thousands_of_idle_connections_stand_and_can_all_be_used() {
    const CONNECTIONS: usize = 3000;
    let lab = Lab::new();
    // Each is four sockets in this one process.
    let _limit = stead_net::forward::Forwards::new(|_| anyhow::bail!("unused"));
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    let mut pairs: Vec<_> =
        (0..CONNECTIONS).map(|_| (lab.connect("127.0.0.1:80"), accept(&listener))).collect();
    lab.until("all stand", || lab.status("127.0.0.1:80/tcp").live == CONNECTIONS);
    for (client, server) in &mut pairs {
        talk(client, server);
    }
    drop(pairs);
    lab.until("all are gone", || lab.status("127.0.0.1:80/tcp").live == 0);
}

/// The two sockets that carry a connection: descriptors of this very process, in which the switchboard's thread is.
fn carriers(client: &TcpStream, server: &TcpStream) -> [OwnedFd; 2] {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let ends = |socket: &OwnedFd| {
        let local = SocketAddr::try_from(getsockname(socket).ok()?).ok()?;
        Some((local, SocketAddr::try_from(getpeername(socket).ok()??).ok()?))
    };
    [client, server].map(|end| {
        let wanted = (end.peer_addr().unwrap(), end.local_addr().unwrap());
        let names = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // Other tests open and close theirs meanwhile.
        let mut sockets = numbers.filter_map(|fd| pidfd_getfd(&own, fd, PidfdGetfdFlags::empty()).ok());
        sockets.find(|socket| ends(socket) == Some(wanted)).expect("nobody carries it")
    })
}

/// For how many milliseconds no data has come on the sockets that `ss` finds, and no acknowledgement.
fn silence_ms(namespace: &lab::Namespace, filter: &str) -> (u64, u64) {
    let line = ["-tinHO", "state", "established", filter];
    let output = namespace.within(|| std::process::Command::new("ss").args(line).output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let since = |key: &str| {
        let value = text.split_whitespace().find_map(|word| word.strip_prefix(key));
        value.map_or(0, |value| value.parse().unwrap())
    };
    (since("lastrcv:"), since("lastack:"))
}

#[test]
fn a_silent_connection_stands_as_long_as_the_other_end_answers() {
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    let mut client = lab.connect("127.0.0.1:80");
    let mut server = accept(&listener);
    talk(&mut client, &mut server);
    let carriers = carriers(&client, &server);
    let second = Duration::from_secs(1);
    for socket in &carriers {
        assert!(sockopt::socket_keepalive(socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), Duration::from_secs(120));
        assert_eq!(sockopt::tcp_keepintvl(socket).unwrap(), Duration::from_secs(30));
        assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), 4);
        // What takes minutes, in seconds.
        sockopt::set_tcp_keepidle(socket, second).unwrap();
        sockopt::set_tcp_keepintvl(socket, second).unwrap();
    }
    for (namespace, filter) in [(&lab.host, "sport = :80"), (&lab.engine, "dport = :8000")] {
        lab.until("the other end was asked, and answered", || {
            let (data, answer) = silence_ms(namespace, filter);
            data > 4000 && answer < 1500
        });
    }
    talk(&mut client, &mut server);
    // One that does not answer any more is given up.
    lab.engine.run("ip link set port0 down");
    drop(carriers);
    lab.until("the connection is given up", || lab.status("127.0.0.1:80/tcp").live == 0);
    assert!(matches!(client.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset));
}

/// A client's socket that waits for answers, but not for ever.
fn datagrams(from: &lab::Namespace, address: &str) -> UdpSocket {
    let socket = from.within(|| UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Answers each datagram with itself, and tells from whom it was, until it gets an empty one.
fn echo(socket: UdpSocket) -> thread::JoinHandle<Vec<SocketAddr>> {
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        let mut seen = Vec::new();
        loop {
            let (count, from) = patient(|| socket.recv_from(&mut buffer)).unwrap();
            seen.push(from);
            if count == 0 {
                return seen;
            }
            socket.send_to(&buffer[..count], from).unwrap();
        }
    })
}

/// Sends a datagram and checks that it comes back, from where it was sent to.
#[track_caller]
fn echoed(client: &UdpSocket, to: &str, data: &[u8]) {
    let mut buffer = vec![0; 65536];
    client.send_to(data, to).unwrap();
    let (count, from) = patient(|| client.recv_from(&mut buffer)).unwrap();
    assert_eq!(from, to.parse().unwrap());
    assert!(buffer[..count] == *data);
}

#[test]
fn datagrams_of_many_clients_are_kept_apart() {
    let lab = Lab::new();
    let echo = echo(datagrams(&lab.machine, "10.9.0.2:8000"));
    lab.publish("127.0.0.1:53/udp 10.9.0.2:8000");
    let clients: Vec<_> = (0..100).map(|_| datagrams(&lab.host, "127.0.0.1:0")).collect();
    for (number, client) in clients.iter().enumerate() {
        client.send_to(format!("client {number}").as_bytes(), "127.0.0.1:53").unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        let mut buffer = [0; 100];
        let (count, _) = patient(|| client.recv_from(&mut buffer)).unwrap();
        assert_eq!(buffer[..count], *format!("client {number}").as_bytes());
    }
    // The largest there is, and many by one client.
    echoed(&clients[0], "127.0.0.1:53", &noise(65507));
    for round in 0..200_u8 {
        echoed(&clients[1], "127.0.0.1:53", &[round; 1400]);
    }
    assert_eq!(lab.status("127.0.0.1:53/udp").live, 100);
    clients[0].send_to(&[], "127.0.0.1:53").unwrap();
    let seen: std::collections::BTreeSet<_> = echo.join().unwrap().into_iter().collect();
    assert_eq!(seen.len(), 100);
}

#[test]
fn answers_to_datagrams_come_from_the_address_that_was_asked() {
    let lab = Lab::new();
    lab.let_sockets_be_transparent();
    lab.host.run(
        "ip addr add 192.0.2.7/24 dev out0
         ip addr add 2001:db8::7/64 dev out0 nodad",
    );
    let (four, six) = (datagrams(&lab.machine, "10.9.0.2:8000"), datagrams(&lab.machine, "[fd09::2]:8000"));
    let (four, six) = (echo(four), echo(six));
    lab.publish(
        "0.0.0.0:53/udp 10.9.0.2:8000
         [::]:53/udp [fd09::2]:8000",
    );
    let (client4, client6) = (datagrams(&lab.outside, "0.0.0.0:0"), datagrams(&lab.outside, "[::]:0"));
    for (client, addresses, outside, echo) in [
        (client4, ["192.0.2.1:53", "192.0.2.7:53"], OUTSIDE4, four),
        (client6, ["[2001:db8::1]:53", "[2001:db8::7]:53"], OUTSIDE6, six),
    ] {
        for address in addresses {
            echoed(&client, address, b"who answers?");
        }
        // And the machine saw who asked.
        client.send_to(&[], addresses[0]).unwrap();
        let seen = echo.join().unwrap();
        assert_eq!(seen[0], SocketAddr::new(ip(outside), client.local_addr().unwrap().port()));
        assert!(seen.iter().all(|from| from.ip() == ip(outside)), "{seen:?}");
    }
}

#[test]
fn datagrams_cross_families_and_find_a_machine_that_comes_later() {
    let lab = Lab::new();
    lab.publish("[::1]:53/udp 10.9.0.2:8000");
    let client = datagrams(&lab.host, "[::1]:0");
    // Nobody listens: the machine's kernel says so, and we carry on.
    for _ in 0..50 {
        client.send_to(b"anybody?", "[::1]:53").unwrap();
    }
    lab.until("they are carried", || lab.status("[::1]:53/udp").to_machine > 0);
    let echo = echo(datagrams(&lab.machine, "10.9.0.2:8000"));
    echoed_at_last(&client, "[::1]:53");
    // To another machine: the clients go along.
    let other = datagrams(&lab.machine, "[fd09::2]:9000");
    lab.publish("[::1]:53/udp [fd09::2]:9000");
    client.send_to(b"and you?", "[::1]:53").unwrap();
    let mut buffer = [0; 100];
    assert_eq!(patient(|| other.recv_from(&mut buffer)).unwrap().0, 8);
    assert_eq!(&buffer[..8], b"and you?");
    lab.publish("[::1]:53/udp 10.9.0.2:8000");
    client.send_to(&[], "[::1]:53").unwrap();
    echo.join().unwrap();
}

/// Sends until an answer comes: what was sent before somebody listened is lost.
#[track_caller]
fn echoed_at_last(client: &UdpSocket, to: &str) {
    client.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let answered = (0..100).any(|_| {
        client.send_to(b"hello", to).unwrap();
        patient(|| client.recv_from(&mut [0; 100])).is_ok()
    });
    assert!(answered, "no answer from {to}");
    client.set_read_timeout(Some(LIMIT)).unwrap();
}

#[test]
fn more_clients_than_the_table_holds_push_the_oldest_out() {
    let lab = Lab::new();
    let _limit = stead_net::forward::Forwards::new(|_| anyhow::bail!("unused"));
    let echo = echo(datagrams(&lab.machine, "10.9.0.2:8000"));
    lab.publish("127.0.0.1:53/udp 10.9.0.2:8000");
    let clients: Vec<_> = (0..1100).map(|_| datagrams(&lab.host, "127.0.0.1:0")).collect();
    for client in &clients {
        echoed(client, "127.0.0.1:53", b"one of many");
    }
    lab.until("the table is full and no fuller", || lab.status("127.0.0.1:53/udp").live == 1024);
    echoed(&clients[0], "127.0.0.1:53", b"I come back");
    clients[0].send_to(&[], "127.0.0.1:53").unwrap();
    echo.join().unwrap();
}
