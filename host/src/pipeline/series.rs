//! What plugins add up over time: cells by tenant and key, in windows of commit time.
//!
//! Values are added when their request is committed, in commit order, whoever worked on it; a window closes when
//! commit time passes its end, so nothing is late. A key is still shown for [`SILENT_MAX`] windows after its last value,
//! with a count of zero: silence is news. All that is kept is bounded; beyond the bounds values add to the key `_other`,
//! whose sums stay exact.

use crate::batch::TenantId;
use crate::sandbox::{Cell, Window};
use crate::telemetry::{Labels, Metrics};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The key of what has no place of its own.
pub(super) const OTHERS: &str = "_other";
/// Windows after its last value in which a key is shown: long enough to tell a pause from an end.
const SILENT_MAX: u64 = 10;
/// What one plugin keeps over all tenants: 50,000 keys. A plugin that wants more harms nobody but itself.
const PLUGIN_BYTES_MAX: usize = 64 << 20;
/// Windows of one key that wait to be taken, the open one among them. They are taken every second, so that more wait
/// only if the plugin is slower than its windows are long; then the oldest are lost, counted.
const CELLS_MAX: usize = 4;
/// What a key costs beside its text: as many cells as it may have, and its place in the map.
const KEY_BYTES: usize = CELLS_MAX * size_of::<(u64, Cell)>() + 96;

/// The series of all plugins that have windows.
#[derive(Debug)]
pub struct Series {
    plugins: Mutex<HashMap<String, Arc<Mutex<PluginSeries>>>>,
    metrics: Metrics,
}

/// The series of one plugin.
#[derive(Debug)]
struct PluginSeries {
    window_ms: u64,
    /// Keys of one tenant.
    keys_max: usize,
    /// Never without a key.
    tenants: BTreeMap<TenantId, TenantSeries>,
    bytes: usize,
}

#[derive(Debug)]
struct TenantSeries {
    keys: HashMap<String, Key>,
    /// The first window that was open when windows were taken last; earlier ones are closed for ever. Windows are
    /// numbered from 1970 on.
    open: u64,
}

#[derive(Debug)]
struct Key {
    /// Windows with values that were not taken yet, ascending.
    cells: VecDeque<(u64, Cell)>,
    /// The first window that was not taken yet.
    next: u64,
    /// Windows before this one are shown even without a value.
    silent_until: u64,
}

/// A plugin that has windows.
#[derive(Clone, Debug)]
pub struct Windowed {
    pub plugin: String,
    pub window_seconds: u32,
    /// Keys of one tenant.
    pub keys_max: usize,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Overflow {
    /// Values that were added to [`OTHERS`].
    others: u64,
    /// Windows that waited too long.
    lost: u64,
}

impl Series {
    pub fn new(metrics: Metrics) -> Series {
        Series { plugins: Mutex::default(), metrics }
    }

    /// From now on these plugins have windows. What others had is gone, as is what one had whose windows get another
    /// length.
    pub fn promote(&self, plugins: impl Iterator<Item = Windowed>) {
        let mut known = lock(&self.plugins);
        let kept = |Windowed { plugin, window_seconds, keys_max }: Windowed| {
            let window_ms = u64::from(window_seconds) * 1_000;
            let same = known.get(&plugin).filter(|series| lock(series).window_ms == window_ms).cloned();
            let series = same.unwrap_or_else(|| Arc::new(Mutex::new(PluginSeries::new(window_ms, keys_max))));
            lock(&series).keys_max = keys_max;
            (plugin, series)
        };
        let kept = plugins.filter(|windowed| windowed.window_seconds > 0).map(kept).collect();
        *known = kept;
    }

    /// Adds what a request left, at its commit time. In commit order.
    pub fn add(
        &self,
        plugin: &str,
        tenant: &TenantId,
        time_ms: u64,
        series: impl IntoIterator<Item = (String, Cell)>,
    ) {
        let Some(of_plugin) = self.of(plugin) else { return };
        let overflow = lock(&of_plugin).add(tenant, time_ms, series);
        self.metrics.count_limit(plugin, "series_keys", overflow.others);
        self.count_lost(plugin, "waiting", overflow.lost);
    }

    /// Tenants of which windows may have closed.
    pub fn due(&self, plugin: &str, now_ms: u64) -> Vec<TenantId> {
        let Some(of_plugin) = self.of(plugin) else { return Vec::new() };
        let of_plugin = lock(&of_plugin);
        let open = now_ms / of_plugin.window_ms;
        let due = of_plugin.tenants.iter().filter(|(_, series)| series.open < open);
        due.map(|(tenant, _)| tenant.clone()).collect()
    }

    /// The closed windows of a tenant that nobody took yet, by their start and key.
    pub fn take(&self, plugin: &str, tenant: &TenantId, now_ms: u64) -> Vec<Window> {
        let Some(of_plugin) = self.of(plugin) else { return Vec::new() };
        let mut windows = lock(&of_plugin).take(tenant, now_ms);
        windows.sort_unstable_by(|a, b| (a.start_ns, &a.key).cmp(&(b.start_ns, &b.key)));
        windows
    }

    /// Windows that no plugin will see.
    pub(super) fn count_lost(&self, plugin: &str, reason: &'static str, windows: u64) {
        if windows > 0 {
            let labels: Labels = vec![("plugin", plugin.to_owned()), ("reason", reason.to_owned())];
            self.metrics.process_lost_windows.get_or_create(&labels).inc_by(windows);
        }
    }

    fn of(&self, plugin: &str) -> Option<Arc<Mutex<PluginSeries>>> {
        lock(&self.plugins).get(plugin).cloned()
    }
}

/// What a panic left half done is a few values at most.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PluginSeries {
    fn new(window_ms: u64, keys_max: usize) -> PluginSeries {
        PluginSeries { window_ms, keys_max, tenants: BTreeMap::new(), bytes: 0 }
    }

    fn add(
        &mut self,
        tenant: &TenantId,
        time_ms: u64,
        series: impl IntoIterator<Item = (String, Cell)>,
    ) -> Overflow {
        let number = time_ms / self.window_ms;
        let mut overflow = Overflow::default();
        for (key, cell) in series {
            if !self.tenants.contains_key(tenant) {
                let new = TenantSeries { keys: HashMap::new(), open: number };
                self.tenants.insert(tenant.clone(), new);
            }
            let of_tenant = self.tenants.get_mut(tenant).expect("it was there or was just added");
            let has_room =
                of_tenant.keys.len() < self.keys_max && self.bytes + cost(&key) <= PLUGIN_BYTES_MAX;
            let key = if has_room || of_tenant.keys.contains_key(&key) { key } else { OTHERS.to_owned() };
            if key == OTHERS {
                overflow.others += cell.count;
            }
            // A window that was taken gets no more values, whatever the time says.
            let number = number.max(of_tenant.open);
            let bytes = &mut self.bytes;
            let of_key = of_tenant.keys.entry(key).or_insert_with_key(|key| {
                *bytes += cost(key);
                Key { cells: VecDeque::with_capacity(1), next: number, silent_until: number }
            });
            overflow.lost += of_key.add(number, &cell);
        }
        overflow
    }

    fn take(&mut self, tenant: &TenantId, now_ms: u64) -> Vec<Window> {
        let Some(of_tenant) = self.tenants.get_mut(tenant) else { return Vec::new() };
        let (open, window_ms) = (now_ms / self.window_ms, self.window_ms);
        of_tenant.open = of_tenant.open.max(open);
        let mut windows = Vec::new();
        of_tenant.keys.retain(|key, of_key| {
            of_key.take(open, |number, cell| windows.push(window(key, number, window_ms, cell)));
            let is_over = of_key.is_over();
            if is_over {
                self.bytes -= cost(key);
            }
            !is_over
        });
        if of_tenant.keys.is_empty() {
            self.tenants.remove(tenant);
        }
        windows
    }
}

fn cost(key: &str) -> usize {
    KEY_BYTES + key.len()
}

fn window(key: &str, number: u64, window_ms: u64, cell: Cell) -> Window {
    let ns = |number: u64| number.saturating_mul(window_ms).saturating_mul(1_000_000);
    Window { key: key.to_owned(), start_ns: ns(number), end_ns: ns(number + 1), cell }
}

impl Key {
    /// Adds to a window, or to a later one that has values already; how many windows made place.
    fn add(&mut self, number: u64, cell: &Cell) -> u64 {
        if let Some((last, known)) = self.cells.back_mut().filter(|(last, _)| *last >= number) {
            debug_assert!(*last >= self.next);
            known.merge(cell);
            return 0;
        }
        let mut lost = 0;
        if self.cells.len() == CELLS_MAX
            && let Some((oldest, _)) = self.cells.pop_front()
        {
            self.shown(oldest);
            lost = 1;
        }
        self.cells.push_back((number, cell.clone()));
        lost
    }

    /// Hands out the windows before `open`, each once, in order.
    fn take(&mut self, open: u64, mut give: impl FnMut(u64, Cell)) {
        while let Some((number, cell)) = self.cells.pop_front_if(|(number, _)| *number < open) {
            (self.next..number.min(self.silent_until)).for_each(|silent| give(silent, Cell::default()));
            give(number, cell);
            self.shown(number);
        }
        (self.next..open.min(self.silent_until)).for_each(|silent| give(silent, Cell::default()));
        self.next = self.next.max(open);
    }

    /// A window with values is behind.
    fn shown(&mut self, number: u64) {
        self.next = number + 1;
        self.silent_until = self.next + SILENT_MAX;
    }

    /// Nothing was added for so long that it is forgotten.
    fn is_over(&self) -> bool {
        self.cells.is_empty() && self.next >= self.silent_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    const KEYS_MAX: usize = 1_000;

    fn windowed(plugin: &str, window_seconds: u32) -> Windowed {
        Windowed { plugin: plugin.to_owned(), window_seconds, keys_max: KEYS_MAX }
    }

    fn series(seconds: u32) -> (Series, Metrics) {
        let metrics = Metrics::new();
        let series = Series::new(metrics.clone());
        series.promote([windowed("p", seconds)].into_iter());
        (series, metrics)
    }

    fn cell(values: &[f64]) -> Cell {
        let mut cell = Cell::default();
        values.iter().for_each(|value| cell.add(*value));
        cell
    }

    fn add(series: &Series, time_ms: u64, key: &str, values: &[f64]) {
        series.add("p", &tenant("t"), time_ms, [(key.to_owned(), cell(values))]);
    }

    /// `key@start:count/sum` in seconds.
    fn shown(windows: &[Window]) -> String {
        let show = |w: &Window| {
            let (start, end) = (w.start_ns / 1_000_000_000, w.end_ns / 1_000_000_000);
            format!("{}@{start}-{end}:{}/{}", w.key, w.cell.count, w.cell.sum)
        };
        windows.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    fn taken(series: &Series, now_ms: u64) -> String {
        let due = series.due("p", now_ms).contains(&tenant("t"));
        let windows = series.take("p", &tenant("t"), now_ms);
        assert!(due || windows.is_empty(), "{windows:?}");
        shown(&windows)
    }

    #[test]
    fn a_window_closes_at_its_end_and_holds_what_was_committed_in_it() {
        let (series, _) = series(10);
        add(&series, 10_000, "b", &[1.0, 2.0]);
        add(&series, 19_999, "b", &[4.0]);
        add(&series, 19_999, "a", &[0.5]);
        add(&series, 20_000, "b", &[8.0]);
        assert_eq!(taken(&series, 19_999), "");
        assert_eq!(taken(&series, 20_000), "a@10-20:1/0.5 b@10-20:3/7");
        assert_eq!(taken(&series, 29_999), "", "each is taken once");
        assert_eq!(taken(&series, 30_000), "a@20-30:0/0 b@20-30:1/8");
    }

    #[test]
    fn a_key_is_shown_ten_windows_after_its_last_value_and_then_forgotten() {
        let (series, _) = series(1);
        add(&series, 1_000, "a", &[1.0]);
        assert_eq!(taken(&series, 2_000), "a@1-2:1/1");
        for second in 2..12 {
            let expected = format!("a@{second}-{}:0/0", second + 1);
            assert_eq!(taken(&series, (second + 1) * 1_000), expected);
        }
        assert_eq!(taken(&series, 13_000), "");
        assert!(series.due("p", u64::MAX).is_empty(), "nothing is kept of it");
        let of_plugin = series.of("p").unwrap();
        assert_eq!(lock(&of_plugin).bytes, 0);
        // It may come again, without a past.
        add(&series, 50_000, "a", &[1.0]);
        assert_eq!(taken(&series, 51_000), "a@50-51:1/1");
    }

    #[test]
    fn when_the_clock_jumps_what_is_shown_stays_bounded() {
        let (series, _) = series(1);
        add(&series, 1_000, "a", &[1.0]);
        let year_ms = 365 * 24 * 3_600_000;
        let windows = series.take("p", &tenant("t"), year_ms);
        assert_eq!(windows.len(), 11);
        assert!(windows.is_sorted_by_key(|window| window.start_ns));
        assert!(series.due("p", u64::MAX).is_empty());
    }

    #[test]
    fn a_closed_window_gets_no_more_values_even_if_time_went_back() {
        let (series, _) = series(1);
        add(&series, 1_000, "a", &[1.0]);
        assert_eq!(taken(&series, 5_000), "a@1-2:1/1 a@2-3:0/0 a@3-4:0/0 a@4-5:0/0");
        add(&series, 1_500, "a", &[2.0]);
        assert_eq!(taken(&series, 6_000), "a@5-6:1/2");
    }

    #[test]
    fn keys_beyond_the_bound_add_up_to_others_exactly() {
        let (series, metrics) = series(1);
        for at in 0..5_000 {
            add(&series, 1_000, &format!("key {at}"), &[1.0, 2.0]);
        }
        series.add("p", &tenant("u"), 1_000, [("key 4999".to_owned(), cell(&[1.0]))]);
        // One that is known still counts under its name.
        add(&series, 1_000, "key 0", &[5.0]);
        let windows = series.take("p", &tenant("t"), 2_000);
        assert_eq!(windows.len(), KEYS_MAX + 1);
        assert_eq!(shown(&windows[..2]), "_other@1-2:8000/12000 key 0@1-2:3/8");
        assert_eq!(shown(&series.take("p", &tenant("u"), 2_000)), "key 4999@1-2:1/1");
        let text = metrics.text();
        let line = r#"trommel_process_limit_total{plugin="p",limit="series_keys"} 8000"#;
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_one_plugin_keeps_is_bounded_over_all_tenants() {
        let (series, _) = series(1);
        for at in 0..100 {
            let keys = (0..KEYS_MAX).map(|key| (key.to_string(), cell(&[1.0])));
            series.add("p", &tenant(&format!("t{at}")), 1_000, keys);
        }
        let of_plugin = series.of("p").unwrap();
        let kept: usize = lock(&of_plugin).tenants.values().map(|of| of.keys.len()).sum();
        assert!((40_000..60_000).contains(&kept), "{kept}");
        assert!(lock(&of_plugin).bytes <= PLUGIN_BYTES_MAX + 100 * cost(OTHERS));
        let mut all = 0;
        for at in 0..100 {
            let windows = series.take("p", &tenant(&format!("t{at}")), 2_000);
            all += windows.iter().map(|window| window.cell.count).sum::<u64>();
        }
        assert_eq!(all, 100 * KEYS_MAX as u64, "nothing is lost");
        for at in 0..100 {
            series.take("p", &tenant(&format!("t{at}")), 100_000);
        }
        let of_plugin = lock(&of_plugin);
        assert_eq!((of_plugin.bytes, of_plugin.tenants.len()), (0, 0));
    }

    #[test]
    fn windows_that_nobody_takes_are_bounded_and_their_loss_is_counted() {
        let (series, metrics) = series(1);
        for second in 1..=10 {
            add(&series, second * 1_000, "a", &[second as f64]);
        }
        assert_eq!(taken(&series, 11_000), "a@7-8:1/7 a@8-9:1/8 a@9-10:1/9 a@10-11:1/10");
        let text = metrics.text();
        let line = r#"trommel_process_lost_windows_total{plugin="p",reason="waiting"} 6"#;
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_plugin_that_is_gone_keeps_nothing_and_the_others_all() {
        let (series, _) = series(1);
        add(&series, 1_000, "a", &[1.0]);
        let both = || [windowed("p", 1), windowed("q", 2), windowed("without", 0)];
        series.promote(both().into_iter());
        series.add("q", &tenant("t"), 1_000, [("b".to_owned(), cell(&[1.0]))]);
        series.add("without", &tenant("t"), 1_000, [("b".to_owned(), cell(&[1.0]))]);
        assert!(series.due("without", u64::MAX).is_empty());
        series.promote(both().into_iter());
        assert_eq!(taken(&series, 2_000), "a@1-2:1/1");
        series.promote([windowed("q", 2)].into_iter());
        assert_eq!(taken(&series, 3_000), "");
        assert_eq!(shown(&series.take("q", &tenant("t"), 2_000)), "b@0-2:1/1");
        // Windows of another length are other windows.
        series.add("q", &tenant("t"), 3_000, [("b".to_owned(), cell(&[1.0]))]);
        series.promote([windowed("q", 5)].into_iter());
        assert!(series.due("q", u64::MAX).is_empty());
    }

    /// Every value with its time, and nothing else.
    #[derive(Default)]
    struct Naive {
        values: Vec<(u64, String, f64)>,
    }

    impl Naive {
        fn windows(&self, seconds: u64, until_ms: u64) -> Vec<Window> {
            let number = |time_ms: u64| time_ms / (seconds * 1_000);
            let keys: BTreeSet<&String> = self.values.iter().map(|(_, key, _)| key).collect();
            let mut windows = Vec::new();
            for at in 0..number(until_ms) {
                for key in &keys {
                    let mine = |n: u64| {
                        let of_key = self.values.iter().filter(move |(_, known, _)| known == *key);
                        of_key.filter(move |(time, _, _)| number(*time) == n).map(|(_, _, value)| *value)
                    };
                    let here: Vec<f64> = mine(at).collect();
                    let is_silent = (1..=SILENT_MAX).any(|ago| ago <= at && mine(at - ago).next().is_some());
                    if !here.is_empty() || is_silent {
                        windows.push(window(key, at, seconds * 1_000, cell(&here)));
                    }
                }
            }
            windows
        }
    }

    proptest! {
        #[test]
        fn windows_are_those_of_a_naive_model_however_often_they_are_taken(
            seconds in 1_u32..4,
            steps in prop::collection::vec((0_u64..3_500, 0_u8..4, 0_u8..3, -8_i8..100), 1..60),
        ) {
            let (series, _) = series(seconds);
            let (mut naive, mut now_ms, mut found, mut untaken_ms) = (Naive::default(), 0, Vec::new(), 0);
            for (pause_ms, what, key, value) in steps {
                // Only so much waits as is never lost.
                untaken_ms += pause_ms;
                if what == 0 || untaken_ms >= u64::from(seconds) * 2_000 {
                    found.extend(series.take("p", &tenant("t"), now_ms));
                    untaken_ms = pause_ms;
                }
                now_ms += pause_ms;
                let (key, value) = (format!("k{key}"), f64::from(value));
                add(&series, now_ms, &key, &[value]);
                naive.values.push((now_ms, key, value));
            }
            now_ms += 20_000 * u64::from(seconds);
            found.extend(series.take("p", &tenant("t"), now_ms));
            prop_assert_eq!(found, naive.windows(seconds.into(), now_ms));
            prop_assert!(series.due("p", u64::MAX).is_empty());
        }
    }
}
