//! The anchor alone, for this crate's tests, which have threads and so cannot be one themselves. The
//! product's is `stead __anchor`.
//!
//! `stead-net-anchor serve <dir>`, `stead-net-anchor spawn <dir>`, or `stead-net-anchor enter <dir> <namespace or -> <resolv.conf's text or -> <command>…`.

#![allow(clippy::print_stderr)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use stead_net::anchor::{Client, Entrance, Resolver, enter, serve, spawn};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> Result<()> {
    match args {
        [verb, dir] if verb == "serve" => serve(Path::new(dir)),
        [verb, dir] if verb == "spawn" => {
            let program = std::env::current_exe().context("cannot find ourselves")?;
            spawn(&program, &["serve".into(), dir.clone()], Path::new(dir)).map(drop)
        }
        [verb, dir, namespace, resolver, command @ ..] if verb == "enter" => {
            let mut client = Client::connect(Path::new(dir))?.context("no anchor runs there")?;
            let namespace = match namespace.to_str() {
                Some("-") => None,
                Some(name) => Some(client.namespace(&name.parse()?)?),
                None => bail!("a namespace's name is text"),
            };
            let resolver = match resolver.to_str() {
                Some("-") => None,
                Some(text) => Some(Resolver { text: text.to_owned(), dir: dir.into() }),
                None => bail!("a resolv.conf is text"),
            };
            let anchor = client.process();
            match enter(Entrance { anchor, namespace, resolver, command: command.to_vec() })? {}
        }
        _ => bail!("say `serve <dir>`, `spawn <dir>` or `enter <dir> <namespace> <resolv.conf> <command>`"),
    }
}
