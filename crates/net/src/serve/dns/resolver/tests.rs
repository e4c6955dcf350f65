//! The resolvers that a computer names.

use super::*;

#[test]
fn a_resolv_conf_is_read_as_libc_reads_it() {
    let text = "# comment\nsearch example.com\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \nnameserver fe80::1%eth0\n\
                nameserver nonsense\nnameserver 10.0.5.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
    let own = HashSet::from(["10.0.5.1".parse().unwrap()]);
    let servers: Vec<_> = resolv_conf(text, &own).iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
}

#[test]
fn a_changed_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let resolver = Resolver::new(Upstream::ResolvConf(path.clone()));
    assert!(resolver.servers().0.is_empty());
    std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    lock(&resolver.state).looked = None;
    assert_eq!(resolver.servers().0, ["192.0.2.1:53".parse().unwrap()]);
    resolver.set_own(HashSet::from(["192.0.2.1".parse().unwrap()]));
    assert!(resolver.servers().0.is_empty(), "it has become our own");
}
