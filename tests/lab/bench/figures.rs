//! From samples to a table: median, p99, extremes, and how many times the first row's median.

#![allow(dead_code, reason = "each topic takes what it needs")]

use std::{
    fmt::Write as _,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use wait4::Wait4 as _;

/// What a sample counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Time,
    /// Bytes.
    Size,
    /// Bytes a second.
    Rate,
    /// Hundredths of the whole.
    Percent,
    /// Things.
    Count,
}

/// One program's row.
struct Row {
    who: String,
    /// In ascending order.
    samples: Vec<f64>,
    aim: String,
}

/// Programs beside each other, by one measure.
pub struct Table {
    title: String,
    unit: Unit,
    rows: Vec<Row>,
}

impl Table {
    /// A table without rows. The title says what is measured, and where.
    pub fn new(title: impl Into<String>, unit: Unit) -> Self {
        Self { title: title.into(), unit, rows: Vec::new() }
    }

    /// Adds a program's samples (at least one) and what they ought to be; the first row is what the others are compared with.
    pub fn row(mut self, who: impl Into<String>, mut samples: Vec<f64>, aim: impl Into<String>) -> Self {
        assert!(!samples.is_empty(), "a row of nothing");
        samples.sort_by(f64::total_cmp);
        self.rows.push(Row { who: who.into(), samples, aim: aim.into() });
        self
    }

    /// Prints it for people.
    pub fn print(&self) {
        println!("{}", self.text());
    }

    fn text(&self) -> String {
        let base = self.rows.first().map_or(1.0, |row| at(&row.samples, 0.5));
        let mut cells = vec![["", "runs", "median", "p99", "min", "max", "ratio", "aim"].map(str::to_owned)];
        for Row { who, samples, aim } in &self.rows {
            let shown = |share| self.unit.show(at(samples, share));
            let ratio = at(samples, 0.5) / base;
            cells.push([
                who.clone(),
                samples.len().to_string(),
                shown(0.5),
                shown(0.99),
                shown(0.0),
                shown(1.0),
                if ratio.is_finite() { format!("{ratio:.2}") } else { "-".to_owned() },
                aim.clone(),
            ]);
        }
        let widths: Vec<usize> =
            (0..8).map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        let mut text = format!("{}\n", self.title);
        for row in cells {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Names and aims to the left, numbers to the right.
                let _ = match column {
                    0 | 7 => write!(line, "  {cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// The sample below which this share of them lies (nearest rank).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among some hundreds"
)]
fn at(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

impl Unit {
    /// A value as people read it.
    pub fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let (scale, name) = steps.iter().find(|(scale, _)| value >= *scale).or(steps.last()).unwrap_or(&(1.0, ""));
            format!("{:.1} {name}", value / scale)
        };
        match self {
            Self::Time => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]),
            Self::Size => scaled(&[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")]),
            Self::Rate => scaled(&[(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")]),
            Self::Percent => format!("{value:.3} %"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

/// Runs each measurement once per round, one after the other, so that a busy moment of the machine falls on all alike.
/// The samples come back in the order of the measurements.
pub fn interleaved(rounds: usize, measures: &mut [&mut dyn FnMut() -> Result<f64>]) -> Result<Vec<Vec<f64>>> {
    let mut samples = vec![Vec::with_capacity(rounds); measures.len()];
    for _ in 0..rounds {
        for (measure, samples) in measures.iter_mut().zip(&mut samples) {
            samples.push(measure()?);
        }
    }
    Ok(samples)
}

/// What a program took to its end.
#[derive(Debug)]
pub struct Used {
    /// How it ended.
    pub status: ExitStatus,
    /// From its start to its end.
    pub took: Duration,
    /// Time on a processor, in its own code and in the kernel's.
    pub cpu: Duration,
    /// The most memory that it had at a time, in bytes. The kernel counts in it what the bench itself had when it
    /// started the program, about 3 MB.
    pub peak: u64,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<Used> {
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let end = child.wait4().with_context(|| format!("wait for {command:?}"))?;
    Ok(Used {
        status: end.status,
        took: start.elapsed(),
        cpu: end.rusage.utime + end.rusage.stime,
        peak: end.rusage.maxrss,
    })
}
