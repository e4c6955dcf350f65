//! The shell that sets a world up: what an administrator would type.

use std::fs;
use std::io::{Seek, Write};
use std::path::Path;
use std::process::Command;

/// Process 1 of a computer. It lives as long as its input, and with SIGCHLD ignored the kernel reaps whatever
/// becomes its child. (`trap '' CHLD` would not do: dash hands that on to nobody.)
pub(super) const COMPUTER: &str = "
    set -e
    echo 0 > /proc/sys/net/ipv6/conf/default/dad_transmits
    ip link set lo up
    echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range 2>/dev/null ||
        echo '0 0' > /proc/sys/net/ipv4/ping_group_range
    busybox mount -t tmpfs run /run
    busybox mount --bind \"$1\"/resolv.conf /etc/resolv.conf
    echo ready
    exec env --ignore-signal=CHLD cat";

/// Holds the namespace it is in.
pub(super) const HOLD: &str = "echo $$; exec cat";

/// Makes user 1234 a person of the computer, who owns the world's directory ($1) and a cgroup ($2).
const SUBIDS: &str = r#"
    mkdir "$1"/etc
    add() { cp /etc/$2 "$1"/etc/$2; echo "$3" >> "$1"/etc/$2; busybox mount --bind "$1"/etc/$2 /etc/$2; }
    add "$1" passwd "person:x:1234:1234::$1/nobody:/bin/sh"
    add "$1" group "person:x:1234:"
    add "$1" subuid "person:3000000:65536"
    add "$1" subgid "person:3000000:65536"
    chown 1234:1234 "$1" "$1"/nobody
    mkdir "$2"
    chown 1234:1234 "$2" "$2"/cgroup.procs "$2"/cgroup.subtree_control "$2"/cgroup.threads
"#;

/// Runs the rest of the arguments as that person, in the cgroup that is the first.
pub(super) const BECOME_USER: &str = "echo 0 > \"$0\"/cgroup.procs && \
    exec setpriv --reuid 1234 --regid 1234 --clear-groups --pdeathsig KILL \"$@\"";

/// Takes the cgroup away with all in it.
pub(super) const REMOVE_CGROUP: &str = "
    echo 1 > \"$1\"/cgroup.kill
    for i in $(seq 100); do find \"$1\" -depth -type d -exec rmdir {} + 2>/dev/null; [ -e \"$1\" ] || exit 0; sleep 0.05; done
    exit 1";

/// The computer's own connection. `OUTSIDE` is a process out there.
pub(super) const COMPUTER_ONLINE: &str = "
    nsenter -t OUTSIDE -n sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/dad_transmits'
    ip link add eth0 type veth peer name eth0 netns OUTSIDE
    ip address add 192.0.2.2/24 dev eth0
    ip address add 2001:db8::2/64 dev eth0 nodad
    ip link set eth0 up
    ip route add default via 192.0.2.1
    ip route add default via 2001:db8::1";

pub(super) const OUTSIDE_ONLINE: &str = "
    ip link set lo up
    ip address add 192.0.2.1/24 dev eth0
    ip address add 2001:db8::1/64 dev eth0 nodad
    ip address add 203.0.113.1/32 dev lo
    ip address add 2001:db8:9::1/128 dev lo nodad
    ip link set eth0 up";

pub(super) const DNSMASQ: [&str; 12] = [
    "dnsmasq",
    "--no-daemon",
    "--no-resolv",
    "--no-hosts",
    "--conf-file=/dev/null",
    "--bind-interfaces",
    "--interface=eth0",
    "--except-interface=lo",
    "--address=/web.outside.test/203.0.113.1",
    "--address=/web.outside.test/2001:db8:9::1",
    "--txt-record=big.outside.test,0123456789012345678901234567890123456789012345678901234567890123456789",
    "--local=/outside.test/",
];

/// Everything on the computer that `stead` could change. The shell that looks is not listed.
pub(super) const SNAPSHOT: &str = r#"
    while ip -6 address show tentative | grep -q inet6; do sleep 0.02; done
    ip -d link | sed 's/_timer *[0-9.]*//g'
    ip address; ip -4 route show table all; ip -6 route show table all; ip rule; ip -6 rule
    nft list ruleset
    cat /proc/self/mounts
    find /run /dev/net | sort
    for file in /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv6/conf/*/forwarding; do
        echo "$file $(cat $file)"
    done
    for process in /proc/[0-9]*; do
        words=$(tr '\0\n' '  ' 2>/dev/null < $process/cmdline) || continue
        case $words in ''|*'words=$(tr'*) ;; *) echo "process ${process#/proc/} $words" ;; esac
    done"#;

/// Writes what arrives at the machine's nics to standard output, as a file of libpcap's.
pub(super) const CAPTURE: &str = r#"
    socket(my $wire, 17, 3, 0x0300) or die "socket: $!";
    syswrite(STDOUT, pack("LSSlLLL", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1));
    while (defined(my $from = recv($wire, my $frame, 65535, 0))) {
        next if unpack("x10 C", $from) == 4;
        syswrite(STDOUT, pack("LLLL", time, 0, length $frame, length $frame) . $frame) or exit;
    }"#;

/// Applies a lease as a distribution's script would, and prints it.
const UDHCPC: &str = r#"#!/bin/sh
case "$1" in
bound|renew)
    ip address replace "$ip/$mask" dev "$interface"
    for via in $router; do ip route replace default via "$via" dev "$interface"; done
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    for key in ip mask router dns domain search mtu lease serverid hostname siaddr boot_file; do
        eval "value=\$$key"
        [ -z "$value" ] || echo "$key=$value"
    done ;;
esac
"#;

/// The same for dhclient.
const DHCLIENT: &str = r#"#!/bin/sh
case "$reason" in
BOUND|RENEW|REBIND|REBOOT)
    ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface"
    for via in $new_routers; do ip route replace default via "$via" dev "$interface"; done ;;
BOUND6|RENEW6|REBIND6)
    ip -6 address replace "$new_ip6_address/${new_ip6_prefixlen:-128}" dev "$interface" nodad ;;
esac
[ -z "$TOLD" ] || set | grep -E "^(reason|new_)" >> "$TOLD"
exit 0
"#;

/// What dhclient asks for, like Debian's own file.
const DHCLIENT_CONF: &str = "request subnet-mask, routers, domain-name, domain-name-servers, domain-search, \
    host-name, interface-mtu, dhcp6.name-servers, dhcp6.domain-search;\n";

/// A page that says who asks.
const WHO: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' \"$REMOTE_ADDR\"\n";

/// Writes the files that a world's programs need.
pub(super) fn write(directory: &Path) {
    fs::create_dir_all(directory.join("www/cgi-bin")).unwrap();
    fs::create_dir(directory.join("nobody")).unwrap();
    fs::write(directory.join("dhclient.conf"), DHCLIENT_CONF).unwrap();
    fs::write(directory.join("www/index.html"), "hello from here\n").unwrap();
    fs::write(directory.join("subids.sh"), SUBIDS).unwrap();
    for (name, text) in [("udhcpc.sh", UDHCPC), ("dhclient.sh", DHCLIENT), ("www/cgi-bin/who", WHO)] {
        executable(&directory.join(name), text.as_bytes());
    }
}

/// A program with this content. Another process writes it: while this one held it open for writing, what another
/// thread starts could hold it too, and nobody could run it.
pub fn executable(path: &Path, content: &[u8]) {
    let mut from = tempfile::tempfile().unwrap();
    from.write_all(content).unwrap();
    from.rewind().unwrap();
    let install = Command::new("install").args(["-m755", "/dev/stdin"]).arg(path).stdin(from).status();
    assert!(install.unwrap().success());
}
