//! The classic plans, as texts.

use expect_test::{Expect, expect};
use stead_model::external::missing_volumes;
use stead_model::lock::Lock;
use stead_model::observed::{Engine, Observed, Uplink};
use stead_model::plan::plan;
use stead_model::project::{Condition, Network, Project};
use stead_model::resolve::Refusal;
use stead_model::step::Step;

use crate::worlds::{
    With, applied, computer, fixed, lack, must_want, name, nic, nothing, part, project, subnet, text, up,
};

fn shop() -> Project {
    let bare = project("shop").net("lan", subnet("10.0.5.0/24"));
    bare.container("web", &[nic("lan")])
        .vm("db", &[nic("lan")])
        .depends("web", "db", Condition::Started)
        .port("web", "127.0.0.1:8080/tcp")
}

fn blog() -> Project {
    project("blog").net("lan", subnet("10.0.9.0/24")).container("web", &[nic("lan")])
}

/// Checks the plan from `old` up to `new` up.
#[track_caller]
fn check(old: &Project, new: &Project, expected: Expect) {
    let (seen, lock) = up(old, &computer());
    check_on(&seen, new, &lock, expected);
}

/// Checks the plan for `new` on the computer `seen`.
#[track_caller]
fn check_on(seen: &Observed, new: &Project, lock: &Lock, expected: Expect) {
    expected.assert_eq(&text(&plan(&must_want(new, lock, seen), seen)));
}

#[test]
fn the_first_up_makes_everything_in_the_order_of_need() {
    check_on(
        &computer(),
        &shop().volume("data"),
        &Lock::default(),
        expect![[r#"
        + project shop at /home/ann/shop
        + engine
        + switchboard
        + uplink veth stu-k3x9-boqvn 10.63.37.120/30 fd38:d009:5e47:6e9e:da43:1b55:dc65:770c/126
        + network lan.shop 10.0.5.0/24 nat
        + volume data.shop
        + lease db/lan.shop 10.0.5.2 02:00:98:d7:6d:f3
        + lease web/lan.shop 10.0.5.3 02:86:cd:53:c7:1c
        + vm db.shop (external)
        + nic db/lan.shop by tap stt-db-vtat5
        + container web.shop (external)
        + nic web/lan.shop as eth0 by stv-web-n7ltx
        + port 127.0.0.1:8080/tcp to web.shop:80
    "#]],
    );
}

#[test]
fn volumes_are_limited_otherwise_in_place() {
    let old = project("shop").volume("data").volume_of("mail", 10 << 30).volume_of("old", 1 << 30);
    check_on(
        &computer(),
        &old,
        &Lock::default(),
        expect![[r#"
        + project shop at /home/ann/shop
        + volume data.shop
        + volume mail.shop of at most 10GiB
        + volume old.shop of at most 1GiB
    "#]],
    );
    check(
        &old,
        &project("shop").volume_of("data", 1536 << 20).volume_of("mail", 2 << 30).volume("old"),
        expect![[r#"
        ~ volume data.shop size none -> 1536MiB
        ~ volume mail.shop size 10GiB -> 2GiB
        ~ volume old.shop size 1GiB -> none
    "#]],
    );
}

#[test]
fn an_external_volume_is_another_projects_and_no_step_of_ours() {
    let shop = project("shop").volume("data");
    let blog = project("blog").ours("web", "debian:12", &[]).external("web", "pool", "data.shop");
    let mounts = || blog.machines.values().flat_map(|machine| machine.runs.mounts());
    let missing = missing_volumes(mounts(), &computer());
    let [Refusal { key, why, .. }] = missing.as_slice() else { panic!("{missing:?}") };
    assert_eq!((key.as_str(), why.as_str()), ("volumes.pool", "there is no volume `data.shop`"));
    let (seen, lock) = up(&shop, &computer());
    assert_eq!(missing_volumes(mounts(), &seen), []);
    check_on(
        &seen,
        &blog,
        &lock,
        expect![[r#"
        + project blog at /home/ann/blog
        + engine
        + container web.blog from debian:12
        > start web.blog
    "#]],
    );
    let both = applied(&plan(&must_want(&blog, &lock, &seen), &seen), &seen);
    let [web, data] = ["web.blog", "data.shop"];
    assert_eq!(both.users_of(&data.parse().unwrap()), [web.parse().unwrap()].into());
    assert_eq!(both.users_of(&"pool.blog".parse().unwrap()), [].into());
    expect![[r#"
        > stop web.blog
        - machine web.blog
        - engine
        - project blog
    "#]]
    .assert_eq(&text(&plan(&nothing(&blog.name, &both), &both)));
    // Somebody deleted it while another machine was waited for.
    let gone = Observed { volumes: [].into(), running: [].into(), ..both };
    let misstep = gone.after(&Step::MachineStart(web.parse().unwrap(), [].into())).unwrap_err();
    assert_eq!(misstep.why, "a volume that it mounts is not there");
}

#[test]
fn another_mtu_changes_the_network_and_replaces_its_nics() {
    let mut new = shop();
    new.networks.get_mut(&name("lan")).unwrap().mtu = 1400;
    check(
        &shop(),
        &new,
        expect![[r#"
        - nic web/lan.shop
        - nic db/lan.shop
        ~ network lan.shop mtu 1500 -> 1400
        + nic db/lan.shop by tap stt-db-vtat5
        + nic web/lan.shop as eth0 by stv-web-n7ltx
    "#]],
    );
}

#[test]
fn a_moved_subnet_replaces_the_network_its_leases_and_nics() {
    check(
        &shop(),
        &shop().net("lan", subnet("10.0.6.0/24")),
        expect![[r#"
        - port 127.0.0.1:8080/tcp to web.shop:80
        - nic web/lan.shop
        - nic db/lan.shop
        - lease web/lan.shop 10.0.5.3 02:86:cd:53:c7:1c
        - lease db/lan.shop 10.0.5.2 02:00:98:d7:6d:f3
        - network lan.shop
        + network lan.shop 10.0.6.0/24 nat
        + lease db/lan.shop 10.0.6.2 02:00:98:d7:6d:f3
        + lease web/lan.shop 10.0.6.3 02:86:cd:53:c7:1c
        + nic db/lan.shop by tap stt-db-vtat5
        + nic web/lan.shop as eth0 by stv-web-n7ltx
        + port 127.0.0.1:8080/tcp to web.shop:80
    "#]],
    );
}

#[test]
fn a_new_port_is_one_step() {
    check(
        &shop(),
        &shop().port("db", "127.0.0.1:5432/tcp"),
        expect![[r#"
        + port 127.0.0.1:5432/tcp to db.shop:80
    "#]],
    );
}

#[test]
fn a_port_that_moves_to_all_addresses_waits_for_its_own_end() {
    let mut new = shop();
    new.machines.get_mut(&name("web")).unwrap().ports.clear();
    let new = new.port("web", "0.0.0.0:8080/tcp");
    check(
        &shop(),
        &new,
        expect![[r#"
        - port 127.0.0.1:8080/tcp to web.shop:80
        + port 0.0.0.0:8080/tcp to web.shop:80
    "#]],
    );
    let (seen, lock) = up(&shop(), &computer());
    let plan = plan(&must_want(&new, &lock, &seen), &seen);
    assert!(plan.steps[1].after.contains(&0));
}

#[test]
fn a_removed_machine_takes_its_port_nic_and_lease_along() {
    let mut new = shop();
    new.machines.remove(&name("web"));
    check(
        &shop(),
        &new,
        expect![[r#"
        - port 127.0.0.1:8080/tcp to web.shop:80
        - nic web/lan.shop
        - lease web/lan.shop 10.0.5.3 02:86:cd:53:c7:1c
        - machine web.shop
        + project shop at /home/ann/shop
    "#]],
    );
}

#[test]
fn a_container_that_becomes_a_vm_keeps_its_lease() {
    check(
        &shop(),
        &shop().vm("web", &[nic("lan")]),
        expect![[r#"
        - port 127.0.0.1:8080/tcp to web.shop:80
        - nic web/lan.shop
        - machine web.shop
        + project shop at /home/ann/shop
        + vm web.shop (external)
        + nic web/lan.shop by tap stt-web-n7ltx
    "#]],
    );
}

#[test]
fn fixed_addresses_change_places() {
    let old = shop().container("web", &[fixed("lan", "10.0.5.7")]).vm("db", &[fixed("lan", "10.0.5.8")]);
    let new = shop().container("web", &[fixed("lan", "10.0.5.8")]).vm("db", &[fixed("lan", "10.0.5.7")]);
    check(
        &old,
        &new,
        expect![[r#"
        - nic web/lan.shop
        - nic db/lan.shop
        - lease web/lan.shop 10.0.5.7 02:86:cd:53:c7:1c
        - lease db/lan.shop 10.0.5.8 02:00:98:d7:6d:f3
        + lease db/lan.shop 10.0.5.7 02:00:98:d7:6d:f3
        + lease web/lan.shop 10.0.5.8 02:86:cd:53:c7:1c
        + nic db/lan.shop by tap stt-db-vtat5
        + nic web/lan.shop as eth0 by stv-web-n7ltx
    "#]],
    );
}

#[test]
fn networks_that_change_their_subnets_wait_for_each_other() {
    let old = project("shop").net("a", subnet("10.1.0.0/24")).net("b", subnet("10.2.0.0/24"));
    let new = project("shop").net("a", subnet("10.2.0.0/24")).net("b", subnet("10.1.0.0/24"));
    check(
        &old,
        &new,
        expect![[r#"
        - network b.shop
        - network a.shop
        + network a.shop 10.2.0.0/24 nat
        + network b.shop 10.1.0.0/24 nat
    "#]],
    );
}

#[test]
fn joining_networks_changes_both_in_place() {
    let isolated = |text| Network { reach: stead_model::project::Reach::Isolated, ..subnet(text) };
    let old = project("shop").net("a", isolated("10.1.0.0/24")).net("b", isolated("10.2.0.0/24"));
    check(
        &old,
        &old.clone().join("a", "b"),
        expect![[r#"
        ~ network a.shop joins none -> b
        ~ network b.shop joins none -> a
    "#]],
    );
}

#[test]
fn down_takes_away_in_the_opposite_order_and_leaves_no_engine() {
    let (seen, _) = up(&shop().volume("data"), &computer());
    expect![[r#"
        - port 127.0.0.1:8080/tcp to web.shop:80
        - nic web/lan.shop
        - nic db/lan.shop
        - lease web/lan.shop 10.0.5.3 02:86:cd:53:c7:1c
        - lease db/lan.shop 10.0.5.2 02:00:98:d7:6d:f3
        - machine web.shop
        - machine db.shop
        - volume data.shop (its data is lost)
        - network lan.shop
        - uplink veth stu-k3x9-boqvn 10.63.37.120/30 fd38:d009:5e47:6e9e:da43:1b55:dc65:770c/126
        - engine
        - project shop
    "#]]
    .assert_eq(&text(&plan(&nothing(&name("shop"), &seen), &seen)));
}

#[test]
fn down_of_one_of_two_projects_leaves_the_other_its_engine_and_uplink() {
    let (seen, _) = up(&shop(), &computer());
    let (both, _) = up(&blog(), &seen);
    let down = plan(&nothing(&name("shop"), &both), &both);
    expect![[r#"
        - port 127.0.0.1:8080/tcp to web.shop:80
        - nic web/lan.shop
        - nic db/lan.shop
        - lease web/lan.shop 10.0.5.3 02:86:cd:53:c7:1c
        - lease db/lan.shop 10.0.5.2 02:00:98:d7:6d:f3
        - machine web.shop
        - machine db.shop
        - network lan.shop
        - project shop
    "#]]
    .assert_eq(&text(&down));
    let left = crate::worlds::applied(&down, &both);
    assert_eq!(part(&left, &name("blog")), part(&both, &name("blog")));
}

#[test]
fn an_engine_that_was_cut_off_is_taken_away_whole_first() {
    let (mut seen, lock) = up(&shop(), &computer());
    seen.engine = Engine::Partial;
    seen.switchboard = stead_model::observed::Switchboard::Absent;
    seen.networks.clear();
    seen.nics.clear();
    seen.ports.clear();
    check_on(
        &seen,
        &shop(),
        &lock,
        expect![[r#"
        - engine
        + engine
        + switchboard
        + uplink veth stu-k3x9-boqvn 10.63.37.120/30 fd38:d009:5e47:6e9e:da43:1b55:dc65:770c/126
        + network lan.shop 10.0.5.0/24 nat
        + vm db.shop (external)
        + nic db/lan.shop by tap stt-db-vtat5
        + container web.shop (external)
        + nic web/lan.shop as eth0 by stv-web-n7ltx
        + port 127.0.0.1:8080/tcp to web.shop:80
    "#]],
    );
}

#[test]
fn an_uplink_that_works_no_more_is_replaced_under_the_networks() {
    let (mut seen, lock) = up(&shop(), &computer());
    seen.host.uplinks.veth = lack("iptables drops it");
    check_on(
        &seen,
        &shop(),
        &lock,
        expect![[r#"
        - uplink veth stu-k3x9-boqvn 10.63.37.120/30 fd38:d009:5e47:6e9e:da43:1b55:dc65:770c/126
        + uplink pasta
    "#]],
    );
    // One that works stays, though a better one would, too.
    seen.uplink = Some(Uplink::Pasta);
    seen.host.uplinks.veth = Ok(());
    check_on(&seen, &shop(), &lock, expect![[""]]);
}

#[test]
fn scripts_are_run_before_what_depends_on_their_machine_and_each_once() {
    let bare = project("shop").ours("db", "debian:12", &[]).ours("web", "nginx", &[]);
    let bare = bare.depends("web", "db", Condition::Started);
    let shop = bare.clone().script("db", "a").script("db", "b");
    check(
        &project("shop"),
        &shop,
        expect![[r#"
        + project shop at /home/ann/shop
        + engine
        + container db.shop from debian:12
        > start db.shop
        > provision db.shop (1 of 2)
        > provision db.shop (2 of 2)
        + container web.shop from nginx:latest
        > start web.shop
    "#]],
    );
    let (seen, lock) = up(&project("shop"), &computer());
    let first = plan(&must_want(&shop, &lock, &seen), &seen);
    let place = |text: &str| first.steps.iter().position(|one| one.step.to_string() == text).unwrap();
    let before_web = &first.steps[place("> start web.shop")].after;
    assert!(before_web.contains(&place("> provision db.shop (2 of 2)")));

    let (seen, lock) = up(&shop, &computer());
    check_on(&seen, &shop, &lock, expect![""]);
    // Those around one that is another by now stay done; the machine is none that is made anew.
    let changed = bare.script("db", "a").script("db", "c").script("web", "d");
    let changed = plan(&must_want(&changed, &lock, &seen), &seen);
    let told = changed.steps.iter().map(|one| format!("{}  # {}\n", one.step, one.why));
    expect![[r#"
        > provision db.shop (2 of 2)  # machines.db.provision[1] (changed)
        > provision web.shop (1 of 1)  # machines.web.provision[0]
    "#]]
    .assert_eq(&told.collect::<String>());
}

#[test]
fn a_user_to_work_as_comes_before_scripts_and_changes_alone() {
    let bare = project("shop").ours("web", "debian:12", &[]).script("web", "a");
    let shop = bare.clone().dev("web", "ann");
    check(
        &project("shop"),
        &shop,
        expect![[r#"
            + engine
            + container web.shop from debian:12
            > start web.shop
            > provision web.shop (user ann)
            > provision web.shop (home of ann)
            > provision web.shop (1 of 1)
        "#]],
    );
    let (seen, lock) = up(&shop, &computer());
    check_on(&seen, &shop, &lock, expect![""]);
    let changed = plan(&must_want(&bare.clone().dev("web", "joe"), &lock, &seen), &seen);
    let told = changed.steps.iter().map(|one| format!("{}  # {}\n", one.step, one.why));
    expect![[r#"
        > provision web.shop (user joe)  # machines.web.dev (changed)
        > provision web.shop (home of joe)  # machines.web.dev (changed)
    "#]]
    .assert_eq(&told.collect::<String>());
    // One who is wanted no more stays, as what a script did does.
    check_on(&seen, &bare, &lock, expect![""]);
}
