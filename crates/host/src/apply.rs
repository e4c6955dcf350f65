//! Carrying out a plan: what waits for nothing any more goes together, and what is waited for holds up only what needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Error, Result, anyhow};

use stead_model::observed::Observed;
use stead_model::plan::{Plan, Planned};
use stead_model::step::Step;

/// A computer that stead runs machines on.
pub trait Host {
    /// What exists there.
    fn observe(&mut self) -> Result<Observed>;

    /// Runs steps none of which waits for another, and says of each how it went, in their order.
    fn run(&mut self, steps: &[&Step]) -> Vec<Result<()>>;

    /// Waits until at least one of these steps, which change nothing, is decided, and says how of all that are, by
    /// their places. Others may change the computer meanwhile.
    fn wait(&mut self, steps: &[&Step]) -> Result<Vec<(usize, Result<()>)>>;
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

/// Carries out a plan and reports what happens. A failure holds up only what waits for it, and what is waited for
/// nothing else.
pub fn apply(plan: &Plan, host: &mut dyn Host, report: &mut dyn FnMut(&Event<'_>)) -> Vec<(Step, Error)> {
    let mut course = Course { plan, done: BTreeSet::new(), failures: BTreeMap::new() };
    loop {
        let ready = course.ready();
        let (waits, changes): (Vec<usize>, Vec<usize>) =
            ready.into_iter().partition(|place| course.step(*place).is_some_and(Step::is_waited_for));
        if !changes.is_empty() {
            course.change(&changes, host, report);
        } else if waits.is_empty() {
            break;
        } else if let Err((place, error)) = course.wait(&waits, host, report) {
            course.end(place, Err(error), report);
            break;
        }
    }
    for (place, planned) in plan.steps.iter().enumerate() {
        if !course.has_ended(place) {
            report(&Event::End(planned, &Outcome::Skipped));
        }
    }
    course
        .failures
        .into_iter()
        .filter_map(|(place, error)| Some((plan.steps.get(place)?.step.clone(), error)))
        .collect()
}

/// How far a plan is carried out.
struct Course<'a> {
    plan: &'a Plan,
    done: BTreeSet<usize>,
    failures: BTreeMap<usize, Error>,
}

impl<'a> Course<'a> {
    fn step(&self, place: usize) -> Option<&'a Step> {
        self.plan.steps.get(place).map(|planned| &planned.step)
    }

    fn has_ended(&self, place: usize) -> bool {
        self.done.contains(&place) || self.failures.contains_key(&place)
    }

    /// The steps whose time has come.
    fn ready(&self) -> Vec<usize> {
        let steps = self.plan.steps.iter().enumerate();
        let ready = steps.filter(|(place, step)| !self.has_ended(*place) && step.after.is_subset(&self.done));
        ready.map(|(place, _)| place).collect()
    }

    /// The steps whose time may come still.
    fn left(&self) -> Vec<(usize, &'a Step)> {
        let mut lost: BTreeSet<usize> = self.failures.keys().copied().collect();
        let mut left = Vec::new();
        for (place, planned) in
            self.plan.steps.iter().enumerate().filter(|(place, _)| !self.has_ended(*place))
        {
            if planned.after.is_disjoint(&lost) {
                left.push((place, &planned.step));
            } else {
                lost.insert(place);
            }
        }
        left
    }

    fn begin(&self, places: &[usize], report: &mut dyn FnMut(&Event<'_>)) -> Vec<&'a Step> {
        let begun: Vec<&Planned> = places.iter().filter_map(|place| self.plan.steps.get(*place)).collect();
        report(&Event::Begin(&begun));
        begun.iter().map(|planned| &planned.step).collect()
    }

    fn end(&mut self, place: usize, result: Result<()>, report: &mut dyn FnMut(&Event<'_>)) {
        let Some(planned) = self.plan.steps.get(place) else { return };
        match result {
            Ok(()) => {
                self.done.insert(place);
                report(&Event::End(planned, &Outcome::Done));
            }
            Err(error) => {
                let outcome = Outcome::Failed(error);
                report(&Event::End(planned, &outcome));
                if let Outcome::Failed(error) = outcome {
                    self.failures.insert(place, error);
                }
            }
        }
    }

    /// Carries out steps that change something, all together.
    fn change(&mut self, places: &[usize], host: &mut dyn Host, report: &mut dyn FnMut(&Event<'_>)) {
        let steps = self.begin(places, report);
        let start = Instant::now();
        let results = host.run(&steps);
        let texts = || steps.iter().map(ToString::to_string).collect::<Vec<_>>();
        tracing::debug!(steps = ?texts(), elapsed = ?start.elapsed(), "carried out together");
        for (place, result) in places.iter().zip(results) {
            self.end(*place, result, report);
        }
    }

    /// Waits until one of these steps is decided; then what others did meanwhile is taken into account. Else the
    /// plan cannot go on, and this step says why.
    fn wait(
        &mut self,
        places: &[usize],
        host: &mut dyn Host,
        report: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), (usize, Error)> {
        let steps = self.begin(places, report);
        let first = places.first().copied().unwrap_or_default();
        for (wait, result) in host.wait(&steps).map_err(|error| (first, error))? {
            let place = places.get(wait).copied().unwrap_or(first);
            self.end(place, result, report);
        }
        if self.left().is_empty() {
            return Ok(());
        }
        let seen = host.observe().map_err(|error| (first, error))?;
        loop {
            let left = self.left();
            match seen.done_of(left.iter().map(|(_, step)| *step)) {
                Ok(others) => {
                    for (place, _) in others.iter().filter_map(|place| left.get(*place)) {
                        self.end(*place, Ok(()), report);
                    }
                    break;
                }
                // Only what waits for that one is held up by it.
                Err((place, misstep)) => {
                    let place = left.get(place).map_or(first, |(place, _)| *place);
                    let why =
                        anyhow!("another command ran meanwhile, and {}; run this one again", misstep.why);
                    self.end(place, Err(why), report);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use expect_test::{Expect, expect};
    use stead_model::dev::Person;
    use stead_model::file::{Source, Variables, parse};
    use stead_model::lock::Lock;
    use stead_model::name::{MachineId, VolumeId};
    use stead_model::observed::{Body, HostFacts, MachineState, Uplinks};
    use stead_model::plan::plan;
    use stead_model::project::Volume;
    use stead_model::project::{Condition, Kind};
    use stead_model::resolve::{Context, Images, resolve};

    use super::*;

    /// A computer on which every step does just what it promises, but for one.
    struct Pretend {
        seen: Observed,
        fails: &'static str,
        /// What others do while something is waited for.
        meanwhile: fn(&mut Observed),
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

        fn wait(&mut self, _: &[&Step]) -> Result<Vec<(usize, Result<()>)>> {
            (self.meanwhile)(&mut self.seen);
            Ok(vec![(0, Ok(()))])
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
        let mut host = Pretend { seen: Observed::nothing(facts), fails, meanwhile: |_| {} };
        let env = Variables::new();
        let source = Source::new("stead.yaml", SHOP, &env, "/srv/shop".as_ref());
        let project = parse(&source).unwrap().project;
        let lock = Lock::default();
        let context = Context {
            files: &"/srv/shop".into(),
            lock: &lock,
            seen: &host.seen,
            user: 0,
            person: &Person::default(),
            images: &Images::default(),
            resting: &[].into(),
            taken: &[].into(),
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

    /// Carries out a plan of which two steps wait, while others do something, and says what is told and seen.
    #[track_caller]
    fn check_waiting(meanwhile: fn(&mut Observed), expected: Expect) {
        let id = |name: &str| MachineId::new(&"shop".parse().unwrap(), &name.parse().unwrap());
        let volume = |name: &str| {
            Step::VolumeAdd(
                VolumeId::new(&"shop".parse().unwrap(), &name.parse().unwrap()),
                Volume::default(),
            )
        };
        let awaits = |name: &str| Step::MachineAwait(id(name), Condition::Healthy);
        let step = |step, after: &[usize]| Planned {
            step,
            why: String::new(),
            after: after.iter().copied().collect(),
        };
        let plan = Plan {
            steps: vec![
                step(awaits("db"), &[]),
                step(volume("late"), &[0]),
                step(awaits("web"), &[]),
                step(volume("early"), &[]),
                step(volume("last"), &[1, 2]),
            ],
        };
        let mut seen = Observed::nothing(HostFacts::default());
        seen.projects.insert("shop".parse().unwrap(), "/srv/shop".into());
        for name in ["db", "web"] {
            seen.machines.insert(id(name), MachineState { kind: Kind::Container, body: Body::External });
        }
        let mut told = String::new();
        let failures =
            apply(&plan, &mut Pretend { seen, fails: "nothing", meanwhile }, &mut |event| match event {
                Event::Begin(_) => {}
                Event::End(planned, Outcome::Failed(_)) => told += &format!("{}: failed\n", planned.step),
                Event::End(planned, outcome) => told += &format!("{}: {outcome:?}\n", planned.step),
            });
        failures.iter().for_each(|(step, error)| told += &format!("{step}: {error:#}\n"));
        expected.assert_eq(&told);
    }

    #[test]
    fn what_is_waited_for_holds_up_only_what_needs_it() {
        check_waiting(
            |_| {},
            expect![[r#"
            + volume early.shop: Done
            > await db.shop healthy: Done
            + volume late.shop: Done
            > await web.shop healthy: Done
            + volume last.shop: Done
        "#]],
        );
    }

    #[test]
    fn what_another_command_has_done_meanwhile_is_done() {
        let meanwhile = |seen: &mut Observed| {
            seen.volumes.insert("late.shop".parse().unwrap(), Volume::default());
        };
        check_waiting(
            meanwhile,
            expect![[r#"
            + volume early.shop: Done
            > await db.shop healthy: Done
            + volume late.shop: Done
            > await web.shop healthy: Done
            + volume last.shop: Done
        "#]],
        );
    }

    #[test]
    fn a_plan_that_another_command_made_impossible_says_so() {
        check_waiting(
            |seen| seen.projects.clear(),
            expect![[r#"
                + volume early.shop: Done
                > await db.shop healthy: Done
                + volume late.shop: failed
                > await web.shop healthy: Done
                + volume last.shop: Skipped
                + volume late.shop: another command ran meanwhile, and the project is not on record; run this one again
            "#]],
        );
    }
}
