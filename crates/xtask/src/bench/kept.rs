//! What a comparison makes once for all its rounds: an image in a store, a thousand machines on record.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;

thread_local! {
    static KEPT: RefCell<Vec<Rc<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// The one thing of its type, made when it is first asked for.
pub(super) fn kept<T: 'static>(make: impl FnOnce() -> Result<T>) -> Result<Rc<T>> {
    let found = KEPT.with_borrow(|all| all.iter().find_map(|thing| Rc::clone(thing).downcast::<T>().ok()));
    if let Some(found) = found {
        return Ok(found);
    }
    let made = Rc::new(make()?);
    KEPT.with_borrow_mut(|all| all.push(made.clone()));
    Ok(made)
}

/// Lets go of all of it, the last first: it may need what was made before it.
pub(super) fn let_go() {
    while let Some(last) = KEPT.with_borrow_mut(Vec::pop) {
        drop(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_made_once_until_it_is_let_go_of() {
        let number = |number: u32| *kept(|| Ok(number)).unwrap();
        assert_eq!([number(1), number(2)], [1, 1]);
        let_go();
        assert_eq!(number(3), 3);
        let_go();
    }
}
