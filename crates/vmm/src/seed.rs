//! What a whole computer is told at its start, as cloud-init's data source NoCloud has it: a small disk with its name,
//! its addresses, what the user wants done, and our agent. What is JSON is YAML as well.

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

use stead_model::address::Mac;

use crate::iso::iso;

/// By which a guest's disk with the seed is found, besides its label.
pub const SEED: &str = "stead-seed";

/// Has the agent run as a service, at each start anew: so it is always of the keeper's version, and nothing of it is needed
/// when the machine is started without us.
const START_AGENT: &str = include_str!("start-agent.sh");

/// What a guest is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed<'a> {
    /// Another one makes cloud-init do again what is done once.
    pub instance_id: &'a str,
    /// What it calls itself.
    pub hostname: &'a str,
    /// Who may log in as the usual user.
    pub ssh_authorized_keys: &'a [String],
    /// What the user wants done.
    pub user_data: Option<&'a str>,
    /// Its nics, `eth0` being the first one.
    pub nics: &'a [SeedNic],
    /// The program of the agent.
    pub agent: &'a [u8],
    /// What it is to mount before anything else is started, in its own words.
    pub mounts: Option<&'a str>,
}

/// How a nic comes to its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedNic {
    /// By which it is found.
    pub mac: Mac,
    /// The largest packet.
    pub mtu: u16,
    /// Who says its addresses.
    pub addresses: SeedAddresses,
    /// Whom to ask for names.
    pub dns: Vec<IpAddr>,
    /// Where short names are: many systems do not believe whoever answers that.
    pub search: Vec<String>,
}

/// Who says the addresses of a nic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedAddresses {
    /// Whoever answers on its network; for each of the two protocols, whether to ask at all.
    Asked {
        /// By DHCP.
        v4: bool,
        /// By DHCPv6, and router advertisements.
        v6: bool,
        /// Whether nothing else waits for an answer.
        optional: bool,
    },
    /// These.
    Set {
        /// With their prefixes.
        addresses: Vec<IpNet>,
        /// The routers beyond which everything else is.
        gateways: Vec<IpAddr>,
    },
}

/// The image of the disk. Pure.
pub fn seed(seed: &Seed<'_>) -> Vec<u8> {
    let meta = json!({
        "instance-id": seed.instance_id,
        "local-hostname": seed.hostname,
        "public-keys": seed.ssh_authorized_keys,
    });
    let (meta, network) = (meta.to_string(), network(seed.nics).to_string());
    let mut files: Vec<(&str, &[u8])> = vec![
        ("meta-data", meta.as_bytes()),
        ("network-config", network.as_bytes()),
        // It has to be there.
        ("user-data", seed.user_data.unwrap_or("#cloud-config\n{}\n").as_bytes()),
        ("vendor-data", START_AGENT.as_bytes()),
        ("stead-agent", seed.agent),
    ];
    files.extend(seed.mounts.map(|mounts| ("stead-mounts", mounts.as_bytes())));
    iso("CIDATA", &files)
}

fn network(nics: &[SeedNic]) -> Value {
    let all = nics.iter().enumerate().map(|(place, nic)| (format!("eth{place}"), ethernet(place, nic)));
    json!({ "version": 2, "ethernets": all.collect::<Map<_, _>>() })
}

fn ethernet(place: usize, nic: &SeedNic) -> Value {
    let mut keys = json!({
        "match": { "macaddress": nic.mac.to_string() },
        "set-name": format!("eth{place}"),
        "mtu": nic.mtu,
    });
    let mut put = |key: &str, value: Value| {
        if let Some(keys) = keys.as_object_mut() {
            keys.insert(key.to_owned(), value);
        }
    };
    match &nic.addresses {
        SeedAddresses::Asked { v4, v6, optional } => {
            put("dhcp4", json!(v4));
            put("dhcp6", json!(v6));
            if *optional {
                put("optional", json!(true));
            }
        }
        SeedAddresses::Set { addresses, gateways } => {
            put("dhcp4", json!(false));
            put("dhcp6", json!(false));
            put("addresses", json!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>()));
            for gateway in gateways {
                put(if gateway.is_ipv4() { "gateway4" } else { "gateway6" }, json!(gateway));
            }
        }
    }
    // cloud-init 22 (that of Debian 12) ignores a nic for which there are domains and nobody to ask.
    if !nic.dns.is_empty() {
        put("nameservers", json!({ "addresses": nic.dns, "search": nic.search }));
    }
    keys
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn nics_ask_or_are_told() {
        let nics = [
            SeedNic {
                mac: "02:00:00:00:00:01".parse().unwrap(),
                mtu: 1500,
                addresses: SeedAddresses::Asked { v4: true, v6: true, optional: false },
                dns: vec!["10.0.5.1".parse().unwrap(), "fd00:5::1".parse().unwrap()],
                search: vec!["shop.stead".to_owned()],
            },
            SeedNic {
                mac: "02:00:00:00:00:02".parse().unwrap(),
                mtu: 9000,
                addresses: SeedAddresses::Set {
                    addresses: vec!["10.0.5.2/24".parse().unwrap(), "fd00:5::2/64".parse().unwrap()],
                    gateways: vec!["10.0.5.1".parse().unwrap()],
                },
                dns: vec!["10.0.5.1".parse().unwrap()],
                search: vec!["shop.stead".to_owned()],
            },
        ];
        expect![[r#"
            {
              "ethernets": {
                "eth0": {
                  "dhcp4": true,
                  "dhcp6": true,
                  "match": {
                    "macaddress": "02:00:00:00:00:01"
                  },
                  "mtu": 1500,
                  "nameservers": {
                    "addresses": [
                      "10.0.5.1",
                      "fd00:5::1"
                    ],
                    "search": [
                      "shop.stead"
                    ]
                  },
                  "set-name": "eth0"
                },
                "eth1": {
                  "addresses": [
                    "10.0.5.2/24",
                    "fd00:5::2/64"
                  ],
                  "dhcp4": false,
                  "dhcp6": false,
                  "gateway4": "10.0.5.1",
                  "match": {
                    "macaddress": "02:00:00:00:00:02"
                  },
                  "mtu": 9000,
                  "nameservers": {
                    "addresses": [
                      "10.0.5.1"
                    ],
                    "search": [
                      "shop.stead"
                    ]
                  },
                  "set-name": "eth1"
                }
              },
              "version": 2
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&network(&nics)).unwrap());
    }

    /// Directories of its own for what the script changes, and an agent that does nothing; then the script, as another
    /// instance each time. Gives the machine-id that there is after each start, and the instance that is on record.
    const STARTS: &str = r#"
        set -eu; printf %s "$2" >"$1/script"; cd "$1"
        for place in /etc /run /var/lib /usr/local/sbin; do
            # What programs need of it stays.
            [ $place != /etc ] || { mkdir kept; cp -a /etc/ld.so* kept 2>said || :; }
            mount -t tmpfs tmpfs $place
        done
        cp -a kept/. /etc; mkdir -p /run/stead/seed /var/lib/dbus
        printf '#!/bin/sh\n' >/run/stead/seed/stead-agent
        for path in /etc /var/lib/dbus; do echo 00000000000000000000000000000001 >$path/machine-id; done
        start() {
            INSTANCE_ID=$1 PATH=/usr/bin:/bin sh script >said 2>&1
            cmp -s /etc/machine-id /var/lib/dbus/machine-id || echo "D-Bus has another"
            echo "$(wc -c </etc/machine-id) $(sort -u seen /etc/machine-id | wc -l) $(cat /var/lib/stead/instance)"
            cat /etc/machine-id >>seen
        }
        : >seen
        start first; start first; start clone; start clone
        # Nothing can take its place.
        mount --bind /etc/machine-id /etc/machine-id; start other; grep stead: said; ls /etc | grep new || :
        umount /etc/machine-id; start other
    "#;

    #[test]
    fn another_instance_gets_another_machine_id_and_never_none() {
        let directory = tempfile::tempdir().unwrap();
        let output = std::process::Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", STARTS, "sh"])
            .args([directory.path().as_os_str(), START_AGENT.as_ref()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        expect![[r"
            33 1 first
            33 1 first
            33 2 clone
            33 2 clone
            33 2 clone
            stead: it could not be given a machine-id of its own
            33 3 other
        "]]
        .assert_eq(&said);
        assert!(output.status.success(), "{output:?}");
    }
}
