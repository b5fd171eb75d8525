//! Where events go.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;

use super::event::{Event, Level};
use super::fields::Fields;
use crate::host::console;
use crate::host::notify;

/// The only target that reaches the journal: what libraries log stays out, since they do not know our secrets.
const TARGET: &str = "nodeagent";

/// What the command line says about messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Also tell the details.
    pub verbose: bool,
    /// Never draw a progress bar.
    pub no_progress: bool,
}

/// Tells events to every sink. Cheap to clone.
#[derive(Clone)]
pub struct Teller {
    sinks: Arc<Sinks>,
}

struct Sinks {
    stderr: bool,
    verbose: bool,
    bars: MultiProgress,
    show_bars: bool,
}

/// Connects the sinks, once, at the start of the process.
pub fn start(options: Options) -> Teller {
    // Without a journal (an image build, a container) stderr alone is right: nothing is lost, so nothing is said.
    let journal = tracing_journald::layer().ok().map(|layer| {
        layer
            .with_field_prefix(None)
            .with_syslog_identifier("nodeagent".to_owned())
            .with_priority_mappings(tracing_journald::PriorityMappings {
                error: tracing_journald::Priority::Error,
                warn: tracing_journald::Priority::Warning,
                info: tracing_journald::Priority::Informational,
                debug: tracing_journald::Priority::Debug,
                trace: tracing_journald::Priority::Debug,
            })
            .with_filter(filter_fn(|meta| meta.target() == TARGET))
    });
    let stderr = journal.is_none() || !console::stderr_is_journal();
    // A second call (tests) keeps the first subscriber: the sinks are the same.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(journal));
    let show_bars = stderr && !options.no_progress && console::stderr_is_terminal();
    let target = if show_bars { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bars = MultiProgress::with_draw_target(target);
    Teller { sinks: Arc::new(Sinks { stderr, verbose: options.verbose, bars, show_bars }) }
}

impl Teller {
    /// A teller that says nothing, for tests.
    pub fn silent() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        Self { sinks: Arc::new(Sinks { stderr: false, verbose: false, bars, show_bars: false }) }
    }

    /// Tells one event to every sink.
    pub fn tell(&self, event: &Event<'_>) {
        let text = note(event);
        if self.sinks.stderr && (self.sinks.verbose || event.level() < Level::Debug) {
            self.line(&text);
        }
    }

    /// A line that says what is being waited for.
    pub fn status_line(&self) -> StatusLine<'_> {
        let line = self.sinks.show_bars.then(|| {
            let line = ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}"));
            let line = self.sinks.bars.add(line);
            line.enable_steady_tick(Duration::from_millis(250));
            line
        });
        StatusLine { teller: self, line }
    }

    /// One line on stderr, above any progress bar.
    fn line(&self, text: &str) {
        // Not `eprintln!`, which panics: a log that is full or closed must not end a bootstrap in its middle.
        if self.sinks.show_bars {
            self.sinks.bars.suspend(|| console::complain(text));
        } else {
            console::complain(text);
        }
    }

    /// A progress bar for `total` bytes of `what`; it draws nothing unless stderr is a terminal.
    pub fn progress(&self, what: &str, total: Option<u64>) -> ProgressBar {
        let bar = match total {
            Some(total) => ProgressBar::new(total)
                .with_style(style("{msg:>16} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")),
            None => ProgressBar::new_spinner().with_style(style("{msg:>16} {spinner} {bytes} {bytes_per_sec}")),
        };
        let bar = self.sinks.bars.add(bar).with_message(what.to_owned());
        if self.sinks.show_bars {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        bar
    }
}

/// Tells one event to every sink but stderr, and returns its text.
fn note(event: &Event<'_>) -> String {
    let text = event.text();
    to_journal(event.message_id(), event.level(), &event.fields(), &text);
    notify::status(&text);
    text
}

/// What is being waited for: on a terminal one line that is written over and over, and gone with this value; elsewhere
/// a line for each event.
pub struct StatusLine<'t> {
    teller: &'t Teller,
    line: Option<ProgressBar>,
}

impl StatusLine<'_> {
    /// Tells an event that the next one makes old.
    pub fn tell(&self, event: &Event<'_>) {
        match &self.line {
            Some(line) => line.set_message(note(event)),
            None => self.teller.tell(event),
        }
    }

    /// Tells an event that stays on the screen.
    pub fn tell_for_good(&self, event: &Event<'_>) {
        self.teller.tell(event);
    }

    /// Shows how it stands where a person looks on. It is no event.
    pub fn show(&self, text: &str) {
        if let Some(line) = &self.line {
            line.set_message(text.to_owned());
        }
    }
}

impl Drop for StatusLine<'_> {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

/// A bar's style; a template that does not parse would be a plain bar, and a test parses them.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn to_journal(id: &'static str, level: Level, fields: &Fields, text: &str) {
    // tracing fixes an event's level in its call site, hence one call per level over the same fields.
    macro_rules! emit {
        ($level:ident) => {
            tracing::event!(
                target: TARGET,
                tracing::Level::$level,
                message_id = id,
                nodeagent_step = fields.step,
                nodeagent_resource = fields.resource.as_deref(),
                nodeagent_result = fields.result.as_deref(),
                nodeagent_duration_usec = fields.duration.map(|d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
                nodeagent_bytes = fields.bytes,
                nodeagent_retries = fields.retries,
                "{}", text
            )
        };
    }
    match level {
        Level::Error => emit!(ERROR),
        Level::Warning => emit!(WARN),
        Level::Info => emit!(INFO),
        Level::Debug => emit!(DEBUG),
    }
}
