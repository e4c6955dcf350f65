//! Another codec is the judge: `hickory-proto` writes the questions and reads the answers.

use hickory_proto::op::{Message as Judge, Query as Asked};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;

use super::*;
use crate::serve::network_tests::{damaged, net, net_with, wanted};

/// Nobody that has a nic on another network as well.
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 5, 200));

fn packet(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = wire::question(0x1234, flag::RECURSE, &[], kind, false);
    let wire_name: Vec<u8> = name
        .trim_end_matches('.')
        .split('.')
        .filter(|label| !label.is_empty())
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
        .chain([0])
        .collect();
    packet.splice(12..12, wire_name);
    packet
}

/// The answer in one line: code, flags, answers, and whose SOA.
fn brief(decision: Decision) -> String {
    let bytes = match decision {
        Decision::Answer(bytes) => bytes,
        Decision::Forward(_) => return "forward".to_owned(),
        Decision::Silence => return "silence".to_owned(),
    };
    let message = Judge::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.id, 0x1234);
    let mut text = format!("{:?}", message.metadata.response_code);
    for (yes, word) in [(message.metadata.authoritative, "aa"), (message.metadata.truncation, "tc")] {
        if yes {
            text += &format!(" {word}");
        }
    }
    for record in &message.answers {
        text += &format!(" {} {} {}", record.name, record.record_type(), record.data);
    }
    for record in &message.authorities {
        text += &format!(" [{} {}]", record.name, record.record_type());
    }
    text
}

#[track_caller]
fn check(name: &str, kind: u16, expected: &str) {
    assert_eq!(brief(decide(&net(), STRANGER, &packet(name, kind), Transport::Udp)), expected);
}

#[test]
fn machines_are_found_by_each_of_their_names() {
    check("web", kind::A, "NoError aa web. A 10.0.5.10");
    check("web.shop", kind::AAAA, "NoError aa web.shop. AAAA fd00:5::a");
    check("web.shop.stead", kind::ANY, "NoError aa web.shop.stead. A 10.0.5.10");
    check("WeB.sHop", kind::A, "NoError aa WeB.sHop. A 10.0.5.10");
    check("front.shop", kind::A, "NoError aa front.shop. A 10.0.5.10");
    check("gateway", kind::A, "NoError aa gateway. A 10.0.5.1");
    check("localhost", kind::A, "NoError aa localhost. A 127.0.0.1");
    check("10.5.0.10.in-addr.arpa", kind::PTR, "NoError aa 10.5.0.10.in-addr.arpa. PTR web.shop.stead.");
    check("1.5.0.10.in-addr.arpa", kind::PTR, "NoError aa 1.5.0.10.in-addr.arpa. PTR gateway.shop.stead.");
}

#[test]
fn a_machine_called_gateway_goes_before_the_network_s_own_address() {
    let lan_id = "lan.shop".parse().unwrap();
    let ask = |at: &str, change: &dyn Fn(&mut stead_model::served::ServedHost), name: &str, kind: u16| {
        let mut all = wanted();
        let hosts = all.get_mut(&at.parse().unwrap()).unwrap().hosts.values_mut();
        hosts.filter(|host| ["db", "job"].contains(&host.name.as_str())).for_each(change);
        let net = Net::new(&lan_id, &all).unwrap();
        brief(decide(&net, STRANGER, &packet(name, kind), Transport::Udp))
    };
    let named = |host: &mut stead_model::served::ServedHost| host.name = "gateway".parse().unwrap();
    let aliased =
        |host: &mut stead_model::served::ServedHost| host.aliases = vec!["gateway".parse().unwrap()];
    for name in ["gateway", "gateway.shop", "gateway.shop.stead"] {
        let expected = |address: &str| format!("NoError aa {name}. A {address}");
        assert_eq!(ask("lan.shop", &named, name, kind::A), expected("10.0.5.11"));
        assert_eq!(ask("lan.shop", &aliased, name, kind::A), expected("10.0.5.11"));
        assert_eq!(ask("back.shop", &named, name, kind::A), expected("10.0.6.12"));
        assert_eq!(ask("lan.shop", &|_| {}, name, kind::A), expected("10.0.5.1"));
    }
    let pointer =
        |address: &str| ask("lan.shop", &named, &format!("{address}.5.0.10.in-addr.arpa"), kind::PTR);
    assert_eq!(pointer("11"), "NoError aa 11.5.0.10.in-addr.arpa. PTR gateway.shop.stead.");
    assert_eq!(pointer("1"), "NXDomain aa [5.0.10.in-addr.arpa. SOA]");
}

#[test]
fn machines_of_other_projects_have_their_own_full_names_and_share_the_short_ones() {
    let mut all = wanted();
    let lan = all.get(&"lan.shop".parse().unwrap()).unwrap().clone();
    let of_blog = |name: &str, last: u8| stead_model::served::ServedHost {
        name: name.parse().unwrap(),
        project: Some("blog".parse().unwrap()),
        aliases: vec!["front".parse().unwrap()],
        address: Some([10, 0, 5, last].into()),
        address6: None,
        calls: false,
    };
    let mac = |last| stead_model::address::Mac::new([2, 0, 0, 0, 9, last]).unwrap();
    let shared = all.get_mut(&"lan.shop".parse().unwrap()).unwrap();
    shared.hosts.extend([(mac(1), of_blog("web", 90)), (mac(2), of_blog("mail", 91))]);
    let alone = stead_model::served::ServedHost { project: None, ..of_blog("secret", 0) };
    let mail = stead_model::served::ServedHost { name: "mail".parse().unwrap(), ..alone.clone() };
    let at = |last: u8, host: &stead_model::served::ServedHost| stead_model::served::ServedHost {
        address: Some([10, 0, 7, last].into()),
        ..host.clone()
    };
    let own = stead_model::served::ServedNetwork {
        domain: "blog.stead".into(),
        gateway: Some("10.0.7.1/24".parse().unwrap()),
        hosts: [(mac(3), at(2, &alone)), (mac(4), at(3, &mail))].into(),
        joins: Vec::new(),
        ..lan
    };
    all.insert("own.blog".parse().unwrap(), own);
    let ask = |network: &str, asker: [u8; 4], name: &str, kind: u16| {
        let net = Net::new(&network.parse().unwrap(), &all).unwrap();
        brief(decide(&net, IpAddr::V4(asker.into()), &packet(name, kind), Transport::Udp))
    };
    let check = |name: &str, expected: &str| {
        assert_eq!(ask("lan.shop", [10, 0, 5, 200], name, kind::A), expected);
    };
    check("web", "NoError aa web. A 10.0.5.10 web. A 10.0.5.90");
    check("front", "NoError aa front. A 10.0.5.10 front. A 10.0.5.90 front. A 10.0.5.91");
    check("web.shop.stead", "NoError aa web.shop.stead. A 10.0.5.10");
    check("web.shop", "NoError aa web.shop. A 10.0.5.10");
    check("web.blog", "NoError aa web.blog. A 10.0.5.90");
    check("web.blog.stead", "NoError aa web.blog.stead. A 10.0.5.90");
    check("mail.shop.stead", "NoError aa mail.shop.stead. A 10.0.5.91");
    check("db.blog.stead", "NXDomain aa [stead. SOA]");
    let pointer = ask("lan.shop", [10, 0, 5, 200], "90.5.0.10.in-addr.arpa", kind::PTR);
    assert_eq!(pointer, "NoError aa 90.5.0.10.in-addr.arpa. PTR web.blog.stead.");
    // Whoever is on a network of its own project as well sees the names there, wherever it asks; others do not.
    let mail = |network, asker, name| ask(network, asker, name, kind::A);
    assert_eq!(mail("lan.shop", [10, 0, 5, 91], "secret"), "NoError aa secret. A 10.0.7.2");
    assert_eq!(mail("own.blog", [10, 0, 7, 3], "db"), "NoError aa db. A 10.0.5.11");
    assert_eq!(mail("lan.shop", [10, 0, 5, 90], "secret"), "NXDomain aa [. SOA]");
    assert_eq!(mail("own.blog", [10, 0, 7, 2], "db"), "NXDomain aa [. SOA]");
    // `web` of the network's own project has the same name, and is another.
    assert_eq!(mail("lan.shop", [10, 0, 5, 10], "job"), "NoError aa job. A 10.0.6.12");
    assert_eq!(mail("lan.shop", [10, 0, 5, 90], "web.shop"), "NoError aa web.shop. A 10.0.5.10");
    // Whatever a machine of another project is called, it does not take a name from one of the network's own.
    let own = all.get_mut(&"lan.shop".parse().unwrap()).unwrap();
    own.hosts.insert(mac(5), of_blog("www", 92));
    own.hosts.insert(mac(6), of_blog("job", 93));
    let ask = |network: &str, asker: [u8; 4], name: &str, kind: u16| {
        let net = Net::new(&network.parse().unwrap(), &all).unwrap();
        brief(decide(&net, IpAddr::V4(asker.into()), &packet(name, kind), Transport::Udp))
    };
    let check = |name: &str, expected: &str| {
        assert_eq!(ask("lan.shop", [10, 0, 5, 10], name, kind::A), expected);
    };
    check("front.shop.stead", "NoError aa front.shop.stead. A 10.0.5.10");
    check("job.shop.stead", "NoError aa job.shop.stead. A 10.0.6.12");
    check("job.blog.stead", "NoError aa job.blog.stead. A 10.0.5.93");
}

#[test]
fn underscores_are_taken_for_the_hyphens_that_names_have_in_their_place() {
    let mut all = wanted();
    let lan = all.get_mut(&"lan.shop".parse().unwrap()).unwrap();
    lan.hosts.values_mut().for_each(|host| host.aliases = vec![format!("my-{}", host.name).parse().unwrap()]);
    let net = Net::new(&"lan.shop".parse().unwrap(), &all).unwrap();
    let check = |name: &str, expected: &str| {
        let packet = packet(name, kind::A);
        assert_eq!(brief(decide(&net, STRANGER, &packet, Transport::Udp)), expected);
    };
    check("my_web", "NoError aa my_web. A 10.0.5.10");
    check("My_Db.shop", "NoError aa My_Db.shop. A 10.0.5.11");
    check("my_job.shop.stead", "NXDomain aa [shop.stead. SOA]");
}

#[test]
fn an_alias_may_have_several_parts() {
    let mut all = wanted();
    let lan = all.get_mut(&"lan.shop".parse().unwrap()).unwrap();
    let db = lan.hosts.values_mut().find(|host| host.name.as_str() == "db").unwrap();
    db.aliases = vec!["xmpp.meet.example".parse().unwrap(), "web.shop".parse().unwrap()];
    let net = Net::new(&"lan.shop".parse().unwrap(), &all).unwrap();
    let check = |name: &str, expected: &str| {
        let packet = packet(name, kind::A);
        assert_eq!(brief(decide(&net, STRANGER, &packet, Transport::Udp)), expected);
    };
    for name in ["xmpp.meet.example", "Xmpp.Meet.Example", "xmpp.meet.example.shop.stead"] {
        check(name, &format!("NoError aa {name}. A 10.0.5.11"));
    }
    // A machine's own name goes before.
    check("web.shop", "NoError aa web.shop. A 10.0.5.10");
}

#[test]
fn names_of_joined_networks_are_found_after_our_own() {
    check("job", kind::A, "NoError aa job. A 10.0.6.12");
    // `db` has the alias here, `job` there.
    check("store", kind::A, "NoError aa store. A 10.0.5.11");
    check("12.6.0.10.in-addr.arpa", kind::PTR, "NoError aa 12.6.0.10.in-addr.arpa. PTR job.shop.stead.");
}

#[test]
fn a_machine_on_several_networks_finds_the_names_of_all_whomever_it_asks() {
    let all = {
        let mut all = wanted();
        let lan = all.get_mut(&"lan.shop".parse().unwrap()).unwrap();
        (lan.joins, lan.resolves) = (Vec::new(), false);
        all
    };
    let lan = Net::new(&"lan.shop".parse().unwrap(), &all).unwrap();
    let ask = |asker: &str, name: &str, kind: u16| {
        brief(decide(&lan, asker.parse().unwrap(), &packet(name, kind), Transport::Udp))
    };
    // `web` is on `back` as well, `db` is not.
    for web in ["10.0.5.10", "fd00:5::a"] {
        assert_eq!(ask(web, "job", kind::A), "NoError aa job. A 10.0.6.12");
        assert_eq!(ask(web, "web", kind::A), "NoError aa web. A 10.0.5.10");
        let pointer = ask(web, "12.6.0.10.in-addr.arpa", kind::PTR);
        assert_eq!(pointer, "NoError aa 12.6.0.10.in-addr.arpa. PTR job.shop.stead.");
        // It reaches out by `back`, so it may as well ask here.
        assert_eq!(ask(web, "example.com", kind::A), "forward");
    }
    for other in ["10.0.5.11", "fd00:5::b", "10.0.5.200"] {
        assert_eq!(ask(other, "job", kind::A), "NXDomain aa [. SOA]");
        assert_eq!(ask(other, "example.com", kind::A), "Refused");
    }
}

#[test]
fn nobody_outside_is_asked_about_our_addresses() {
    let all = {
        let mut all = wanted();
        all.get_mut(&"lan.shop".parse().unwrap()).unwrap().joins.clear();
        all
    };
    let lan = Net::new(&"lan.shop".parse().unwrap(), &all).unwrap();
    let ask = |name: &str| brief(decide(&lan, STRANGER, &packet(name, kind::PTR), Transport::Udp));
    assert_eq!(ask("12.6.0.10.in-addr.arpa"), "NXDomain aa [6.0.10.in-addr.arpa. SOA]");
    assert_eq!(ask("12.7.0.10.in-addr.arpa"), "forward");
}

#[test]
fn what_has_no_such_record_is_told_from_what_is_not_there() {
    check("web", 16, "NoError aa [web. SOA]");
    check("web.shop.stead", 16, "NoError aa [shop.stead. SOA]");
    check("shop.stead", kind::A, "NoError aa [shop.stead. SOA]");
    check("stead", kind::A, "NoError aa [stead. SOA]");
    check("nobody", kind::A, "NXDomain aa [. SOA]");
    check("nobody.shop.stead", kind::A, "NXDomain aa [shop.stead. SOA]");
    check("web.other.stead", kind::A, "NXDomain aa [stead. SOA]");
    check("77.5.0.10.in-addr.arpa", kind::PTR, "NXDomain aa [5.0.10.in-addr.arpa. SOA]");
    check("5.0.10.in-addr.arpa", kind::PTR, "NoError aa [5.0.10.in-addr.arpa. SOA]");
    let reverse = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa";
    check(
        &format!("7.7.{}", &reverse[4..]),
        kind::PTR,
        "NXDomain aa [0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa. SOA]",
    );
    check(
        &format!("a.{}", &reverse[2..]),
        kind::PTR,
        &format!("NoError aa a.{}. PTR web.shop.stead.", &reverse[2..]),
    );
}

#[test]
fn the_rest_is_forwarded_or_refused() {
    check("example.com", kind::A, "forward");
    check("other.shop", kind::A, "forward");
    check("77.7.0.10.in-addr.arpa", kind::PTR, "forward");
    check("com", kind::A, "NXDomain aa [. SOA]");
    check("com", kind::DS, "forward");
    check("", kind::DNSKEY, "forward");
    check("web", kind::AXFR, "Refused");
    let alone = net_with(|network| network.resolves = false);
    assert_eq!(brief(decide(&alone, STRANGER, &packet("example.com", kind::A), Transport::Udp)), "Refused");
    assert_eq!(
        brief(decide(&alone, STRANGER, &packet("web", kind::A), Transport::Udp)),
        "NoError aa web. A 10.0.5.10"
    );
    let mut chaos = packet("web", kind::A);
    let class = 12 + 5 + 2;
    chaos[class + 1] = 3;
    assert_eq!(brief(decide(&net(), STRANGER, &chaos, Transport::Udp)), "Refused");
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let many = net_with(|network| {
        let host = network.hosts.values().next().unwrap().clone();
        for number in 0..100 {
            let mut host = host.clone();
            host.address = Some([10, 0, 5, number + 20].into());
            network.hosts.insert(format!("02:00:00:01:00:{number:02x}").parse().unwrap(), host);
        }
    });
    let question = packet("web", kind::A);
    let answer = brief(decide(&many, STRANGER, &question, Transport::Udp));
    assert_eq!(answer, "NoError aa tc");
    let Decision::Answer(bytes) = decide(&many, STRANGER, &question, Transport::Tcp) else { panic!() };
    assert_eq!(Judge::from_vec(&bytes).unwrap().answers.len(), 101);
}

#[test]
fn edns_is_answered_in_kind() {
    let question = packet("web", kind::A);
    let Decision::Answer(bytes) = decide(&net(), STRANGER, &question, Transport::Udp) else { panic!() };
    assert_eq!(Judge::from_vec(&bytes).unwrap().edns.unwrap().max_payload(), 1232);
    let mut newer = question.clone();
    let version = newer.len() - 5;
    newer[version] = 1;
    assert_eq!(brief(decide(&net(), STRANGER, &newer, Transport::Udp)), "BADSIG", "16, which is BADVERS too");
    let mut plain = question;
    plain.truncate(plain.len() - 11);
    plain[11] = 0;
    let Decision::Answer(bytes) = decide(&net(), STRANGER, &plain, Transport::Udp) else { panic!() };
    assert!(Judge::from_vec(&bytes).unwrap().edns.is_none());
}

#[test]
fn packets_that_are_no_questions() {
    let mut packet = packet("web", kind::A);
    assert_eq!(brief(decide(&net(), STRANGER, &packet[..11], Transport::Udp)), "silence");
    assert_eq!(brief(decide(&net(), STRANGER, &packet[..14], Transport::Udp)), "FormErr");
    packet[2] |= 0x80;
    assert_eq!(brief(decide(&net(), STRANGER, &packet, Transport::Udp)), "silence", "an answer");
    packet[2] = 0x28;
    assert_eq!(brief(decide(&net(), STRANGER, &packet, Transport::Udp)), "NotImp");
}

#[test]
fn an_ordinary_resolver_s_question_is_read() {
    let mut judge = Judge::query();
    judge.metadata.id = 0x1234;
    judge.metadata.recursion_desired = true;
    judge.add_query(Asked::query(Name::from_ascii("db.shop.").unwrap(), RecordType::A));
    let decision = decide(&net(), STRANGER, &judge.to_vec().unwrap(), Transport::Udp);
    assert_eq!(brief(decision), "NoError aa db.shop. A 10.0.5.11");
}

proptest! {
    #[test]
    fn no_packet_does_harm(packet in damaged(vec![
        packet("web", kind::A),
        packet("nobody.shop.stead", kind::AAAA),
        packet("10.5.0.10.in-addr.arpa", kind::PTR),
        packet("a.very.long.name.that.is.not.ours.example.com", kind::ANY),
    ])) {
        for transport in [Transport::Udp, Transport::Tcp] {
            match decide(&net(), STRANGER, &packet, transport) {
                Decision::Answer(bytes) => {
                    prop_assert!(transport == Transport::Tcp || bytes.len() <= 1232);
                    prop_assert_eq!(&bytes[..2], &packet[..2]);
                }
                Decision::Forward(question) => {
                    let asked = reply::ask(&question, 1);
                    prop_assert!(asked.len() < 300);
                    prop_assert!(relay(&packet, transport, &Reply::failed(), 0).is_some());
                }
                Decision::Silence => {}
            }
        }
    }
}
