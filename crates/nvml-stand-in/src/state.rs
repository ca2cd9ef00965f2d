//! What the library remembers between two calls.

use crate::description::{Described, Description};
use nvml_wrapper_sys::bindings as sys;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// `nvmlReturn_t` of a failure.
pub(crate) type Return = u32;

/// How often a call that hangs looks for another description.
const LOOK: Duration = Duration::from_millis(20);

/// The state of the process; `None` until NVML is started.
static STATE: Mutex<Option<State>> = Mutex::new(None);

/// A started library.
pub(crate) struct State {
    path: PathBuf,
    stamp: Option<Stamp>,
    host: Description,
    gpus: Vec<Described>,
    /// Calls that each fault has met.
    met: Vec<u32>,
    /// Events that were told.
    told: usize,
    sets: BTreeMap<usize, Vec<(usize, u64)>>,
    next_set: usize,
    started: u32,
    /// Locked for as long as the library is started, so that a test's program that resets GPUs knows whether anybody has.
    _client: Option<File>,
}

/// By what a changed file is known: a test writes a new one and renames it.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// Starts the library.
pub(crate) fn start() -> Result<(), Return> {
    let mut guard = lock();
    if let Some(state) = guard.as_mut() {
        state.started += 1;
        return state.refresh();
    }
    let named = std::env::var_os(crate::VARIABLE).map(PathBuf::from);
    let path = named.or_else(beside).ok_or(sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED)?;
    let mut state = State {
        _client: client(&path),
        path,
        stamp: None,
        host: Description::default(),
        gpus: Vec::new(),
        met: Vec::new(),
        told: 0,
        sets: BTreeMap::new(),
        next_set: 0,
        started: 1,
    };
    state.refresh()?;
    *guard = Some(state);
    Ok(())
}

/// A lock of the file `clients` beside the description, where there is one.
fn client(description: &Path) -> Option<File> {
    let file = File::open(description.with_file_name(crate::CLIENTS)).ok()?;
    file.lock_shared().ok()?;
    Some(file)
}

/// The description in the library's own folder. Where that is, the kernel tells: it has mapped this code from there.
fn beside() -> Option<PathBuf> {
    let here = (beside as fn() -> Option<PathBuf>) as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mapped = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let to = usize::from_str_radix(to, 16).ok()?;
        (from..to).contains(&here).then(|| rest.find('/').map(|at| PathBuf::from(&rest[at..])))?
    })?;
    Some(mapped.parent()?.join(crate::BESIDE))
}

/// Ends the library when it was ended as often as it was started.
pub(crate) fn stop() -> Result<(), Return> {
    let mut guard = lock();
    let state = guard.as_mut().ok_or(sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)?;
    state.started -= 1;
    if state.started == 0 {
        *guard = None;
    }
    Ok(())
}

/// Does something with the state, as the file now describes the host.
pub(crate) fn with<T>(act: impl FnOnce(&mut State) -> Result<T, Return>) -> Result<T, Return> {
    let mut guard = lock();
    let state = guard.as_mut().ok_or(sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)?;
    state.refresh()?;
    act(state)
}

fn lock() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Reads the file again if it is another one.
    fn refresh(&mut self) -> Result<(), Return> {
        let now = stamp(&self.path);
        if now.is_none() {
            self.stamp = None;
            return Err(sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED);
        }
        if now != self.stamp {
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            let host = Description::parse(&text).map_err(|_| sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN)?;
            self.gpus = host.gpus().map_err(|_| sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN)?;
            // What counts calls goes on counting where something else was described anew.
            if host.faults != self.host.faults || self.met.len() != host.faults.len() {
                self.met = vec![0; host.faults.len()];
            }
            self.host = host;
            self.stamp = now;
        }
        if self.host.driver.is_none() {
            return Err(sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED);
        }
        Ok(())
    }

    /// The host.
    pub(crate) fn host(&self) -> &Description {
        &self.host
    }

    /// The GPUs.
    pub(crate) fn gpus(&self) -> &[Described] {
        &self.gpus
    }

    /// Changes the MIG instances of a GPU, for every process whose library has this description: they are written into it.
    pub(crate) fn part<T>(
        &mut self,
        gpu: usize,
        act: impl FnOnce(&mut Described) -> Result<T, Return>,
    ) -> Result<T, Return> {
        let unknown = |_| sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN;
        let lock = File::create(self.path.with_extension("lock")).map_err(unknown)?;
        lock.lock().map_err(unknown)?;
        self.refresh()?;
        let mut described =
            self.gpus.get(gpu).cloned().ok_or(sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let done = act(&mut described)?;
        let mut host = self.host.clone();
        let text = host.put_instances(gpu, &described).and_then(|()| host.to_text());
        let text = text.map_err(|_| sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN)?;
        let new = self.path.with_extension("parted");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.path)).map_err(unknown)?;
        self.refresh()?;
        Ok(done)
    }

    /// Fails, or hangs, if a fault says so.
    pub(crate) fn check(&mut self, function: &str, gpu: Option<usize>) -> Result<(), Return> {
        while self.meets_fault(function, gpu)? {
            while stamp(&self.path) == self.stamp {
                std::thread::sleep(LOOK);
            }
            self.refresh()?;
        }
        Ok(())
    }

    /// Whether the call hangs now; or how it fails.
    fn meets_fault(&mut self, function: &str, gpu: Option<usize>) -> Result<bool, Return> {
        for (fault, met) in self.host.faults.iter().zip(&mut self.met) {
            let of_function = fault.function == function || fault.function == "*" && gpu.is_some();
            let of_gpu = fault.gpu.is_none_or(|at| gpu == usize::try_from(at).ok());
            if !(of_function && of_gpu) {
                continue;
            }
            *met = met.saturating_add(1);
            let failed = met.saturating_sub(fault.after);
            if failed > 0 && fault.count.is_none_or(|count| failed <= count) {
                return if fault.hangs { Ok(true) } else { Err(fault.error) };
            }
        }
        Ok(false)
    }

    /// Makes a set of events.
    pub(crate) fn new_set(&mut self) -> usize {
        self.next_set += 1;
        self.sets.insert(self.next_set, Vec::new());
        self.next_set
    }

    /// A set of events.
    pub(crate) fn set(&mut self, set: usize) -> Result<&mut Vec<(usize, u64)>, Return> {
        self.sets.get_mut(&set).ok_or(sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)
    }

    /// Ends a set of events.
    pub(crate) fn free_set(&mut self, set: usize) -> Result<(), Return> {
        self.sets.remove(&set).map(|_| ()).ok_or(sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)
    }

    /// The next event for a set: GPU and XID.
    pub(crate) fn next_event(&mut self, set: usize) -> Result<Option<(usize, u64)>, Return> {
        let registered = self.set(set)?.clone();
        while let Some(event) = self.host.events.get(self.told) {
            self.told += 1;
            let gpu = usize::try_from(event.gpu).unwrap_or(usize::MAX);
            let xid = u64::from(sys::nvmlEventTypeXidCriticalError);
            if registered.iter().any(|(at, kinds)| *at == gpu && kinds & xid != 0) {
                return Ok(Some((gpu, event.xid)));
            }
        }
        Ok(None)
    }
}
