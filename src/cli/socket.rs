//! The local socket of a data folder: where commands find the running node.
//!
//! **Invariant**: only the user whose node it is can connect (mode 0600), and what a killed node left behind is in
//! nobody's way: nobody answers there, and the next node replaces it.
//!
//! The path of a Unix socket has at most 108 bytes on Linux and 104 elsewhere; data folders may lie deeper. On Linux
//! the folder is then opened and named by `/proc/self/fd/N`; elsewhere that is an error that says so.

#[cfg(not(unix))]
pub use self::elsewhere::{Listener, Socket, connect};
#[cfg(unix)]
pub use self::unix::{Listener, Socket, connect};

#[cfg(unix)]
mod unix {
    use std::fs::{self, File, Permissions};
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    /// A connection.
    pub type Socket = UnixStream;

    /// The longest path that every Unix takes, with some room for the end of it.
    const PATH_BYTES_MAX: usize = 100;

    /// A path to a socket that is short enough. The folder stays open as long as the path is needed.
    struct Place {
        path: PathBuf,
        _folder: Option<File>,
    }

    #[cfg(target_os = "linux")]
    fn by_handle(path: &Path) -> io::Result<Place> {
        use std::os::fd::AsRawFd;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let name = path.file_name().unwrap_or_default();
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Place { path, _folder: Some(folder) })
    }

    #[cfg(not(target_os = "linux"))]
    fn by_handle(path: &Path) -> io::Result<Place> {
        let what = format!("{} is longer than a socket's path may be: use a shorter --data DIR", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidFilename, what))
    }

    fn place(path: &Path) -> io::Result<Place> {
        if path.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
            by_handle(path)
        } else {
            Ok(Place { path: path.to_owned(), _folder: None })
        }
    }

    /// Connects with the node that listens at `path`; none if nobody does.
    pub async fn connect(path: &Path) -> io::Result<Option<Socket>> {
        // Looked at first: where there is nothing there may be no folder to open either.
        if !path.exists() {
            return Ok(None);
        }
        match UnixStream::connect(&place(path)?.path).await {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                // So many wait to be let in already. They are seen to one after the other: ask again.
                io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Listens for commands. Dropping it removes the socket.
    pub struct Listener {
        listener: UnixListener,
        path: PathBuf,
    }

    impl Listener {
        /// Listens at `path`. The caller holds the data folder, so whatever is there was left behind.
        ///
        /// It is made beside its place and renamed, so that it is never there with other permissions than its own.
        pub fn bind(path: &Path) -> io::Result<Self> {
            let beside = path.with_extension("sock.new");
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&place(&beside)?.path)?;
            fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
            fs::rename(&beside, path)?;
            Ok(Self { listener, path: path.to_owned() })
        }

        /// The next connection.
        pub async fn accept(&self) -> io::Result<Socket> {
            self.listener.accept().await.map(|(socket, _)| socket)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path);
        }
    }

    #[cfg(test)]
    mod tests {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        use super::*;

        async fn meets(path: &Path) {
            let listener = Listener::bind(path).expect("a free place");
            let mode = fs::metadata(path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let mut client = connect(path).await.expect("allowed").expect("somebody listens");
            let mut server = listener.accept().await.expect("the client");
            client.write_all(b"hello").await.expect("connected");
            let mut said = [0; 5];
            server.read_exact(&mut said).await.expect("connected");
            assert_eq!(&said, b"hello");
            drop(listener);
            assert!(!path.exists(), "it tidies up");
            assert!(connect(path).await.expect("nothing is wrong").is_none());
        }

        #[tokio::test]
        async fn a_node_and_its_commands_meet() {
            let folder = tempfile::tempdir().expect("a folder");
            meets(&folder.path().join("node.sock")).await;
        }

        #[cfg(target_os = "linux")]
        #[tokio::test]
        async fn a_data_folder_may_lie_deep() {
            let folder = tempfile::tempdir().expect("a folder");
            let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
            fs::create_dir_all(&deep).expect("a folder");
            meets(&deep.join("node.sock")).await;
        }

        #[tokio::test]
        async fn what_a_killed_node_left_behind_is_in_nobodys_way() {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("node.sock");
            for name in ["node.sock", "node.sock.new"] {
                // Closing a listener of the standard library leaves its file, as being killed does.
                drop(std::os::unix::net::UnixListener::bind(folder.path().join(name)).expect("a free place"));
            }
            assert!(path.exists() && connect(&path).await.expect("nothing is wrong").is_none());
            meets(&path).await;
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::io;
    use std::path::Path;

    /// A connection. There is none on this platform: commands need the node to be stopped.
    pub type Socket = tokio::io::DuplexStream;

    /// Finds nobody.
    pub async fn connect(_: &Path) -> io::Result<Option<Socket>> {
        Ok(None)
    }

    /// Hears nobody.
    pub struct Listener;

    impl Listener {
        /// Listens to nobody.
        pub fn bind(_: &Path) -> io::Result<Self> {
            Ok(Self)
        }

        /// Waits for ever.
        pub async fn accept(&self) -> io::Result<Socket> {
            std::future::pending().await
        }
    }
}
