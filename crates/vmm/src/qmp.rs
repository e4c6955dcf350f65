//! QMP, by which QEMU is told what to do while it runs. Nothing here waits, reads or writes: bytes that came are handed
//! in, bytes to be sent are taken out. A guest may have taken QEMU over, so what it says is data: what is malformed ends
//! the talk, texts are cut, and memory has a limit.
//!
//! ```text
//! QEMU                                     we
//! {"QMP": …}  ───────────────────────────▶
//!             ◀─────────────────────────── {"execute": "qmp_capabilities"}
//! {"return": {}} ────────────────────────▶
//!             ◀─────────────────────────── {"execute": "stop", "id": 1}, …   at most so many at a time
//! {"return": …, "id": 1} | {"error": …} ─▶
//! {"event": "SHUTDOWN", …} ──────────────▶   whenever it happens
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde_json::{Value, json};

/// A line of QEMU's: what we ask for is answered in far less.
const LINE_MAX_BYTES: usize = 64 * 1024;
/// QEMU itself keeps no more waiting.
const ORDERS_MAX: usize = 8;
/// Of a text that QEMU says, for people.
const TEXT_MAX_CHARS: usize = 200;

/// By itself QEMU saves a guest no faster than to another computer by an old network.
const SAVED_BYTES_PER_S: u64 = 1 << 40;
/// What QEMU calls the file that a guest is saved to.
const SAVED_TO: &str = "saved";

/// What QEMU is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Hold the guest.
    Stop,
    /// Let it go on.
    Continue,
    /// Press the guest's power button: a system that heeds it switches itself off.
    PressPower,
    /// End, with all that it has to write written.
    Quit,
    /// Say how it goes when the guest is saved.
    TellSaves,
    /// Save it as fast as the disk takes it.
    SaveFast,
    /// Take the file that comes with these words: the next guest that is saved goes there.
    TakeFile,
    /// Save the guest to that file. How that went it says as an event.
    Save,
    /// Save it no more.
    CancelSave,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Continue => "cont",
            Self::PressPower => "system_powerdown",
            Self::Quit => "quit",
            Self::TellSaves => "migrate-set-capabilities",
            Self::SaveFast => "migrate-set-parameters",
            Self::TakeFile => "getfd",
            Self::Save => "migrate",
            Self::CancelSave => "migrate_cancel",
        }
    }

    fn arguments(self) -> Option<Value> {
        match self {
            Self::Stop | Self::Continue | Self::PressPower | Self::Quit | Self::CancelSave => None,
            Self::TellSaves => Some(json!({ "capabilities": [{ "capability": "events", "state": true }] })),
            Self::SaveFast => Some(json!({ "max-bandwidth": SAVED_BYTES_PER_S })),
            Self::TakeFile => Some(json!({ "fdname": SAVED_TO })),
            Self::Save => Some(json!({ "uri": format!("fd:{SAVED_TO}") })),
        }
    }
}

/// An order that was given, until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What QEMU said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// An order was carried out.
    Done(Ticket, Order),
    /// It was not, for this reason.
    Refused(Ticket, Order, String),
    /// The guest is at its end, and QEMU with it.
    ShutDown(Reason),
    /// It has greeted us: the guest's machine stands.
    Met,
    /// The guest opened the port of the agent, or let go of it.
    Port {
        /// Whether it is open now.
        is_open: bool,
    },
    /// The guest was saved, and stands still; or that failed.
    Saved {
        /// Whether it was.
        is_whole: bool,
    },
}

/// Why a guest is at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It switched itself off.
    Off,
    /// It started itself anew, gave up, or its processor knew no way on (a triple fault).
    Reset,
    /// Its kernel says that it gave up.
    Panic,
    /// QEMU was told to quit, or sent a signal.
    Told,
    /// QEMU could not go on.
    Error,
    /// What this version of stead does not know, in QEMU's words.
    Other(String),
}

impl Reason {
    fn parse(word: &str) -> Self {
        match word {
            "guest-shutdown" => Self::Off,
            "guest-reset" | "subsystem-reset" => Self::Reset,
            "guest-panic" => Self::Panic,
            "host-qmp-quit" | "host-signal" | "host-ui" | "host-qmp-system-reset" => Self::Told,
            "host-error" => Self::Error,
            other => Self::Other(shorten(other)),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("it switched itself off"),
            Self::Reset => f.write_str("it was reset from inside"),
            Self::Panic => f.write_str("its kernel gave up"),
            Self::Told => f.write_str("QEMU was told to end"),
            Self::Error => f.write_str("QEMU could not go on"),
            Self::Other(word) => write!(f, "QEMU says `{word}`"),
        }
    }
}

/// QEMU said what is no QMP. Nothing more that it says is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

/// Our end of a talk with QEMU.
#[derive(Debug, Default)]
pub struct Qmp {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Orders that wait until it has greeted us.
    waiting: Vec<u8>,
    is_met: bool,
    count: u64,
    given: BTreeMap<u64, Order>,
    told: VecDeque<Told>,
}

impl Qmp {
    /// Gives an order; none where too many wait for an answer.
    pub fn give(&mut self, order: Order) -> Option<Ticket> {
        if self.given.len() >= ORDERS_MAX {
            return None;
        }
        self.count += 1;
        self.given.insert(self.count, order);
        let mut words = json!({ "execute": order.name(), "id": self.count });
        if let (Some(arguments), Some(words)) = (order.arguments(), words.as_object_mut()) {
            words.insert("arguments".to_owned(), arguments);
        }
        let line = format!("{words}\n");
        let queue = if self.is_met { &mut self.outgoing } else { &mut self.waiting };
        queue.extend(line.bytes());
        Some(Ticket(self.count))
    }

    /// What is to be sent to QEMU now.
    pub fn pending(&self) -> &[u8] {
        &self.outgoing
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.outgoing.drain(..bytes.min(self.outgoing.len()));
    }

    /// Takes in what came from QEMU.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Nonsense> {
        self.incoming.extend_from_slice(bytes);
        while let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
            let rest = self.incoming.split_off(end + 1);
            let line = std::mem::replace(&mut self.incoming, rest);
            self.hear(&line)?;
        }
        if self.incoming.len() > LINE_MAX_BYTES { Err(Nonsense) } else { Ok(()) }
    }

    /// What it said, in order.
    pub fn next_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    fn hear(&mut self, line: &[u8]) -> Result<(), Nonsense> {
        let said: Value = serde_json::from_slice(line).map_err(|_| Nonsense)?;
        if said.get("QMP").is_some() {
            if !self.is_met {
                self.is_met = true;
                self.told.push_back(Told::Met);
                self.outgoing.extend(format!("{}\n", json!({ "execute": "qmp_capabilities" })).bytes());
                self.outgoing.append(&mut self.waiting);
            }
            return Ok(());
        }
        if let Some(event) = said.get("event").and_then(Value::as_str) {
            if event == "SHUTDOWN" {
                let reason = said.pointer("/data/reason").and_then(Value::as_str).unwrap_or("no reason");
                self.told.push_back(Told::ShutDown(Reason::parse(reason)));
            }
            if event == "VSERPORT_CHANGE"
                && let Some(is_open) = said.pointer("/data/open").and_then(Value::as_bool)
            {
                self.told.push_back(Told::Port { is_open });
            }
            let status = said.pointer("/data/status").and_then(Value::as_str);
            if let ("MIGRATION", Some(status @ ("completed" | "failed" | "cancelled"))) = (event, status) {
                self.told.push_back(Told::Saved { is_whole: status == "completed" });
            }
            return Ok(());
        }
        let order = said.get("id").and_then(Value::as_u64).and_then(|id| Some((id, self.given.remove(&id)?)));
        let Some((id, order)) = order else {
            // The answer to `qmp_capabilities`, which cannot fail, bears no number.
            return if said.get("return").is_some() { Ok(()) } else { Err(Nonsense) };
        };
        let told = match said.get("error") {
            None => Told::Done(Ticket(id), order),
            Some(error) => {
                let text = error.get("desc").and_then(Value::as_str).unwrap_or("it does not say why");
                Told::Refused(Ticket(id), order, shorten(text))
            }
        };
        self.told.push_back(told);
        Ok(())
    }
}

/// What may be shown of a text of QEMU's.
fn shorten(text: &str) -> String {
    text.chars().take(TEXT_MAX_CHARS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const GREETING: &[u8] = br#"{"QMP": {"version": {"qemu": {"micro": 22}}, "capabilities": ["oob"]}}"#;

    fn text(qmp: &mut Qmp) -> String {
        let text = String::from_utf8(qmp.pending().to_vec()).unwrap();
        qmp.sent(text.len());
        text
    }

    #[test]
    fn orders_wait_for_the_greeting_and_are_answered_however_lines_are_cut() {
        let mut qmp = Qmp::default();
        let stop = qmp.give(Order::Stop).unwrap();
        assert_eq!(text(&mut qmp), "");
        let (first, rest) = GREETING.split_at(20);
        qmp.receive(first).unwrap();
        qmp.receive(rest).unwrap();
        assert_eq!(text(&mut qmp), "");
        qmp.receive(b"\r\n{\"return\": {}}\n").unwrap();
        assert_eq!(text(&mut qmp), "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"stop\",\"id\":1}\n");
        let quit = qmp.give(Order::Quit).unwrap();
        assert_eq!(text(&mut qmp), "{\"execute\":\"quit\",\"id\":2}\n");
        let said = "{\"event\": \"STOP\", \"timestamp\": {}}\n{\"return\": {}, \"id\": 1}\n\
            {\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b\"}, \"id\": 2}\n\
            {\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\n";
        qmp.receive(said.as_bytes()).unwrap();
        assert_eq!(qmp.next_told(), Some(Told::Met));
        assert_eq!(qmp.next_told(), Some(Told::Done(stop, Order::Stop)));
        assert_eq!(qmp.next_told(), Some(Told::Refused(quit, Order::Quit, "no\\u{1b}".to_owned())));
        assert_eq!(qmp.next_told(), Some(Told::ShutDown(Reason::Reset)));
        assert_eq!(qmp.next_told(), None);
    }

    #[test]
    fn a_guest_is_saved_to_a_file_and_how_that_went_is_told() {
        let mut qmp = Qmp::default();
        qmp.receive(GREETING).unwrap();
        qmp.receive(b"\n").unwrap();
        for order in [Order::TellSaves, Order::SaveFast, Order::TakeFile, Order::Save, Order::CancelSave] {
            qmp.give(order).unwrap();
        }
        expect![[r#"
            {"execute":"qmp_capabilities"}
            {"arguments":{"capabilities":[{"capability":"events","state":true}]},"execute":"migrate-set-capabilities","id":1}
            {"arguments":{"max-bandwidth":1099511627776},"execute":"migrate-set-parameters","id":2}
            {"arguments":{"fdname":"saved"},"execute":"getfd","id":3}
            {"arguments":{"uri":"fd:saved"},"execute":"migrate","id":4}
            {"execute":"migrate_cancel","id":5}
        "#]]
        .assert_eq(&text(&mut qmp));
        for status in ["setup", "active", "completed", "failed"] {
            let event = format!("{{\"event\": \"MIGRATION\", \"data\": {{\"status\": \"{status}\"}}}}\n");
            qmp.receive(event.as_bytes()).unwrap();
        }
        assert_eq!(qmp.next_told(), Some(Told::Met));
        assert_eq!(qmp.next_told(), Some(Told::Saved { is_whole: true }));
        assert_eq!(qmp.next_told(), Some(Told::Saved { is_whole: false }));
        assert_eq!(qmp.next_told(), None);
    }

    #[test]
    fn what_is_no_qmp_and_what_does_not_end_is_not_believed() {
        assert_eq!(Qmp::default().receive(b"hello\n"), Err(Nonsense));
        assert_eq!(Qmp::default().receive(b"{\"error\": {}, \"id\": 7}\n"), Err(Nonsense));
        assert_eq!(Qmp::default().receive(&vec![b' '; LINE_MAX_BYTES + 1]), Err(Nonsense));
        let mut qmp = Qmp::default();
        qmp.receive(GREETING).unwrap();
        qmp.receive(b"\n{\"event\": \"SHUTDOWN\"}\n").unwrap();
        assert_eq!(qmp.next_told(), Some(Told::Met));
        assert_eq!(qmp.next_told(), Some(Told::ShutDown(Reason::Other("no reason".to_owned()))));
    }

    #[test]
    fn no_more_orders_wait_than_qemu_takes() {
        let mut qmp = Qmp::default();
        let given = (0..100).filter_map(|_| qmp.give(Order::Stop)).count();
        assert_eq!(given, ORDERS_MAX);
    }
}
