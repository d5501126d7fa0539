//! Figures of several rounds, and what becomes of them.

use std::time::Duration;

/// What thence and its floor took, round by round.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    ours: Vec<f64>,
    floor: Vec<f64>,
}

impl Pairs {
    /// Adds a round.
    pub fn push(&mut self, ours: f64, floor: f64) {
        self.ours.push(ours);
        self.floor.push(floor);
    }

    /// Of thence.
    pub fn ours(&self) -> f64 {
        median(&self.ours)
    }

    /// Of the floor.
    pub fn floor(&self) -> f64 {
        median(&self.floor)
    }

    /// The median of the ratios, each of one round: a machine that slows down slows both of a round.
    pub fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.floor).map(|(ours, floor)| ours / floor).collect();
        median(&ratios)
    }
}

/// The middle one; not a number if there are none.
pub fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The figure below which this part of them lies.
pub fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64) * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Microseconds.
pub fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// So many in that time, per second.
pub fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
