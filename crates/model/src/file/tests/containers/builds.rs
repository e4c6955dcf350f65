//! Images that are built for machines.

use super::*;

#[test]
fn what_is_built_is_called_after_its_machine_and_known() {
    let text = "name: shop
machines:
  web:
    build:
      context: ./web
      dockerfile: small.Dockerfile
      args: [A=1, TOKEN, NOWHERE]
      target: small
      labels: { team: a }
      tags: ['shop/web:dev']
      secrets: [word]
      no_cache: true
    replicas: 2
  job: { image: 'shop/job:1', build: ., pull_policy: build }
secrets: { word: { file: word.txt } }
";
    let env = Variables::from([("TOKEN".to_owned(), "t".to_owned())]);
    let parsed = parse(&Source::new("stead.yaml", text, &env, std::path::Path::new("/srv/shop"))).unwrap();
    let image = |name: &str| {
        let machine = parsed.project.machines.get(&name.parse().unwrap()).unwrap();
        machine.runs.container().unwrap().image.to_string()
    };
    assert_eq!(["web-1", "web-2", "job"].map(image), ["shop-web:latest", "shop-web:latest", "shop/job:1"]);
    let build = parsed.builds.get(&"web-2".parse().unwrap()).unwrap();
    let expected = crate::file::Build {
        context: "/srv/shop/web".into(),
        dockerfile: crate::file::Dockerfile::File("/srv/shop/web/small.Dockerfile".into()),
        args: [("A", "1"), ("TOKEN", "t")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        target: Some("small".to_owned()),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        tags: vec!["shop/web:dev".parse().unwrap()],
        secrets: [("word".to_owned(), "/srv/shop/word.txt".into())].into(),
        no_cache: true,
        pull: false,
    };
    assert_eq!(*build, expected);
    let job = &parsed.builds[&"job".parse().unwrap()];
    assert_eq!(job.context, PathBuf::from("/srv/shop"));
    assert_eq!(parsed.pull[&"job".parse().unwrap()], Pull::Build);
}

#[test]
fn what_is_built_and_pulled_is_rendered_and_reads_back() {
    let text = "secrets: { word: { file: ./word } }
machines:
  a:
    pull_policy: never
    build:
      context: ./web
      dockerfile: other
      args: { A: '1', B: '$$x' }
      target: last
      labels: { team: shop }
      tags: ['shop/web:dev']
      secrets: [word]
      no_cache: true
      pull: true
  b: { image: 'shop/b:1', build: { dockerfile_inline: \"FROM x\\nRUN y\" } }
";
    let parsed = read(text).unwrap();
    let origins = Origins { pull: parsed.pull.clone(), builds: parsed.builds.clone() };
    let again = read(&render_with(&parsed.project, &origins)).unwrap();
    assert_eq!((&again.project, &again.pull, &again.builds), (&parsed.project, &parsed.pull, &parsed.builds));
    assert_eq!(
        render_json_with(&parsed.project, &origins)["machines"]["b"]["build"]["dockerfile_inline"],
        "FROM x\nRUN y"
    );
}

#[test]
fn a_build_that_cannot_be_is_told() {
    check(
        "machines:
  a: { build: { context: 'git@host:x', secrets: [word] } }
  b: { build: { dockerfile: x, dockerfile_inline: FROM y, secrets: [wort] } }
  c: { build: { contect: . } }
secrets: { word: { file: word.txt } }
",
        expect![[r#"
            stead.yaml:2:15: the context of a build is a directory of this computer
              2 |   a: { build: { context: 'git@host:x', secrets: [word] } }
                |               ^^
              hint: fetch it first, and write the directory

            stead.yaml:3:32: the instructions stand here, and `dockerfile` names a file of them
              3 |   b: { build: { dockerfile: x, dockerfile_inline: FROM y, secrets: [wort] } }
                |                                ^^^^^^^^^^^^^^^^^
              hint: leave one of them out

            stead.yaml:3:69: there is no secret `wort`
              3 |   b: { build: { dockerfile: x, dockerfile_inline: FROM y, secrets: [wort] } }
                |                                                                     ^^^^
              hint: did you mean `word`?

            stead.yaml:4:17: there is no key `contect` here
              4 |   c: { build: { contect: . } }
                |                 ^^^^^^^
              hint: did you mean `context`?
        "#]],
    );
}

#[test]
fn what_is_extended_is_built_from_where_its_file_is() {
    let others = [("base/common.yaml", "machines: { web: { build: { context: ./src } } }\n")];
    let text = "machines: { web: { extends: { machine: web, file: base/common.yaml } } }\n";
    let env = Variables::default();
    let dir = std::path::Path::new("/srv/shop");
    let source = Source::new("stead.yaml", text, &env, dir);
    let files = files(&source, |path| {
        let found = others.iter().find(|(name, _)| dir.join(name) == path);
        found.map_or(FileText::Missing, |(_, text)| FileText::Text((*text).to_owned()))
    });
    let parsed = parse(&Source { files: &files, ..source }).unwrap();
    assert_eq!(parsed.builds[&"web".parse().unwrap()].context, PathBuf::from("/srv/shop/base/src"));
}
