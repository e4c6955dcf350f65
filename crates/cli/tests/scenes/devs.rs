//! Users that people work as in machines: made of the person who calls, in whatever an image has, and again when they are
//! others by now.

use std::fmt::Write as _;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{LIMIT, Place, Project, Role, World, executable, role, said, said_after};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB it's mine";

/// Stands for every manager of packages: tells what it was asked, and has what it was asked for.
const MANAGER: &str = "\
#!/bin/sh
echo \"${0##*/} $*\" >> /etc/asked
case \" $* \" in *' update '*) exit 0 ;; *fish*) exit 3 ;; esac
for program in sudo sshd visudo; do
    printf '#!/bin/sh\\nexit 0\\n' > /bin/$program; chmod 755 /bin/$program
done
";

const MANAGERS: [(&str, &str); 5] = [
    (
        "apt-get",
        "update\napt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install sudo openssh-server",
    ),
    ("dnf", "-y --setopt=install_weak_deps=False install sudo openssh-server"),
    ("apk", "add --no-cache sudo openssh-server"),
    ("zypper", "--non-interactive install --no-recommends sudo openssh-server"),
    ("pacman", "-Syu --noconfirm --needed sudo openssh"),
];

/// A machine with a manager of packages, and this under `dev`.
fn machine(name: &str, manager: &str, dev: &str) -> String {
    format!(
        "  {name}:\n    image: {BUSYBOX}\n    init: true\n    command: sleep 1000\n    networks: []\n    \
         volumes: [./manager:/bin/{manager}:ro]\n    dev: {dev}\n"
    )
}

fn project<'w>(world: &'w World, machines: &str) -> Project<'w> {
    let shop = world.project("shop", &format!("machines:\n{machines}"));
    executable(&shop.directory.join("manager"), MANAGER.as_bytes());
    shop
}

/// An ordinary user without more ids has none for anybody in containers: that is told before anything is made.
#[track_caller]
fn refuses(shop: &Project<'_>) {
    let said = shop.stead("up").code(2).says("this user's containers have no user id 1000");
    said.says("stead.yaml:").says("`subordinate ids`");
    assert_eq!(shop.stead("ps --all --format json").json(), serde_json::json!([]));
}

#[test]
fn somebody_works_in_a_machine_whatever_its_image_has() {
    let world = World::offline();
    let _registry = registry(&world);
    world.sh(Place::Person, &format!("mkdir -p nobody/.ssh; echo \"{KEY}\" > nobody/.ssh/id.pub"));
    let text: String = MANAGERS.iter().fold(String::new(), |mut text, (manager, _)| {
        let _ = write!(text, "{}", machine(&format!("by-{manager}"), manager, "true"));
        text
    });
    let shop = project(&world, &text);
    if role() == Role::User {
        return refuses(&shop);
    }
    let up = shop.stead("up").ok();
    assert!(up.contains("> provision by-apk.shop (user dev)\n"), "{up}");
    for (manager, asked) in MANAGERS {
        let told = shop.stead(&format!("exec by-{manager} cat /etc/asked")).ok();
        let first = if manager == "apt-get" { "-q " } else { "" };
        assert_eq!(told, format!("{manager} {first}{asked}\n"));
    }
    // The user of the image stays, and is the same one by another name.
    let accounts = shop.stead("exec by-apk cat /etc/passwd /etc/group").ok();
    assert_eq!(
        accounts,
        "root:x:0:0::/root:/bin/sh\ndev:*:1000:1000::/home/dev:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n\
         root:x:0:\ndev:x:1000:\napp:x:1000:\n"
    );
    let keys = "exec by-apk cat /home/dev/.ssh/authorized_keys";
    assert_eq!(shop.stead(keys).ok(), format!("# stead: begin\n{KEY}\n# stead: end\n"));
    let rights = shop.stead("exec by-apk cat /etc/sudoers.d/stead-dev").ok();
    assert_eq!(rights, "dev ALL=(ALL:ALL) NOPASSWD: ALL\n");
    // People log in as whom they work as, or as somebody else.
    let who = |options: &str| {
        let words: Vec<&str> =
            ["shell"].into_iter().chain(options.split_whitespace()).chain(["by-apk"]).collect();
        said_after(world.stead_command("home", &shop.directory, &words), "id -un; pwd\n", LIMIT).ok()
    };
    assert_eq!(who(""), "dev\n/home/dev\n");
    assert_eq!(who("--user root"), "root\n/\n");
    assert_eq!(shop.stead("up").ok(), "nothing to do\n");
    // Another one is made for what is another by now, and nothing is installed that is there.
    let hash =
        "{ user: joe, uid: 1001, groups: [docker, app], keys: [], sudo: false, password_hash: $$6$$a$$b }";
    shop.write(&format!("machines:\n{}", machine("by-apk", "apk", hash)));
    let plan = shop.plan();
    for part in ["user", "home of"] {
        let line = format!("> provision by-apk.shop ({part} joe)  # machines.by-apk.dev (changed)");
        assert!(plan.contains(&line), "{plan}");
    }
    shop.stead("up --yes").ok();
    assert_eq!(shop.stead("exec -u joe by-apk id -u").ok(), "1001\n");
    let groups = "root:x:0:\ndev:x:1000:\napp:x:1000:joe\njoe:x:1001:\ndocker:x:999:joe\n";
    assert_eq!(shop.stead("exec by-apk cat /etc/group").ok(), groups);
    let line = "exec by-apk cat /etc/shadow /etc/asked";
    assert_eq!(shop.stead(line).ok(), "joe:$6$a$b::0:99999:7:::\napk add --no-cache sudo openssh-server\n");
    shop.stead("exec by-apk test -e /etc/sudoers.d/stead-dev").code(1);
    assert_eq!(who(""), "joe\n/home/joe\n");
    shop.stead("down --yes").ok();
}

/// What is of this computer in a machine stays whose it is, and so does what is in it; a volume is the machine's.
#[test]
fn homes_of_this_computer_stay_as_they_are() {
    let world = World::offline();
    let _registry = registry(&world);
    world.sh(Place::Person, &format!("mkdir -p nobody/.ssh; echo \"{KEY}\" > nobody/.ssh/id.pub"));
    let mounts = [
        ("every", "- ./people:/home"),
        ("whole", "- ./people/dev:/home/dev"),
        ("keys", "- ./people/dev/.ssh:/home/dev/.ssh"),
        ("kept", "- home:/home/dev\n      - ./people:/home/dev/.config/more/people"),
    ];
    let text = mounts.iter().fold(String::new(), |text, (name, mount)| {
        let machine = machine(name, "apk", "true");
        text + &machine
            .replace("volumes: [", "volumes:\n      - ")
            .replace(":ro]", &format!(":ro\n      {mount}"))
    });
    let shop = project(&world, &format!("{text}volumes: {{ home: {{}} }}\n"));
    if role() == Role::User {
        return refuses(&shop);
    }
    world.sh(
        Place::Person,
        "mkdir -p projects/home/shop/people/dev/.ssh; echo mine > projects/home/shop/people/dev/.ssh/authorized_keys",
    );
    world.sh(Place::Computer, "chown -R 4321:4321 projects/home/shop/people");
    let all = || {
        let line = "cd projects/home/shop/people; find . -printf '%p %u:%g %m\\n' | sort; cat dev/.ssh/authorized_keys";
        world.sh(Place::Computer, line)
    };
    let before = all();
    assert!(before.contains("./dev/.ssh/authorized_keys 4321:4321"), "{before}");
    shop.stead("up").ok();
    assert_eq!(all(), before);
    let keys = format!("# stead: begin\n{KEY}\n# stead: end\n");
    assert_eq!(shop.stead("exec -u dev kept cat /home/dev/.ssh/authorized_keys").ok(), keys);
    let line = "exec kept stat -c %U:%a /home/dev /home/dev/.config /home/dev/.config/more /home/dev/.ssh";
    assert_eq!(shop.stead(line).ok(), "dev:700\ndev:755\ndev:755\ndev:700\n");
    shop.stead("exec -u dev keys touch /home/dev/own").ok();
    // Where they lead root by a link of theirs nothing is written as root.
    world
        .stead_at(
            "home",
            &shop.directory,
            &["exec", "-u", "dev", "kept", "sh", "-c", "cd; rm -r .ssh; ln -s /etc .ssh"],
        )
        .ok();
    world.sh(Place::Person, "echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC other' > nobody/.ssh/other.pub");
    let up = shop.stead("up").ok();
    assert!(up.contains("> provision kept.shop (home of dev)\n") && !up.contains("(user dev)"), "{up}");
    shop.stead("exec kept test -e /etc/authorized_keys").code(1);
    assert_eq!(all(), before);
    shop.stead("down --volumes --yes").ok();
}

#[test]
fn who_cannot_be_in_a_machine_is_told_with_the_reason() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = project(&world, &machine("web", "yum", "true"));
    if role() == Role::User {
        return refuses(&shop);
    }
    let lacks = shop.stead("up").code(1).says("step `> provision web.shop (user dev)` failed");
    lacks.says("this machine lacks sudo sshd, and none of apt-get, dnf, apk, zypper and pacman to install sudo openssh-server");
    // Root has called for somebody else.
    shop.write(&format!("machines:\n{}", machine("web", "apk", "{ shell: /bin/fish, sudo: false }")));
    let by_sudo = |words: &[&str]| {
        let mut command = world.stead_command("home", &shop.directory, words);
        command.env("SUDO_USER", "joe").env("SUDO_UID", "1234");
        said(command)
    };
    assert!(by_sudo(&["plan"]).ok().contains("(user joe)"));
    let said = by_sudo(&["up", "--yes"]).code(1);
    said.says("this machine lacks /bin/fish sshd, and apk could not install fish openssh-server");
    // A program of the system's is nobody to work as; the id of somebody else is.
    shop.write(&format!("machines:\n{}", machine("web", "apk", "{ user: root, sudo: false }")));
    shop.stead("plan").code(2).says("`root` is there anyway");
    let line = "echo www:x:33:33::/:/bin/false >> /etc/passwd";
    world.stead_at("home", &shop.directory, &["exec", "web", "sh", "-c", line]).ok();
    shop.write(&format!("machines:\n{}", machine("web", "apk", "{ user: www }")));
    shop.stead("up").code(1).says("`www` is an account of this machine's system, with the id 33");
    shop.stead("down --yes").ok();
}
