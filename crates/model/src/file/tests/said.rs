//! What is said beside a file, and goes over it: how many there are to be of a machine, and what the project is called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use expect_test::{Expect, expect};

use crate::file::{Source, Variables, parse};
use crate::name::Name;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The machines of a file where so many are said of some; or what is wrong.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at every call")]
fn check(scale: &[(&str, u16)], text: &str, expected: Expect) {
    let scale: BTreeMap<Name, u16> = scale.iter().map(|(machine, count)| (name(machine), *count)).collect();
    let env = Variables::new();
    let source = Source { scale: &scale, ..Source::new("stead.yaml", text, &env, Path::new("/srv/shop")) };
    let shown = match parse(&source) {
        Ok(parsed) => {
            let words = parsed.project.machines.iter().map(|(name, machine)| {
                let after: Vec<String> = machine.depends_on.keys().map(ToString::to_string).collect();
                format!("{name} {}", after.join(" ")).trim_end().to_owned() + "\n"
            });
            words.collect()
        }
        Err(problems) => problems.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn how_many_there_are_goes_over_the_file() {
    let text = "machines:
  web: { image: web, replicas: 5 }
  api: { image: api, ports: ['0:80'] }
  lb: { image: lb, depends_on: [web] }
";
    check(
        &[("web", 2), ("api", 2)],
        text,
        expect![[r#"
        api-1
        api-2
        lb web-1 web-2
        web-1
        web-2
    "#]],
    );
    check(
        &[("web", 1)],
        text,
        expect![[r#"
        api
        lb web
        web
    "#]],
    );
    check(
        &[("lb", 0)],
        text,
        expect![[r#"
        api
        web-1
        web-2
        web-3
        web-4
        web-5
    "#]],
    );
}

#[test]
fn several_of_what_there_can_be_one_of_are_refused_as_where_the_file_says_it() {
    let text = "networks: { n: { subnet: 10.0.0.0/24 } }
machines:
  web: { image: web, ports: ['80:80'], networks: { n: { address: 10.0.0.7 } } }
  web-2: { image: web }
  tool: { image: tool, profiles: [tools] }
  lb: { image: lb, depends_on: [gone] }
  gone: { image: gone }
";
    check(
        &[("web", 2)],
        text,
        expect![[r#"
        stead.yaml:3:3: there is a machine `web-2` already
          3 |   web: { image: web, ports: ['80:80'], networks: { n: { address: 10.0.0.7 } } }
            |   ^^^
          hint: rename one of them

        stead.yaml:3:30: several machines cannot be published on one port
          3 |   web: { image: web, ports: ['80:80'], networks: { n: { address: 10.0.0.7 } } }
            |                              ^^^^^^^
          hint: write `0:80`: then each has a port that this computer chooses; or publish one machine that passes on to them, all found by their common name

        stead.yaml:3:66: several machines cannot have one address
          3 |   web: { image: web, ports: ['80:80'], networks: { n: { address: 10.0.0.7 } } }
            |                                                                  ^^^^^^^^
          hint: leave it out, or write one machine
    "#]],
    );
    check(
        &[("wbe", 2), ("tool", 2), ("gone", 0)],
        text,
        expect![[r#"
        stead.yaml:1:1: there is no machine `wbe`
          1 | networks: { n: { subnet: 10.0.0.0/24 } }
            | ^
          hint: did you mean `web`?

        stead.yaml:5:3: there is to be `tool`, and none of its profiles was asked for
          5 |   tool: { image: tool, profiles: [tools] }
            |   ^^^^
          hint: ask for one by `--profile`

        stead.yaml:6:33: machine `gone` has no replicas
          6 |   lb: { image: lb, depends_on: [gone] }
            |                                 ^^^^
          hint: leave it out, or write `required: false` under it
    "#]],
    );
}

#[test]
fn what_a_project_is_called_goes_over_the_file_and_the_variable() {
    let env = Variables::from([("COMPOSE_PROJECT_NAME".to_owned(), "variable".to_owned())]);
    let called = name("said");
    let built = |file: &str, text: &str| {
        let source =
            Source { called: Some(&called), ..Source::new(file, text, &env, Path::new("/srv/shop")) };
        let project = parse(&source).unwrap().project;
        let images: BTreeSet<String> = project
            .machines
            .values()
            .filter_map(|machine| Some(machine.runs.container()?.image.to_string()))
            .collect();
        (project.name.to_string(), images)
    };
    for (file, text) in [
        ("stead.yaml", "name: file\nmachines: { web: { build: . } }\n"),
        ("stead.yaml", "machines: { web: { build: . } }\n"),
        ("compose.yaml", "name: file\nservices: { web: { build: . } }\n"),
    ] {
        assert_eq!(built(file, text), ("said".to_owned(), ["said-web:latest".to_owned()].into()), "{text}");
    }
}
