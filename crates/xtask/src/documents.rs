//! Whether the documents are true: they name commands and options that exist, README names every command, links
//! lead somewhere, what is generated is fresh, and every decision is in the index. The program itself says what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::programs::{cargo, command, output, root, run};

/// Where what was decided is listed.
const INDEX: &str = "docs/decisions/README.md";
/// Common options, wherever they stand.
const EVERYWHERE: &str = "";

/// The commands of the program (`network ls`), each with its options; those of every command under [`EVERYWHERE`].
type Commands = BTreeMap<String, BTreeSet<String>>;

/// A line for whatever is wrong.
pub(crate) fn wrong() -> Result<Vec<String>> {
    run(&mut cargo(&["build", "--quiet", "--package", "stead"]))?;
    let program = root().join("target/debug/stead");
    let program = program.to_str().context("the path of the program is not UTF-8")?;
    let help = |words: &[&str]| output(&mut command(program, &[words, &["--help"]].concat()));
    let commands = commands(&help)?;
    let mut wrong = Vec::new();
    let readme = fs::read_to_string(root().join("README.md")).context("could not read README.md")?;
    wrong.extend(unnamed(&readme, &commands));
    for path in output(&mut command("git", &["ls-files", "*.md"]))?.lines() {
        // Listed by git and deleted since.
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        wrong.extend(unknown(&text, &commands).into_iter().map(|line| format!("{path}: {line}")));
        wrong.extend(dead_links(Path::new(path), &text).into_iter().map(|line| format!("{path}: {line}")));
    }
    let schema = fs::read_to_string(root().join("docs/stead.schema.json")).unwrap_or_default();
    if output(&mut command(program, &["schema"]))? != schema {
        wrong.push("docs/stead.schema.json is not what `stead schema` prints".to_owned());
    }
    let index = fs::read_to_string(root().join(INDEX)).with_context(|| format!("could not read {INDEX}"))?;
    for entry in fs::read_dir(root().join("docs/decisions"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name != "README.md" && !index.contains(&row(&name, &text)) {
            wrong.push(format!("{INDEX} lacks the line `{}`", row(&name, &text)));
        }
    }
    Ok(wrong)
}

/// A record's line in the index.
fn row(name: &str, text: &str) -> String {
    let heading = text.lines().next().unwrap_or_default().trim_start_matches("# ");
    let (number, title) = heading.split_once(": ").unwrap_or((heading, ""));
    format!("| [{number}]({name}) | {title} |")
}

/// All visible commands, by asking for the help of each.
fn commands(help: &dyn Fn(&[&str]) -> Result<String>) -> Result<Commands> {
    let mut found = Commands::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(words) = open.pop() {
        let text = help(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        found.entry(EVERYWHERE.to_owned()).or_default().extend(options(&text, true));
        let below = subcommands(&text);
        if below.is_empty() {
            found.entry(words.join(" ")).or_default().extend(options(&text, false));
        }
        open.extend(below.into_iter().map(|name| [words.clone(), vec![name]].concat()));
    }
    // What clap adds by itself.
    found.insert("help".to_owned(), BTreeSet::new());
    let everywhere = found.entry(EVERYWHERE.to_owned()).or_default();
    everywhere.extend(["-h", "--help", "-V", "--version"].map(str::to_owned));
    Ok(found)
}

/// The names in a help's list of commands.
fn subcommands(help: &str) -> Vec<String> {
    let lines =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A name is indented by two spaces, the second line of what it does by more.
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The options in a help: those of every command, or the command's own.
fn options(help: &str, of_every_command: bool) -> BTreeSet<String> {
    let (own, every) = help.split_once("Common options:").unwrap_or((help, ""));
    let part = if of_every_command { every } else { own };
    let lines = part.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ',', '[']).take_while(|word| !word.starts_with('<')));
    words.filter(|word| word.starts_with('-') && word.len() > 1).map(str::to_owned).collect()
}

/// Commands that README does not name as `stead …` in its table.
fn unnamed(readme: &str, commands: &Commands) -> Vec<String> {
    let named = |name: &&String| {
        readme.contains(&format!("\n| `stead {name} ")) || readme.contains(&format!("\n| `stead {name}` "))
    };
    let lacking = commands.keys().filter(|name| !name.is_empty() && !named(name));
    lacking.map(|name| format!("README.md does not say what `stead {name}` does")).collect()
}

/// Commands and options that a document names and the program has not: in spans of code and in blocks, whatever
/// starts with `stead` or `$ stead`, and in README's table the options beside it.
fn unknown(text: &str, commands: &Commands) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in text.lines() {
        let spans: Vec<&str> = if line.trim_start_matches("$ ").starts_with("stead ") {
            vec![line.trim_start_matches("$ ")]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        let of_line = spans.iter().find_map(|span| command_of(span, commands));
        for span in spans {
            match (command_of(span, commands), span.strip_prefix("stead ")) {
                (None, Some(rest))
                    if rest.starts_with(|c: char| c.is_ascii_lowercase()) && !is_group(rest, commands) =>
                {
                    wrong.push(format!("there is no command `{span}`"));
                }
                _ => {}
            }
            let of_span = command_of(span, commands).or(of_line.filter(|_| span.starts_with('-')));
            let Some(name) = of_span else { continue };
            let mut known = [EVERYWHERE, name].into_iter().filter_map(|name| commands.get(name));
            let known: BTreeSet<&String> = known.by_ref().flatten().collect();
            // What comes after `--` is another program's.
            let words = span.split([' ', '/', '[', ']', '=']).take_while(|word| *word != "--");
            let options = words.filter(|word| word.starts_with('-') && word.len() > 1);
            let bad = options.filter(|option| !known.contains(&(*option).to_owned()));
            wrong.extend(bad.map(|option| format!("`stead {name}` has no option `{option}`")));
        }
    }
    wrong
}

/// Which command a span of code is a line of: the one with the most words. `network ls | rm` is one of several.
fn command_of<'a>(span: &str, commands: &'a Commands) -> Option<&'a str> {
    let rest = span.strip_prefix("stead ")?;
    let is_it = |name: &&String| {
        !name.is_empty()
            && rest
                .strip_prefix(name.as_str())
                .is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric()))
    };
    commands.keys().filter(is_it).max_by_key(|name| name.len()).map(String::as_str)
}

/// Whether these words are what several commands begin with: `network`.
fn is_group(words: &str, commands: &Commands) -> bool {
    commands.keys().any(|name| name.strip_prefix(words).is_some_and(|rest| rest.starts_with(' ')))
}

/// Links to files that are not there.
fn dead_links(path: &Path, text: &str) -> Vec<String> {
    let directory = root().join(path.parent().unwrap_or(Path::new("")));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let files = targets.filter(|target| !target.is_empty() && !target.contains("://"));
    let dead = files.filter(|target| !directory.join(target).exists());
    dead.map(|target| format!("there is no `{target}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Does things\n\nUsage: stead [OPTIONS] <COMMAND>\n\nCommands:\n  up    Make\n          more\n  \
        ls    List\n  help  Print\n\nOptions:\n  -h, --help     Print help\n\nCommon options:\n  \
        -f, --file <FILE>  The file [default: --none]\n";
    const UP: &str = "Make\n\nUsage: stead up\n\nOptions:\n  -y, --yes  Do\n      --mtu <N>  Of\n      --wait[=<STAGE>]  Until\n";

    fn all() -> Commands {
        let help = |words: &[&str]| {
            Ok(match words {
                [] => HELP,
                ["up"] => UP,
                _ => "List",
            }
            .to_owned())
        };
        commands(&help).unwrap()
    }

    #[test]
    fn the_program_says_what_exists() {
        let all = all();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["", "help", "ls", "up"]);
        let of = |name: &str| all.get(name).unwrap().iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        assert_eq!(of("up"), "--mtu --wait --yes -y");
        assert_eq!(of(""), "--file --help --version -V -f -h");
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(unknown(text, &all()), expected, "{text}");
    }

    #[test]
    fn what_documents_name_exists() {
        check(
            "`stead up --yes`, `stead ls -f x`, and\n$ stead up -y # or\n`stead.yaml` and `stead <name>`\n",
            &[],
        );
        check("say `stead start`", &["there is no command `stead start`"]);
        check("$ stead upper", &["there is no command `stead upper`"]);
        check("| `stead up [X]` | with `--all` and `--mtu` |", &["`stead up` has no option `--all`"]);
        check("stead ls --yes", &["`stead ls` has no option `--yes`"]);
        check("`stead up -- program --all` and `ls --all`", &[]);
    }

    #[test]
    fn several_commands_have_a_name_together() {
        let commands = ["network ls", "network rm"].map(|name| (name.to_owned(), BTreeSet::new())).into();
        assert_eq!(unknown("`stead network` and `stead network ls`", &commands), Vec::<String>::new());
        assert_eq!(unknown("`stead net`", &commands), ["there is no command `stead net`"]);
    }

    #[test]
    fn readme_names_every_command() {
        assert_eq!(
            unnamed("\n| `stead up [X]` | makes |\n| `stead help` | tells |\n", &all()),
            ["README.md does not say what `stead ls` does"]
        );
    }

    #[test]
    fn links_lead_to_files() {
        let text = "[a](README.md) [b](docs/none.md#x) [c](https://example.org/) [d](#x)";
        assert_eq!(dead_links(Path::new("README.md"), text), ["there is no `docs/none.md`"]);
    }

    #[test]
    fn a_record_has_its_line_in_the_index() {
        assert_eq!(row("0001-x.md", "# 0001: why\n\ntext"), "| [0001](0001-x.md) | why |");
    }
}
