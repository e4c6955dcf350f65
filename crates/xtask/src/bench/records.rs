//! `stead ps` with many machines on record: how long it takes, and whether twice as many take more than twice as long.
//!
//! The machines ran, and have ended: what is shown of each is read from its directory.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::kept::kept;
use super::lab::Lab;
use super::peers::{IMAGE, Tree};
use super::{Comparison, Side, Unit, median};
use crate::programs::output;

/// A thousand machines.
pub(super) const THOUSAND: Comparison = Comparison {
    name: "ps-1000",
    first: Side { name: "ps of 1,000", measure: || ps(&Thousand::kept()?.0, 1000) },
    second: Side { name: "the promise", measure: || Ok(0.05) },
    unit: Unit::Seconds,
    target: Some(1.0),
};

/// A thousand beside five hundred.
pub(super) const GROWTH_TO_1000: Comparison = Comparison {
    name: "ps-growth-1000",
    first: Side { name: "ps of 1,000", measure: || ps(&Thousand::kept()?.0, 1000) },
    second: Side { name: "twice that of 500", measure: || Ok(2.0 * ps(&FiveHundred::kept()?.0, 500)?) },
    unit: Unit::Seconds,
    target: Some(1.0),
};

/// Five hundred beside a hundred.
pub(super) const GROWTH_TO_500: Comparison = Comparison {
    name: "ps-growth-500",
    first: Side { name: "ps of 500", measure: || ps(&FiveHundred::kept()?.0, 500) },
    second: Side { name: "5 times that of 100", measure: || Ok(5.0 * ps(&Hundred::kept()?.0, 100)?) },
    unit: Unit::Seconds,
    target: Some(1.0),
};

/// One run of it is too short to be a measurement.
const REPEATS: usize = 7;

struct Hundred(Home);
struct FiveHundred(Home);
struct Thousand(Home);

impl Hundred {
    fn kept() -> Result<Rc<Self>> {
        kept(|| Home::new(100).map(Self))
    }
}

impl FiveHundred {
    fn kept() -> Result<Rc<Self>> {
        kept(|| Home::new(500).map(Self))
    }
}

impl Thousand {
    fn kept() -> Result<Rc<Self>> {
        kept(|| Home::new(1000).map(Self))
    }
}

/// A home with so many machines that ran.
struct Home(Lab);

impl Home {
    fn new(count: usize) -> Result<Self> {
        let tree = Tree::kept()?;
        let machine = |index| format!("  m{index}: {{ image: {IMAGE}, command: \"true\", networks: [] }}\n");
        let machines: String = (0..count).map(machine).collect();
        let lab = Lab::new(&format!("name: bench\ndefaults: {{ kind: container }}\nmachines:\n{machines}"))?;
        output(lab.stead(&["image", "import"]).arg(tree.archive()).arg(IMAGE))?;
        lab.up_alone().context("could not make the machines")?;
        Ok(Self(lab))
    }
}

/// The median of several runs.
fn ps(home: &Home, count: usize) -> Result<f64> {
    let mut all = Vec::new();
    for _ in 0..REPEATS {
        let mut command = home.0.stead(&["ps", "--all"]);
        let start = Instant::now();
        let lines = output(&mut command)?.lines().count();
        all.push(start.elapsed().as_secs_f64());
        ensure!(lines == count + 1, "{lines} lines about {count} machines");
    }
    Ok(median(all))
}
