//! What the cache keeps, forgets, and never grows beyond.

use super::*;
use crate::serve::dns::reply::{Heard, hear};

fn question(number: u32) -> Question {
    let name = [&[5][..], format!("{number:05}").as_bytes(), &[0]].concat();
    Question { name: name.into(), kind: 16, dnssec: false, unchecked: false }
}

fn reply(question: &Question, ttl_s: u32, bytes: usize) -> Arc<Reply> {
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend(&*question.name);
    message.extend([0, 16, 0, 1, 0xc0, 12, 0, 16, 0, 1]);
    message.extend(ttl_s.to_be_bytes());
    message.extend(u16::try_from(bytes).unwrap().to_be_bytes());
    message.resize(message.len() + bytes, 0);
    match hear(&message, 1, question) {
        Heard::Reply(reply) => Arc::new(reply),
        other @ (Heard::Stray | Heard::Cut) => panic!("{other:?}"),
    }
}

#[test]
fn what_is_kept_ages_and_ends() {
    let (mut cache, question) = (Cache::default(), question(1));
    cache.keep(&question, &reply(&question, 30, 10), 100);
    assert_eq!(cache.find(&question, 129).unwrap().1, 29);
    assert!(cache.find(&question, 130).is_none());
    cache.keep(&question, &reply(&question, 0, 10), 200);
    assert!(cache.find(&question, 200).is_none(), "0 is not kept, and takes away what was");
}

#[test]
fn it_stays_within_its_bound_and_what_ends_first_goes_first() {
    let mut cache = Cache::default();
    for number in 0..20_000 {
        let question = question(number);
        cache.keep(&question, &reply(&question, 1000 + number, 500), 0);
        assert!(cache.bytes <= CACHE_MAX_BYTES);
        assert_eq!(cache.kept.len(), cache.ends.len());
    }
    assert!(cache.find(&question(0), 1).is_none());
    assert!(cache.find(&question(19_999), 1).is_some());
    assert!(cache.kept.len() > 1000);
    let huge = question(77);
    cache.keep(&huge, &reply(&huge, 5000, 60_000), 0);
    assert!(cache.kept.len() > 1000, "one huge reply does not push out all others");
    cache.clear();
    assert!(cache.find(&question(19_999), 1).is_none());
}
