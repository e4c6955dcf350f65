//! Carrying out a plan: every step as soon as those it waits for are done, independent ones together.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Error, Result};

use stead_model::observed::Observed;
use stead_model::plan::{Plan, Planned};
use stead_model::step::Step;

/// A computer that stead runs machines on.
pub trait Host {
    /// What exists there.
    fn observe(&mut self) -> Result<Observed>;

    /// Runs steps none of which waits for another, and says of each how it went, in their order.
    fn run(&mut self, steps: &[&Step]) -> Vec<Result<()>>;
}

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It failed.
    Failed(Error),
    /// It was not tried, because one that it waits for failed.
    Skipped,
}

/// What happens while a plan is carried out.
#[derive(Debug)]
pub enum Event<'a> {
    /// These steps begin, together.
    Begin(&'a [&'a Planned]),
    /// This step ended.
    End(&'a Planned, &'a Outcome),
}

/// Carries out a plan and reports what happens. A failure holds up only what waits for it.
pub fn apply(plan: &Plan, host: &mut dyn Host, report: &mut dyn FnMut(&Event<'_>)) -> Vec<(Step, Error)> {
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let mut ended: BTreeSet<usize> = BTreeSet::new();
    let mut failures = Vec::new();
    loop {
        let waiting = plan.steps.iter().enumerate().filter(|(place, _)| !ended.contains(place));
        let ready: Vec<(usize, &Planned)> = waiting.filter(|(_, step)| step.after.is_subset(&done)).collect();
        if ready.is_empty() {
            break;
        }
        let begun: Vec<&Planned> = ready.iter().map(|(_, planned)| *planned).collect();
        report(&Event::Begin(&begun));
        let steps: Vec<&Step> = begun.iter().map(|planned| &planned.step).collect();
        let start = Instant::now();
        let results = host.run(&steps);
        let texts = || begun.iter().map(|planned| planned.step.to_string()).collect::<Vec<_>>();
        tracing::debug!(steps = ?texts(), elapsed = ?start.elapsed(), "carried out together");
        for ((place, planned), result) in ready.into_iter().zip(results) {
            ended.insert(place);
            match result {
                Ok(()) => {
                    done.insert(place);
                    report(&Event::End(planned, &Outcome::Done));
                }
                Err(error) => {
                    let outcome = Outcome::Failed(error);
                    report(&Event::End(planned, &outcome));
                    if let Outcome::Failed(error) = outcome {
                        failures.push((planned.step.clone(), error));
                    }
                }
            }
        }
    }
    for (_, planned) in plan.steps.iter().enumerate().filter(|(place, _)| !ended.contains(place)) {
        report(&Event::End(planned, &Outcome::Skipped));
    }
    failures
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use expect_test::{Expect, expect};
    use stead_model::file::{Source, Variables, parse};
    use stead_model::lock::Lock;
    use stead_model::observed::{HostFacts, Uplinks};
    use stead_model::plan::plan;
    use stead_model::resolve::{Context, Images, resolve};

    use super::*;

    /// A computer on which every step does just what it promises, but for one.
    struct Pretend {
        seen: Observed,
        fails: &'static str,
    }

    impl Host for Pretend {
        fn observe(&mut self) -> Result<Observed> {
            Ok(self.seen.clone())
        }

        fn run(&mut self, steps: &[&Step]) -> Vec<Result<()>> {
            let one = |step: &&Step| {
                if step.to_string().starts_with(self.fails) {
                    return Err(anyhow!("pretended"));
                }
                self.seen = self.seen.after(step).map_err(|misstep| anyhow!("{misstep}"))?;
                Ok(())
            };
            steps.iter().map(one).collect()
        }
    }

    const SHOP: &str = "
name: shop
networks: { lan: { subnet: 10.0.5.0/24, subnet6: off, reach: isolated }, dmz: { subnet: 10.0.6.0/24, subnet6: off, reach: isolated } }
machines:
  web: { kind: container, driver: external, networks: [lan], ports: ['8080:80'] }
  db: { kind: vm, driver: external, networks: [dmz] }
";

    #[track_caller]
    fn check(fails: &'static str, expected: Expect) {
        let facts = HostFacts { online: true, uplinks: Uplinks::default(), ..HostFacts::default() };
        let mut host = Pretend { seen: Observed::nothing(facts), fails };
        let env = Variables::new();
        let source = Source::new("stead.yaml", SHOP, &env, "/srv/shop".as_ref());
        let project = parse(&source).unwrap().project;
        let lock = Lock::default();
        let context = Context {
            directory: "/srv/shop".as_ref(),
            lock: &lock,
            seen: &host.seen,
            user: 0,
            images: &Images::new(),
            resting: &[].into(),
        };
        let wanted = resolve(&project, context).unwrap();
        let plan = plan(&wanted, &host.seen);
        let mut told = String::new();
        apply(&plan, &mut host, &mut |event| {
            let line = match event {
                Event::Begin(steps) => format!("{} together\n", steps.len()),
                Event::End(planned, Outcome::Done) => format!("{}\n", planned.step),
                Event::End(planned, Outcome::Failed(error)) => format!("{}: {error}\n", planned.step),
                Event::End(planned, Outcome::Skipped) => format!("{}: not tried\n", planned.step),
            };
            told += &line;
        });
        expected.assert_eq(&told);
    }

    #[test]
    fn what_does_not_wait_goes_together() {
        check(
            "nothing",
            expect![[r#"
            1 together
            + project shop at /srv/shop
            1 together
            + engine
            3 together
            + switchboard
            + vm db.shop (external)
            + container web.shop (external)
            2 together
            + network dmz.shop 10.0.6.0/24 isolated
            + network lan.shop 10.0.5.0/24 isolated
            2 together
            + lease db/dmz.shop 10.0.6.2 02:10:2c:dd:49:c0
            + lease web/lan.shop 10.0.5.2 02:86:cd:53:c7:1c
            2 together
            + nic db/dmz.shop by tap stt-db-4ol4d
            + nic web/lan.shop as eth0 by stv-web-n7ltx
            1 together
            + port 127.0.0.1:8080/tcp to web.shop:80
        "#]],
        );
    }

    #[test]
    fn a_failure_holds_up_only_what_waits_for_it() {
        check(
            "+ network lan",
            expect![[r#"
            1 together
            + project shop at /srv/shop
            1 together
            + engine
            3 together
            + switchboard
            + vm db.shop (external)
            + container web.shop (external)
            2 together
            + network dmz.shop 10.0.6.0/24 isolated
            + network lan.shop 10.0.5.0/24 isolated: pretended
            1 together
            + lease db/dmz.shop 10.0.6.2 02:10:2c:dd:49:c0
            1 together
            + nic db/dmz.shop by tap stt-db-4ol4d
            + lease web/lan.shop 10.0.5.2 02:86:cd:53:c7:1c: not tried
            + nic web/lan.shop as eth0 by stv-web-n7ltx: not tried
            + port 127.0.0.1:8080/tcp to web.shop:80: not tried
        "#]],
        );
    }
}
