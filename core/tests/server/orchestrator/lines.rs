//! What instances have written: from the files of the engine below, with numbers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(20);

/// The lines of a tenant in the order in which they were found.
pub(super) struct Lines {
    folder: PathBuf,
    all: Mutex<Vec<String>>,
    /// How many there are.
    count: watch::Sender<usize>,
}

impl Lines {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            all: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }

    /// Of a service of a deployment.
    pub(super) fn file(&self, deployment: u64, service: &str) -> PathBuf {
        self.folder.join(format!("{deployment}.{service}.log"))
    }

    /// Reads what comes.
    pub(super) async fn collect(&self) {
        let mut read: BTreeMap<PathBuf, u64> = BTreeMap::new();
        loop {
            let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
            for file in files {
                self.collect_file(&file.path(), read.entry(file.path()).or_default());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn collect_file(&self, path: &Path, read: &mut u64) {
        let Some((deployment, service)) = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".log")?.split_once('.'))
        else {
            return;
        };
        let mut file = fs::File::open(path).unwrap();
        file.seek(SeekFrom::Start(*read)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        *read += whole as u64;
        let mut all = self.all.lock().unwrap();
        for line in text[..whole].lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let line = json!({
                "number": all.len() + 1,
                "at": record["at"],
                "deployment": deployment.parse::<u64>().unwrap(),
                "service": service,
                "instance": record["instance"],
                "stream": record["stream"],
                "line": record["line"],
            });
            all.push(format!("{line}\n"));
        }
        let count = all.len();
        drop(all);
        self.count.send_if_modified(|known| {
            let more = *known != count;
            *known = count;
            more
        });
    }

    /// The first of the lines behind so many, once there are any.
    pub(super) async fn behind(&self, read: usize) -> Vec<String> {
        let mut count = self.count.subscribe();
        // It ends with the tenant only.
        let _ = count.wait_for(|count| *count > read).await;
        self.all.lock().unwrap()[read..].to_vec()
    }
}
