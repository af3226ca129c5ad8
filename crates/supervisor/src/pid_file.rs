//! The file that holds the supervisor's process number.

use std::fs;
use std::io;
use std::path::PathBuf;

use anygate_sys::process;

/// The file; it is removed when this is dropped in the process that wrote it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    pid: u32,
}

impl PidFile {
    /// Writes the file. One that names a process which is gone is replaced.
    ///
    /// Errors: one line that says what is in the way.
    pub fn write(path: PathBuf) -> Result<PidFile, String> {
        let shown = path.display();
        let pid = std::process::id();
        match fs::read_to_string(&path) {
            Ok(text) => {
                if let Ok(other) = text.trim().parse()
                    && process::exists(other)
                    && other.unsigned_abs() != pid
                {
                    return Err(format!(
                        "pid_file: {shown} names the running process {other}; stop it or remove the file"
                    ));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("pid_file: cannot read {shown}: {error}")),
        }
        fs::write(&path, format!("{pid}\n"))
            .map_err(|error| format!("pid_file: cannot write {shown}: {error}"))?;
        Ok(PidFile { path, pid })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if std::process::id() == self.pid
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_is_respected_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, "1\n").unwrap();
        assert!(PidFile::write(path.clone()).unwrap_err().contains("process 1"));
        fs::write(&path, "2147483646\n").unwrap();
        let file = PidFile::write(path.clone()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }
}
