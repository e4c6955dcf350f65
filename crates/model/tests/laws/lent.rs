//! Networks on which machines of other projects are: no plan of either project changes anything of the other, and the one that
//! has the network does not become what would.

use expect_test::expect;

use stead_model::external::missing_networks;
use stead_model::lock::Lock;
use stead_model::observed::{Engine, Observed};
use stead_model::plan::{Plan, Wanted, plan};
use stead_model::project::{Addressing, Guard, Network, Nic, Pool, Project};
use stead_model::resolve::Refusal;

use crate::worlds::{
    With, applied, assert_lawful, computer, damaged, fixed, must_want, name, network, nic, nothing, part,
    project, subnet, text, up, wanted,
};
use crate::{Lot, assert_down_arrives, assert_untouched, assert_up_arrives, outliving, small_projects};

/// Machines of ours and of others on a network of their own and on `lan` of project `shop`, in both orders.
fn blogs() -> [Project; 3] {
    let bare = || project("blog").net("own", network()).lent("front", "lan.shop");
    let both = [nic("own"), nic("front")];
    let routed = Nic { guard: Guard::Off, ..nic("front") };
    [
        bare().ours("web", "debian:12", &both).container("db", &[nic("front")]).volume("data"),
        bare().vm("web", &[routed, nic("own")]).vm_ours("db", 512, &[nic("front")]),
        project("blog").lent("front", "lan.shop").ours("web", "nginx", &[nic("front")]),
    ]
}

/// `shop` up, and `blog` on its network; nothing where it has no such network.
fn both(shop: &Project, blog: &Project) -> Option<(Observed, Lock, Lock)> {
    let (one, lock) = up(shop, &computer());
    one.lent(&"lan.shop".parse().unwrap())?;
    let goal = must_want(blog, &Lock::default(), &one);
    let both = applied(&plan(&goal, &one), &one);
    Some((both, lock, Lock::new(&goal)))
}

fn pairs() -> impl Iterator<Item = (Project, Project)> {
    let shops = small_projects("shop", 8080);
    shops.into_iter().flat_map(|shop| blogs().map(|blog| (shop.clone(), blog)))
}

#[test]
fn whoever_borrows_a_network_comes_and_goes_and_leaves_it_as_it_is() {
    let mut lot = Lot(21);
    let mut tried = 0;
    for (shop, blog) in pairs().step_by(2) {
        let (one, lock) = up(&shop, &computer());
        let Some((both, ..)) = both(&shop, &blog) else { continue };
        tried += 1;
        assert_untouched(&must_want(&blog, &Lock::default(), &one), &shop.name, &one, &mut lot);
        assert_up_arrives(&blog, &Lock::default(), &one, (1, &mut lot));
        assert_eq!(text(&plan(&must_want(&shop, &lock, &both), &both)), "", "what is up stays as wanted");
        assert!(!nothing(&shop.name, &both).in_others_way(&both).is_empty());
        assert_untouched(&nothing(&blog.name, &both), &shop.name, &both, &mut lot);
        assert_down_arrives(&blog.name, &both, (1, &mut lot));
        let left = applied(&plan(&nothing(&blog.name, &both), &both), &both);
        assert_eq!(nothing(&shop.name, &left).in_others_way(&left), []);
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn whoever_lends_a_network_becomes_nothing_that_others_would_feel() {
    let mut lot = Lot(22);
    let (mut became, mut refused) = (0, 0);
    let projects = small_projects("shop", 8080);
    for (place, (shop, blog)) in pairs().step_by(4).enumerate() {
        let Some((both, lock, of_blog)) = both(&shop, &blog) else { continue };
        for new in projects.iter().skip(place % 5).step_by(5) {
            let goal = must_want(new, &lock, &both);
            if goal.in_others_way(&both).is_empty() {
                became += 1;
                assert_untouched(&goal, &blog.name, &both, &mut lot);
                let after = applied(&plan(&goal, &both), &both);
                assert_lawful(&after);
                assert_eq!(text(&plan(&must_want(&blog, &of_blog, &after), &after)), "", "{new:#?}");
            } else {
                refused += 1;
            }
        }
    }
    assert!(became > 100 && refused > 100, "{became} {refused}");
}

#[test]
fn what_befell_the_computer_is_mended_by_each_for_itself() {
    let mut lot = Lot(23);
    for (shop, blog) in pairs().step_by(11) {
        let Some((both, lock, of_blog)) = both(&shop, &blog) else { continue };
        for (what, world) in damaged(&both) {
            // Whoever mends what others would feel is told to have them go first.
            let Some(goal) =
                wanted(&shop, &lock, &world).ok().filter(|goal| goal.in_others_way(&world).is_empty())
            else {
                continue;
            };
            assert_untouched(&goal, &blog.name, &world, &mut lot);
            let mended = plan(&goal, &world).promised(&world);
            if wanted(&blog, &of_blog, &mended).is_ok() && mended.lent(&"lan.shop".parse().unwrap()).is_some()
            {
                println!("{what}");
                assert_up_arrives(&blog, &of_blog, &mended, (1, &mut lot));
            }
            assert_untouched(&nothing(&blog.name, &world), &shop.name, &world, &mut lot);
        }
    }
}

#[test]
fn addresses_outlast_the_network_while_the_machine_is_wanted() {
    for (shop, blog) in pairs().step_by(4) {
        let Some((both, lock, of_blog)) = both(&shop, &blog) else { continue };
        let mut lost = outliving(&Observed { engine: Engine::Absent, ..both.clone() }, &blog.name);
        let of_shop = outliving(&Observed { engine: Engine::Absent, ..both.clone() }, &shop.name);
        lost.host = both.host.clone();
        lost.projects.extend(of_shop.projects);
        lost.leases.extend(of_shop.leases);
        lost.machines.extend(of_shop.machines);
        (lost.nics, lost.networks, lost.ports, lost.running) = Default::default();
        lost.machines.retain(|_, machine| !machine.goes_with_engine());
        let alone = must_want(&blog, &of_blog, &lost);
        let planned = plan(&alone, &lost);
        // Nobody starts it without the network, and what is on record waits for it.
        assert_ne!(missing_networks(&blog, |_| true, &planned, &lost), []);
        let waiting = planned.promised(&lost);
        assert_eq!(part(&waiting, &blog.name).leases.len(), part(&both, &blog.name).leases.len());
        let (again, _) = up_with(&shop, &lock, &lost);
        let (again, _) = up_with(&blog, &of_blog, &again);
        assert_eq!(again.leases, both.leases);
        assert_eq!(again.nics.keys().collect::<Vec<_>>(), both.nics.keys().collect::<Vec<_>>());
    }
}

fn up_with(project: &Project, lock: &Lock, seen: &Observed) -> (Observed, Wanted) {
    let goal = must_want(project, lock, seen);
    (applied(&plan(&goal, seen), seen), goal)
}

fn shop() -> Project {
    project("shop").net("lan", subnet("10.0.5.0/24")).container("web", &[nic("lan")])
}

fn blog() -> Project {
    project("blog").lent("front", "lan.shop").container("web", &[nic("front")])
}

#[test]
fn a_machine_on_a_network_of_another_project_has_an_address_from_the_other_end() {
    let (one, _) = up(&shop(), &computer());
    expect![[r#"
        + project blog at /home/ann/blog
        + lease web.blog/lan.shop 10.0.5.191 02:c4:55:f6:4d:a6
        + container web.blog (external)
        + nic web.blog/lan.shop as eth0 by stv-web-f7gcq
    "#]]
    .assert_eq(&text(&plan(&must_want(&blog(), &Lock::default(), &one), &one)));
    let (both, lock, of_blog) = both(&shop(), &blog()).unwrap();
    assert_eq!(of_blog, Lock::default(), "what another project's network has is not for our lock");
    expect![[r#"
        - nic web.blog/lan.shop
        - lease web.blog/lan.shop 10.0.5.191 02:c4:55:f6:4d:a6
        - machine web.blog
        - project blog
    "#]]
    .assert_eq(&text(&plan(&nothing(&name("blog"), &both), &both)));
    // Its own machines go on from theirs.
    let more = shop().container("db", &[nic("lan")]);
    expect![[r#"
        + lease db/lan.shop 10.0.5.3 02:00:98:d7:6d:f3
        + container db.shop (external)
        + nic db/lan.shop as eth0 by stv-db-vtat5
    "#]]
    .assert_eq(&text(&plan(&must_want(&more, &lock, &both), &both)));
}

/// Refusals, a line each.
fn told(refusals: &[Refusal]) -> String {
    refusals.iter().map(|refusal| format!("{refusal}; {}\n", refusal.hint)).collect()
}

#[test]
fn what_cannot_be_is_told() {
    let (one, _) = up(&shop(), &computer());
    let refused =
        |blog: &Project| wanted(blog, &Lock::default(), &one).map_or_else(|no| told(&no), |_| "fits".into());
    let long = "n".repeat(40);
    let (two, _) = up(&project(&long).net(&long, subnet("10.0.6.0/24")), &one);
    let mut far = project("blog").lent("front", &format!("{long}.{long}"));
    far = far.container(&long, &[nic("front")]);
    far.name = name(&"b".repeat(40));
    expect![[r#"
        machines.web.networks.front: machine `web.shop` has `10.0.5.2` on network `lan.shop` already; choose another, or leave it out: the next free one is taken
        machines.web.networks.front: no machine of network `lan.shop` (10.0.5.0/24 nat) can have 10.0.5.250; choose an address of its subnet that is not for strangers, or leave it out
        machines.web.networks.front: no machine of network `lan.shop` (10.0.5.0/24 nat) can have 10.0.7.2; choose an address of its subnet that is not for strangers, or leave it out
        fitsmachines.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn.networks.front: the names of machine, network and both projects are too long together: `nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn`; they may have 147 characters together
    "#]]
    .assert_eq(
        &[
            refused(&at("10.0.5.2")),
            refused(&at("10.0.5.250")),
            refused(&at("10.0.7.2")),
            refused(&at("10.0.5.9")),
            wanted(&far, &Lock::default(), &two).map_or_else(|no| told(&no), |_| "fits".into()),
        ]
        .concat(),
    );
}

/// `blog` with a machine on `lan` of `shop`.
fn at(address: &str) -> Project {
    project("blog").lent("front", "lan.shop").container("web", &[fixed("front", address)])
}

#[test]
fn what_others_would_feel_and_what_is_not_there_is_told() {
    let (both, lock, _) = both(&shop(), &at("10.0.5.9")).unwrap();
    let becomes = |shop: &Project| match wanted(shop, &lock, &both) {
        Ok(goal) => told(&goal.in_others_way(&both)),
        Err(refusals) => told(&refusals),
    };
    let with = |change: &dyn Fn(&mut Network)| {
        let mut shop = shop();
        change(shop.networks.get_mut(&name("lan")).unwrap());
        becomes(&shop)
    };
    let pool = |pool: Pool| {
        with(&|lan| {
            if let Addressing::Managed(dhcp) = &mut lan.addressing {
                dhcp.pool = pool;
            }
        })
    };
    expect![[r#"
        networks.lan: machines of other projects are on network `lan.shop`, as it is: `web.blog`; `stead rm` these machines first, or `stead down` their project
        machines.db.networks.lan: machine `web.blog` has `10.0.5.9` on network `lan` already; choose another, or leave it out: the next free one is taken
        networks.lan.subnet: machines of other projects are on network `lan.shop`, as it is: `web.blog`; `stead rm` these machines first, or `stead down` their project
        networks.lan.mtu: machines of other projects are on network `lan.shop`, as it is: `web.blog`; `stead rm` these machines first, or `stead down` their project
        networks.lan.dhcp.pool: machines of other projects are on network `lan.shop`, as it is: `web.blog`; `stead rm` these machines first, or `stead down` their project
    "#]]
    .assert_eq(
        &[
            becomes(&project("shop")),
            becomes(&shop().container("db", &[fixed("lan", "10.0.5.9")])),
            with(&|lan| *lan = subnet("10.0.6.0/24")),
            with(&|lan| lan.mtu = 1400),
            pool(Pool::Range([10, 0, 5, 8].into(), [10, 0, 5, 20].into())),
            pool(Pool::Off),
            becomes(&shop().net("more", subnet("10.0.7.0/24")).join("lan", "more")),
        ]
        .concat(),
    );
    let none = Plan::default();
    let missing = |id: &str| {
        told(&missing_networks(
            &project("blog").lent("front", id).container("web", &[nic("front")]),
            |_| true,
            &none,
            &both,
        ))
    };
    expect![[r#"
        networks.front: there is no network `lan`; write `name: lan.shop` for the one of project `shop`
        networks.front: there is no network `shop-lan`; write `name: lan.shop` for the one of project `shop`
        networks.front: there is no network `wan.shop`; project `shop` makes it, if its file names it: `stead up` there first
        networks.front: there is no network `wan`; `stead network create wan` makes it
    "#]]
    .assert_eq(
        &["lan.shop", "lan.default", "shop-lan.default", "wan.shop", "wan.default"].map(missing).concat(),
    );
}

#[test]
fn projects_that_lend_come_first() {
    let (both, ..) = both(&shop(), &blog()).unwrap();
    let names = |texts: [&str; 3]| texts.map(name).to_vec();
    assert_eq!(both.lenders_first(names(["blog", "other", "shop"])), names(["other", "shop", "blog"]));
}
