//! Networks on which machines of other projects are.

use stead_host::home::Home;
use stead_model::name::{Name, NetworkId};
use stead_model::observed::Observed;
use stead_model::plan::{Plan, Wanted};
use stead_model::project::Project;
use stead_model::resolve::Refusal;

use super::super::up::{decide, or_refused};
use super::about_networks;
use crate::failure::Failure;
use crate::project::load_file;

/// The plan by which networks that commands made stand again, where a project has some of them that went with the engine:
/// nobody removed them. What of theirs ran then is started again, as by any command about networks.
pub(in crate::commands) fn again(
    home: &Home,
    project: &Project,
    seen: &Observed,
) -> Result<Option<Plan>, Failure> {
    let path = home.loose_project().join("stead.yaml");
    let loose = Name::of_loose_project();
    let mut gone = project.external_networks.values();
    let is_gone = |id: &NetworkId| id.project == loose && seen.lent(id).is_none();
    if project.name == loose || !gone.any(is_gone) || !path.exists() {
        return Ok(None);
    }
    let loaded = load_file(&path)?;
    let mut gone = project.external_networks.values().filter(|id| is_gone(id));
    if !gone.any(|id| loaded.project.networks.contains_key(&id.name)) {
        return Ok(None);
    }
    let how = about_networks(super::super::image::those_here(home, &loaded.project)?);
    let decided = decide(home, &loaded, &how, seen)?;
    or_refused(decided, Vec::new(), &loaded).map(|decided| Some(decided.plan)).map_err(Failure::of_request)
}

/// Refuses what takes a network from under machines of other projects.
pub(in crate::commands) fn refuse_lent(wanted: &Wanted, seen: &Observed) -> Result<(), Failure> {
    match wanted.in_others_way(seen).first() {
        Some(Refusal { why, hint, .. }) => Err(Failure::request(why, hint)),
        None => Ok(()),
    }
}
