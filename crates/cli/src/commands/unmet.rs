//! Commands that take several names: they act on what there is, and tell of the others in the end.

use crate::failure::{Failure, Said};

/// What is wrong with those of the names that a command does not act on.
#[derive(Debug, Default)]
pub(crate) struct Unmet(Vec<Said>);

impl Unmet {
    /// Sets one aside. What is not about its name is a failure of the command.
    pub(crate) fn put(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Request(said) => {
                self.0.extend(said);
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Sets aside what is said of some.
    pub(crate) fn add(&mut self, said: Vec<Said>) {
        self.0.extend(said);
    }

    /// The same where something may have come of it.
    pub(crate) fn sort<T>(&mut self, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
        result.map(Some).or_else(|failure| self.put(failure).map(|()| None))
    }

    /// Those with which it went well; why it did not with the others is set aside.
    pub(crate) fn done<T>(&mut self, each: impl IntoIterator<Item = (T, anyhow::Result<()>)>) -> Vec<T> {
        let sort = |(one, result): (T, anyhow::Result<()>)| match result {
            Ok(()) => Some(one),
            Err(error) => {
                self.0.extend(Failure::from(error).said());
                None
            }
        };
        each.into_iter().filter_map(sort).collect()
    }

    /// Fails where nothing is left to act on.
    pub(crate) fn unless(self, is_any: bool) -> Result<Self, Failure> {
        if is_any || self.0.is_empty() { Ok(self) } else { Err(Failure::Request(self.0)) }
    }

    /// What becomes of a command that did the rest, or tried to.
    pub(crate) fn after<T>(self, done: Result<T, Failure>) -> Result<T, Failure> {
        match (self.0.is_empty(), done) {
            (true, done) => done,
            (false, Ok(_)) => Err(Failure::Partly(None, self.0)),
            (false, Err(failure)) => Err(Failure::Partly(Some(Box::new(failure)), self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmet() -> Unmet {
        let mut unmet = Unmet::default();
        unmet.put(Failure::request("there is no machine `x`", "name another")).unwrap();
        unmet
    }

    #[test]
    fn the_rest_is_done_and_the_others_are_told() {
        assert!(Unmet::default().unless(false).unwrap().after(Ok(())).is_ok());
        let nothing = unmet().unless(false).unwrap_err();
        assert_eq!(nothing.code(), 2);
        let partly = unmet().unless(true).unwrap().after(Ok(())).unwrap_err();
        assert_eq!((partly.code(), partly.text()), (1, nothing.text()));
        let failed = unmet().after::<()>(Err(anyhow::anyhow!("no").into())).unwrap_err();
        assert_eq!((failed.code(), failed.text()), (1, "error: no\n".to_owned() + &nothing.text()));
    }

    #[test]
    fn what_is_about_no_name_ends_the_command() {
        let mut unmet = Unmet::default();
        assert_eq!(unmet.sort::<()>(Err(anyhow::anyhow!("no").into())).unwrap_err().code(), 1);
        assert_eq!(unmet.sort(Ok(1)).unwrap(), Some(1));
        assert_eq!(unmet.done([(1, Ok(())), (2, Err(anyhow::anyhow!("no"))), (3, Ok(()))]), [1, 3]);
        assert_eq!(unmet.after(Ok(())).unwrap_err().text(), "error: no\n");
    }
}
