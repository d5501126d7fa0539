//! What is reported: one line per workload.

use serde_json::{Value, json};

use crate::rounds::{Pairs, median};

/// What a goal asks of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// Nothing: it is there to be known.
    Known,
}

impl Wanted {
    fn met(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(figure >= least),
            Self::AtMost(most) => Some(figure <= most),
            Self::Known => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", figure(least)),
            Self::AtMost(most) => format!("≤ {}", figure(most)),
            Self::Known => "-".to_owned(),
        }
    }
}

/// Collects lines, and prints each as soon as it is known.
#[derive(Debug)]
pub struct Table {
    json: bool,
    rows: Vec<Value>,
    missed: usize,
    judged: usize,
}

impl Table {
    /// An empty table; `json` keeps it to itself until the end.
    pub fn new(json: bool) -> Self {
        if !json {
            println!(
                "{:4} {:58} {:>10} {:>10} {:8} {:>7} {:>8}  met",
                "goal", "workload", "thence", "floor", "unit", "ratio", "goal"
            );
        }
        Self { json, rows: Vec::new(), missed: 0, judged: 0 }
    }

    /// A figure beside its floor; what counts is the median of the rounds' ratios.
    pub fn ratio(&mut self, goal: &str, workload: &str, unit: &str, pairs: &Pairs, wanted: Wanted) {
        let (ours, floor) = (pairs.ours(), pairs.floor());
        self.line(goal, workload, unit, ours, Some(floor), Some(pairs.ratio()), wanted);
    }

    /// A figure that is judged as it stands.
    pub fn bound(&mut self, goal: &str, workload: &str, unit: &str, figures: &[f64], wanted: Wanted) {
        self.line(goal, workload, unit, median(figures), None, None, wanted);
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one line")]
    fn line(
        &mut self,
        goal: &str,
        workload: &str,
        unit: &str,
        ours: f64,
        floor: Option<f64>,
        ratio: Option<f64>,
        wanted: Wanted,
    ) {
        let met = wanted.met(ratio.unwrap_or(ours));
        self.judged += usize::from(met.is_some());
        self.missed += usize::from(met == Some(false));
        if !self.json {
            let shown = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), figure);
            let verdict = met.map_or("-", |met| if met { "yes" } else { "NO" });
            println!(
                "{goal:4} {workload:58} {:>10} {:>10} {unit:8} {:>7} {:>8}  {verdict}",
                figure(ours),
                shown(floor),
                shown(ratio),
                wanted.text()
            );
        }
        let wanted = wanted.text();
        self.rows.push(json!({
            "goal": goal, "workload": workload, "unit": unit, "thence": ours, "floor": floor, "ratio": ratio,
            "wanted": wanted, "met": met,
        }));
    }

    /// Prints what is left to print.
    pub fn finish(self) {
        if self.json {
            println!("{}", Value::from(self.rows));
        } else {
            println!("{} of {} figures that have a goal do not meet it", self.missed, self.judged);
        }
    }
}

/// A number with about three digits that matter.
fn figure(number: f64) -> String {
    match number.abs() {
        size if size >= 10_000_000.0 => format!("{:.0} M", number / 1e6),
        size if size >= 10_000.0 => format!("{:.0} k", number / 1e3),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}
