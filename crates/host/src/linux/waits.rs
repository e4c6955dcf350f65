//! Waiting for stages of machines and for scripts that are run in them, for several at once.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use stead_model::step::Step;

use super::{machine, provision};
use crate::home::Home;

/// A step that waits, and what came of it.
type Word = (Step, Result<()>);

/// What is waited for. Nothing here is dropped half-way: a wait that outlives the interest in it ends by itself.
#[derive(Debug)]
pub(super) struct Waits {
    asked: Vec<Step>,
    sender: Sender<Word>,
    receiver: Receiver<Word>,
    /// How long each is waited for at most; without end where absent.
    pub(super) limit: Option<Duration>,
}

impl Default for Waits {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { asked: Vec::new(), sender, receiver, limit: None }
    }
}

impl Waits {
    /// Waits until at least one of these steps is decided, and tells all that are, by their places.
    pub(super) fn next(
        &mut self,
        whose: (&Home, &Path),
        steps: &[&Step],
    ) -> Result<Vec<(usize, Result<()>)>> {
        for step in steps {
            if !self.asked.contains(step) {
                self.ask(whose, step)?;
            }
        }
        let mut ended = Vec::new();
        while ended.is_empty() {
            let first = match self.limit {
                None => self.receiver.recv().context("nobody waits any more")?,
                Some(limit) => match self.receiver.recv_timeout(limit) {
                    Ok(first) => first,
                    Err(RecvTimeoutError::Timeout) => return Ok(all_too_late(steps, limit)),
                    Err(gone @ RecvTimeoutError::Disconnected) => {
                        return Err(gone).context("nobody waits any more");
                    }
                },
            };
            let words: Vec<Word> = [first].into_iter().chain(self.receiver.try_iter()).collect();
            for (step, result) in words {
                self.asked.retain(|other| *other != step);
                // One that nobody asks for any more is of a plan that was given up.
                let place = steps.iter().position(|other| **other == step);
                ended.extend(place.map(|place| (place, result)));
            }
        }
        Ok(ended)
    }

    fn ask(&mut self, (home, program): (&Home, &Path), step: &Step) -> Result<()> {
        let (home, program) = (home.clone(), program.to_owned());
        let (step, sender) = (step.clone(), self.sender.clone());
        self.asked.push(step.clone());
        let wait = move || {
            let result = match &step {
                Step::MachineAwait(id, condition) => machine::await_stage(&home, id, *condition),
                Step::MachineProvision(id, one) => provision::run(&program, id, one),
                _ => Err(anyhow::anyhow!("nothing is waited for")),
            };
            // Nobody hears it when the command is over.
            let _unheard = sender.send((step, result));
        };
        let thread = std::thread::Builder::new().name("wait".into()).spawn(wait);
        thread.context("cannot start a thread to wait in").map(drop)
    }
}

/// None of these steps was decided in time.
fn all_too_late(steps: &[&Step], limit: Duration) -> Vec<(usize, Result<()>)> {
    let late = |_| Err(anyhow!("it takes longer than {} s", limit.as_secs_f32()));
    steps.iter().map(late).enumerate().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_given_up() {
        let mut waits = Waits { limit: Some(Duration::from_millis(1)), ..Waits::default() };
        let step = Step::MachineAwait("web.shop".parse().unwrap(), stead_model::project::Condition::Healthy);
        // Somebody waits already who never has an answer.
        waits.asked.push(step.clone());
        let home = Home { state: "/nosuch/state".into(), run: "/nosuch/run".into() };
        let ended = waits.next((&home, Path::new("/nosuch")), &[&step]).unwrap();
        let texts: Vec<_> =
            ended.iter().map(|(place, result)| (*place, result.as_ref().unwrap_err().to_string())).collect();
        assert_eq!(texts, [(0, "it takes longer than 0.001 s".to_owned())]);
    }
}
