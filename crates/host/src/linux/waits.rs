//! Waiting for stages of machines and for scripts that are run in them, for several at once.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};

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
}

impl Default for Waits {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { asked: Vec::new(), sender, receiver }
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
            let first = self.receiver.recv().context("nobody waits any more")?;
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
