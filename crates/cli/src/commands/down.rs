//! `down`: projects that go.

use stead_host::machine::Stop;
use stead_model::name::{Name, as_ours};
use stead_model::plan::{Plan, UnwantedVolumes, Wanted, plan as make_plan};

use super::here::{project_to_take_down, projects_named};
use super::unmet::Unmet;
use super::{ends, steps};
use crate::args::{Consent, DownArgs, Global};
use crate::failure::Failure;
use crate::output::Output;
use crate::project;
use crate::session::{Session, agree};

/// Takes the project here away, or those that are named.
pub(crate) fn down(global: &Global, args: &DownArgs, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let is_another =
        |said: &&String| global.project_name.as_ref().is_some_and(|name| as_ours(said) != name.as_str());
    if let (Some(name), Some(other)) = (&global.project_name, args.projects.iter().find(is_another)) {
        let what = format!("the project is said to be `{name}` and `{other}`");
        return Err(Failure::request(&what, "say one name"));
    }
    let names = match args.projects.as_slice() {
        [] => vec![project_to_take_down(global, &seen)?],
        patterns => projects_named(patterns, &seen)?,
    };
    // Before those that have networks which its machines are on.
    let names: Vec<Name> = seen.lenders_first(names).into_iter().rev().collect();
    let mut plans = Vec::new();
    let mut failed: Option<Failure> = None;
    for name in &names {
        match take_down((global, args), name, &mut session, output) {
            Ok(plan) => plans.push(plan),
            // The others go all the same.
            Err(failure) => {
                failed = Some(match failed {
                    None => failure,
                    Some(first) => Failure::Partly(Some(Box::new(first)), failure.said()),
                });
            }
        }
    }
    // What was done is told whatever became of the others; if that was nothing, why is all there is to say.
    let is_told = failed.is_none() || plans.iter().any(|plan| !plan.steps.is_empty());
    let told = if is_told { steps::finished(&plans, None, output) } else { Ok(()) };
    failed.map_or(told, Err)
}

/// Takes one away.
fn take_down(
    (global, args): (&Global, &DownArgs),
    name: &Name,
    session: &mut Session,
    output: Output,
) -> Result<Plan, Failure> {
    let seen = session.observe()?;
    let here = project::find(global).and_then(|file| project::directory_of(&file)).ok();
    let here = here.filter(|_| args.projects.is_empty());
    if let Some(directory) = seen.projects.get(name).map(|files| &files.directory).or(here.as_ref()) {
        project::tidy(directory)?;
    }
    let volumes = if args.volumes { UnwantedVolumes::Delete } else { UnwantedVolumes::Keep };
    if args.volumes {
        super::volume::refuse_lent(name, &seen)?;
    }
    let wanted = Wanted::nothing(name, &seen, volumes);
    super::network::refuse_lent(&wanted, &seen)?;
    let mut plan = make_plan(&wanted, &seen);
    let mut consent = args.consent;
    let mut unmet = Unmet::default();
    if let Some(seconds) = args.time {
        agree(&plan, consent)?;
        consent = Consent { yes: true };
        let running = seen.running.keys().filter(|id| id.project == *name).cloned().collect();
        let how = Stop { grace_ms: Some(seconds.saturating_mul(1000)), with_computer: false };
        ends::end_running(session.host.home(), running, &seen, how, &mut unmet);
        let seen = session.observe()?;
        plan = make_plan(&Wanted::nothing(name, &seen, volumes), &seen);
    }
    // What does not depend on one that could not be ended goes all the same.
    unmet.after(session.apply(&plan, consent, output))?;
    if let Err(error) = session.host.forget_aside(|id| id.project == *name) {
        tracing::warn!("what was set aside is where it was: {error:#}");
    }
    Ok(plan)
}
