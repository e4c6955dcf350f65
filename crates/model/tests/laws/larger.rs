//! The laws on random larger projects, one changed into another with a third beside them.

use proptest::collection::vec;
use proptest::prelude::*;
use stead_model::lock::Lock;
use stead_model::plan::plan;
use stead_model::project::{Addressing, Condition, Guard, Kind, Network, Nic, Project, Reach, Subnet};

use crate::worlds::{With, applied, computer, damaged, name, network, nic, project, up, wanted};
use crate::{Lot, assert_down_arrives, assert_untouched, assert_up_arrives};

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let one = (0..4_u8, 0..4_u8, 0..6_u8, prop_oneof![Just(1500), Just(1400)]).prop_map(
        |(who, reach, place, mtu)| {
            let mut net = Network { mtu, ..network() };
            match who {
                0 => net.addressing = Addressing::Static,
                1 => net.addressing = Addressing::None,
                2 => net.subnet6 = Subnet::Off,
                _ => {}
            }
            match reach {
                0 => net.reach = Reach::Isolated,
                1 => net.reach = Reach::Bridged("br0".parse().unwrap()),
                _ => {}
            }
            if place < 4 {
                net.subnet = Subnet::Given(format!("10.{place}.0.0/24").parse().unwrap());
            }
            net
        },
    );
    vec(one, 0..5)
}

/// The kind of a machine, its networks (by place), how its first nic is, whether it depends on the one before
/// it, and its port.
type Drawn = (u8, Vec<usize>, u8, bool, Option<u16>);

fn machines() -> impl Strategy<Value = Vec<Drawn>> {
    vec((0..3_u8, vec(0..5_usize, 0..4), 0..8_u8, any::<bool>(), prop::option::of(8000..8004_u16)), 0..7)
}

/// A project of what was drawn; what a checked project cannot have is left out.
fn build(text: &str, networks: Vec<Network>, machines: Vec<Drawn>) -> Project {
    let mut built = project(text);
    for (place, network) in networks.into_iter().enumerate() {
        let repeats = matches!(network.subnet, Subnet::Given(_))
            && built.networks.values().any(|other| other.subnet == network.subnet);
        let subnet = if repeats { Subnet::Auto } else { network.subnet };
        built = built.net(&format!("n{place}"), Network { subnet, ..network });
    }
    if built.networks.len() >= 2 {
        built = built.join("n0", "n1");
    }
    let (mut fixed, mut ports) = (Vec::new(), Vec::new());
    for (place, (kind, on, first, depends, port)) in machines.into_iter().enumerate() {
        let mut nics: Vec<Nic> = Vec::new();
        for network in on {
            let id = name(&format!("n{network}"));
            if let Some(network) = built.networks.get(&id)
                && nics.iter().all(|nic| nic.network != id)
            {
                let mut added = nic(id.as_str());
                if let (Subnet::Given(net), true) = (network.subnet, first < 3) {
                    let address = stead_model::address::nth4(net, 2 + u32::from(first)).unwrap();
                    if !fixed.contains(&(id.clone(), address)) {
                        fixed.push((id, address));
                        added.address = Some(address);
                    }
                }
                added.guard = if first == 5 { Guard::Off } else { Guard::On };
                added.aliases.extend((first == 6).then(|| name("www").into()));
                nics.push(added);
            }
        }
        let addressed = nics.iter().any(|nic| built.networks[&nic.network].addressing != Addressing::None);
        let kind = [Kind::Container, Kind::Microvm, Kind::Vm][usize::from(kind)];
        let machine = format!("m{place}");
        built = built.machine(kind, &machine, &nics);
        if depends && place > 0 {
            built = built.depends(&machine, &format!("m{}", place - 1), Condition::Started);
        }
        if let Some(port) = port.filter(|port| addressed && !ports.contains(port)) {
            ports.push(port);
            let host = if first % 2 == 0 { "0.0.0.0" } else { "127.0.0.1" };
            built = built.port(&machine, &format!("{host}:{port}/tcp"));
        }
    }
    built
}

fn drawn(text: &'static str) -> impl Strategy<Value = Project> {
    (networks(), machines()).prop_map(move |(networks, machines)| build(text, networks, machines))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn larger_projects_keep_the_laws(
        old in drawn("shop"), new in drawn("shop"), beside in drawn("blog"), seed in any::<u64>(),
    ) {
        let mut lot = Lot(seed);
        let mut seen = computer();
        if let Ok(goal) = wanted(&beside, &Lock::default(), &seen) {
            seen = applied(&plan(&goal, &seen), &seen);
        }
        if wanted(&old, &Lock::default(), &seen).is_ok() {
            let (both, lock) = up(&old, &seen);
            if let Ok(goal) = wanted(&new, &lock, &both) {
                assert_untouched(&goal, &beside.name, &both, &mut lot);
                assert_up_arrives(&new, &lock, &both, (2, &mut lot));
            }
            assert_down_arrives(&old.name, &both, (2, &mut lot));
            let mut damages = damaged(&both);
            if !damages.is_empty() {
                let (_, world) = damages.swap_remove(lot.below(damages.len()));
                if let Ok(goal) = wanted(&new, &lock, &world) {
                    assert_untouched(&goal, &beside.name, &world, &mut lot);
                    assert_up_arrives(&new, &lock, &world, (1, &mut lot));
                }
            }
        }
    }
}
